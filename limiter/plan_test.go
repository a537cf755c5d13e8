package limiter_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/limiter"

	"pgregory.net/rapid"
)

// The wait that is foretold is the wait there is: whoever comes back after RetryAfter is
// served, and not a nanosecond earlier, whatever windows, history and queue there are.
func TestRetryAfterIsHonest(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		guard := drawMillis(rt, 20, "guard")
		budgets := []limiter.Budget{
			{Key: "a", Windows: drawWindows(rt, "a")},
			{Key: "b", Windows: drawWindows(rt, "b"), Headroom: rapid.IntRange(0, 2).Draw(rt, "headroom")},
		}
		gaps := rapid.SliceOfN(rapid.IntRange(0, 30), 1, 40).Draw(rt, "gaps")
		open := rapid.IntRange(0, 3).Draw(rt, "open")
		leave := rapid.SliceOfN(rapid.Bool(), len(gaps), len(gaps)).Draw(rt, "leave")
		pause := drawMillis(rt, 300, "pause")
		var problem error
		synctest.Test(t, func(t *testing.T) {
			l := newLocal(t, limiter.Config{Guard: guard})
			w := waiters{t: t, l: l}
			r := request(time.Hour, budgets...)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for i, gap := range gaps {
				time.Sleep(time.Duration(gap) * time.Millisecond)
				if leave[i] {
					w.add(ctx, "leaves", r)
				} else {
					w.add(t.Context(), "stays", r)
				}
			}
			l.Pause("b", pause)
			var permits []*limiter.Permit
			for range open {
				if p, err := l.Take(t.Context(), request(0, budgets[1])); err == nil {
					permits = append(permits, p)
				}
			}
			cancel()
			synctest.Wait()
			p, err := l.Take(t.Context(), request(0, budgets...))
			for _, p := range permits {
				p.Sent()
			}
			if err == nil {
				p.Release()
			} else {
				problem = comeBack(t, l, request(0, budgets...), err)
			}
			w.wg.Wait()
		})
		if problem != nil {
			rt.Error(problem)
		}
	})
}

func comeBack(t *testing.T, l *limiter.Local, r limiter.Request, err error) error {
	var over *limiter.OverBudgetError
	if !errors.As(err, &over) {
		return err
	}
	time.Sleep(over.RetryAfter - 1)
	synctest.Wait()
	if p, err := l.Take(t.Context(), r); err == nil {
		p.Release()
		return fmt.Errorf("served before %v, when told to come back", over.RetryAfter)
	}
	time.Sleep(time.Nanosecond)
	synctest.Wait()
	p, err := l.Take(t.Context(), r)
	if err != nil {
		return fmt.Errorf("refused after %v, when told to come back: %w", over.RetryAfter, err)
	}
	p.Release()
	return nil
}

func TestWaitUpToMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		b := budget("acme", 1, 10*time.Second)
		send(t, l, request(0, b))
		refused(t, l, request(10*time.Second-1, b))
		for range 100 { // the turn comes in the very moment in which patience ends
			send(t, l, request(10*time.Second, b))
		}
	})
}

// A waiter gives up when MaxWait is over, though it was told better.
func TestExpectationProvesWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		b := budget("acme", 1, 10*time.Second)
		slow := take(t, l, request(0, b))
		w := waiters{t: t, l: l}
		w.add(t.Context(), "first", request(12*time.Second, b))
		w.add(t.Context(), "second", request(time.Minute, b))
		time.Sleep(11 * time.Second)
		slow.Sent() // not at once, as was assumed
		time.Sleep(time.Second)
		// Nine seconds to go, and the second's turn comes before its own if it comes back.
		w.expect(`first after 12s: budget "acme" is used up for another 19s`)
		w.wg.Wait()
		w.expect("second after 21s")
	})
}

// Nobody is refused before its time because a permit is open for long: it may yet be released.
func TestHopeUntilMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		b := budget("acme", 1, 10*time.Second)
		slow := take(t, l, request(0, b))
		w := waiters{t: t, l: l}
		w.add(t.Context(), "first", request(12*time.Second, b))
		time.Sleep(11 * time.Second)
		if got, want := refused(t, l, request(0, b)).RetryAfter, 20*time.Second; got != want {
			t.Errorf("retry after %v, want %v", got, want)
		}
		slow.Release()
		w.expect("first after 11s")
	})
}

// When one budget has room, the other is used by somebody who is expected then.
func TestExpectedOfAnotherQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		shared := budget("shared", 1, 2*time.Second)
		x, y := budget("x", 1, 10*time.Second), budget("y", 1, 10*time.Second)
		send(t, l, request(0, x))
		send(t, l, request(0, y))
		w := waiters{t: t, l: l}
		w.add(t.Context(), "x", request(time.Minute, x, shared))
		refused(t, l, request(12*time.Second-1, shared, y))
		w.add(t.Context(), "y", request(12*time.Second, shared, y))
		w.wg.Wait()
		w.expect("x after 10s", "y after 12s")
	})
}

func TestGivingUpLetsTheNextAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		acme, egress := budget("acme", 10, time.Minute), budget("egress", 1, 30*time.Second)
		slow := take(t, l, request(0, egress))
		w := waiters{t: t, l: l}
		w.add(t.Context(), "both", request(30*time.Second, acme, egress))
		w.add(t.Context(), "acme", request(time.Minute, acme))
		time.Sleep(10 * time.Second)
		slow.Sent()
		w.wg.Wait()
		w.expect(
			"acme after 30s",
			`both after 30s: budget "egress" is used up for another 10s`)
	})
}

func TestPauseWithWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		acme, other := budget("acme", 1, 10*time.Second), budget("other", 1, 10*time.Second)
		send(t, l, request(0, acme))
		send(t, l, request(0, other))
		w := waiters{t: t, l: l}
		w.add(t.Context(), "impatient", request(15*time.Second, acme)) // was to be served after 10 s
		w.add(t.Context(), "patient", request(30*time.Second, acme))   // after 20 s, and now
		w.add(t.Context(), "last", request(30*time.Second, acme))      // after 30 s
		w.add(t.Context(), "other", request(10*time.Second, other))

		l.Pause("acme", 16*time.Second)
		w.expect(`impatient after 0s: budget "acme" is used up for another 36s`)
		w.wg.Wait()
		w.expect("other after 10s",
			"patient after 16s", "last after 26s")
	})
}
