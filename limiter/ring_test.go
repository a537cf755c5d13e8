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
