package limiter_test

import (
	"slices"
	"testing"
	"time"

	"freeagent-proxy/limiter"

	"pgregory.net/rapid"
)

// A ring holds the latest stamps in ascending order, in whatever order they come and go.
func TestRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keep := rapid.IntRange(1, 20).Draw(t, "keep")
		ring, model := limiter.NewRing(keep), []time.Duration{}
		stamp := rapid.Custom(func(t *rapid.T) time.Duration { return time.Duration(rapid.IntRange(-40, 40).Draw(t, "stamp")) })
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			s := stamp.Draw(t, "stamp")
			at, known := slices.BinarySearch(model, s)
			switch {
			case rapid.IntRange(0, 3).Draw(t, "removes") == 0:
				ring.Remove(s)
				if known {
					model = slices.Delete(model, at, at+1)
				}
			case !known:
				model = slices.Insert(model, at, s)
				model = model[max(0, len(model)-keep):]
				fallthrough
			default:
				ring.Insert(s)
			}
			after := stamp.Draw(t, "after")
			if got, want := ring.All(after), model[len(model)-since(model, after):]; !slices.Equal(got, want) {
				t.Fatalf("after %d: %v, want %v", after, got, want)
			}
			if _, want := slices.BinarySearch(model, after); ring.Has(after) != want {
				t.Fatalf("has %d: %v", after, !want)
			}
		}
	})
}

func since(model []time.Duration, after time.Duration) int {
	n := 0
	for _, s := range model {
		if s > after {
			n++
		}
	}
	return n
}

// Between two times a window may be filled as often as it becomes free, no more.
func TestRingMost(t *testing.T) {
	for _, c := range []struct {
		known []time.Duration
		to    time.Duration
		want  int
	}{
		{nil, 9, 3},
		{nil, 25, 9},
		{[]time.Duration{-5, -5, -4}, 4, 0},
		{[]time.Duration{-9, -5, -4}, 4, 1},
		{[]time.Duration{-9, -5, -4}, 15, 5},
		{[]time.Duration{-30, -20, -10}, 9, 3},
	} {
		r := limiter.NewRing(10)
		for i, stamp := range c.known {
			r.Insert(stamp*1000 + time.Duration(i))
		}
		if got := r.Most(3, 10*1000, 0, c.to*1000+2); got != c.want {
			t.Errorf("after %v at most %d come until %d, want %d", c.known, got, c.to, c.want)
		}
	}
}
