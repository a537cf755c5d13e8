package limiter_test

import (
	"cmp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/limiter"
)

// Who watches sees who waits, what is paused, and what another program has taken of a budget.
func TestStandings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		if got := l.Standings(); len(got) != 0 {
			t.Errorf("standings %+v of an unused limiter", got)
		}
		one, other := budget("acme", 10, time.Minute), budget("other", 1, time.Minute)
		for range 2 {
			send(t, l, request(0, one))
		}
		l.Exceeded(one, 30*time.Second)
		send(t, l, request(0, other))
		go func() { _, _ = l.Take(t.Context(), request(time.Hour, other)) }()
		synctest.Wait()
		time.Sleep(10 * time.Second)
		got := l.Standings()
		slices.SortFunc(got, func(a, b limiter.Standing) int { return cmp.Compare(a.Key, b.Key) })
		want := []limiter.Standing{
			{Key: "acme", Paused: 20 * time.Second, Whole: 0.2 + 10.0/600},
			{Key: "other", Waiting: 1, Whole: 1},
		}
		if !slices.Equal(got, want) {
			t.Errorf("standings %+v, want %+v", got, want)
		}
		time.Sleep(9 * time.Minute) // it has grown back
		if got := l.Standings(); len(got) > 0 && got[0].Whole != 1 {
			t.Errorf("standings %+v after ten minutes", got)
		}
	})
}
