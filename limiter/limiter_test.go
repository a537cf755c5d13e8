package limiter_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/limiter"
)

// newLocal returns a limiter that is closed when the test ends.
func newLocal(t *testing.T, cfg limiter.Config) *limiter.Local {
	t.Helper()
	l, err := limiter.NewLocal(cfg)
	if err != nil {
		t.Fatalf("NewLocal: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return l
}

// budget is a budget of one window.
func budget(key string, requests int, per time.Duration) limiter.Budget {
	return limiter.Budget{Key: key, Windows: []limiter.Window{{Requests: requests, Per: per}}}
}

func request(maxWait time.Duration, budgets ...limiter.Budget) limiter.Request {
	return limiter.Request{Budgets: budgets, MaxWait: maxWait}
}

// send takes a permit and says at once that it was sent.
func send(t *testing.T, l *limiter.Local, r limiter.Request) {
	t.Helper()
	take(t, l, r).Sent()
}

func take(t *testing.T, l *limiter.Local, r limiter.Request) *limiter.Permit {
	t.Helper()
	p, err := l.Take(t.Context(), r)
	if err != nil {
		t.Fatalf("Take(%v): %v, want a permit", r, err)
	}
	return p
}

// refused asks for a permit, which must be refused, and returns why.
func refused(t *testing.T, l *limiter.Local, r limiter.Request) *limiter.OverBudgetError {
	t.Helper()
	p, err := l.Take(t.Context(), r)
	var over *limiter.OverBudgetError
	if !errors.As(err, &over) {
		t.Fatalf("Take(%v) = %v, %v, want *OverBudgetError", r, p, err)
	}
	return over
}

func remaining(l *limiter.Local, b limiter.Budget) []int {
	var got []int
	for _, u := range l.Usage(b) {
		got = append(got, u.Remaining)
	}
	return got
}

func TestTakeUpToTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{Guard: time.Second})
		r := request(0, budget("acme", 3, time.Minute))
		for range 3 {
			send(t, l, r)
			time.Sleep(10 * time.Second)
		}

		over := refused(t, l, r)
		want := limiter.OverBudgetError{
			Key:        "acme",
			Window:     limiter.Window{Requests: 3, Per: time.Minute},
			RetryAfter: 31 * time.Second, // a minute and the guard after the first
		}
		if *over != want {
			t.Errorf("refusal %+v, want %+v", *over, want)
		}

		time.Sleep(over.RetryAfter - 1)
		refused(t, l, r)
		time.Sleep(time.Nanosecond)
		send(t, l, r)
		refused(t, l, r)
	})
}

func TestAllBudgetsOrNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		acme, egress := budget("acme", 10, time.Minute), budget("egress", 1, time.Hour)
		send(t, l, request(0, acme, egress))
		if got := refused(t, l, request(0, acme, egress)).Key; got != "egress" {
			t.Errorf("refused because of %q, want egress", got)
		}
		if got := remaining(l, acme)[0]; got != 9 {
			t.Errorf("acme has %d left, want 9: a refusal charges nothing", got)
		}
		send(t, l, request(0, acme))
		send(t, l, request(0)) // no budget, no limit
	})
}

func TestOpenPermitsCountAsOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		b := budget("acme", 1, time.Minute)
		p := take(t, l, request(0, b))
		time.Sleep(time.Hour) // a large upload
		if got, want := refused(t, l, request(0, b)).RetryAfter, time.Minute; got != want {
			t.Errorf("retry after %v, want %v: it might be sent this moment", got, want)
		}
		p.Sent()
		time.Sleep(time.Minute - 1)
		p.Sent() // again: changes nothing
		p.Release()
		refused(t, l, request(0, b))
		time.Sleep(time.Nanosecond)
		send(t, l, request(0, b))
	})
}

func TestReleaseChargesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		b := budget("acme", 1, time.Minute)
		p := take(t, l, request(0, b))
		p.Release()
		p.Release()
		p.Sent()
		if got := remaining(l, b)[0]; got != 1 {
			t.Errorf("%d left after Release, want 1", got)
		}
	})
}

func TestHeadroomIsLeftToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		refresh := budget("egress", 10, time.Minute)
		api := refresh
		api.Headroom = 3
		for range 7 {
			send(t, l, request(0, api))
		}
		refused(t, l, request(0, api))
		if got, want := remaining(l, api)[0], 0; got != want {
			t.Errorf("%d left to requests with headroom, want %d", got, want)
		}
		for range 3 {
			send(t, l, request(0, refresh))
		}
		refused(t, l, request(0, refresh))

		small := budget("small", 1, time.Minute)
		small.Headroom = 3
		send(t, l, request(0, small)) // one permit is usable, always
		refused(t, l, request(0, small))
	})
}

func TestUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{Guard: time.Second})
		minute := limiter.Window{Requests: 3, Per: time.Minute}
		hour := limiter.Window{Requests: 10, Per: time.Hour}
		b := limiter.Budget{Key: "acme", Windows: []limiter.Window{minute, hour}}
		check := func(when string, want ...limiter.Usage) {
			t.Helper()
			for i, got := range l.Usage(b) {
				if got != want[i] {
					t.Errorf("%s: %+v, want %+v", when, got, want[i])
				}
			}
		}

		check("unused", limiter.Usage{Window: minute, Remaining: 3}, limiter.Usage{Window: hour, Remaining: 10})
		p := take(t, l, request(0, b))
		check("one open",
			limiter.Usage{Window: minute, Remaining: 2, Reset: 61 * time.Second},
			limiter.Usage{Window: hour, Remaining: 9, Reset: 3601 * time.Second})
		p.Sent()
		time.Sleep(time.Minute)
		send(t, l, request(0, b))
		check("two sent",
			limiter.Usage{Window: minute, Remaining: 1, Reset: time.Second},
			limiter.Usage{Window: hour, Remaining: 8, Reset: 3541 * time.Second})
		time.Sleep(time.Second)
		check("one left the minute",
			limiter.Usage{Window: minute, Remaining: 2, Reset: 60 * time.Second},
			limiter.Usage{Window: hour, Remaining: 8, Reset: 3540 * time.Second})
		l.Pause("acme", 2*time.Minute)
		check("paused",
			limiter.Usage{Window: minute, Reset: 120 * time.Second},
			limiter.Usage{Window: hour, Reset: 120 * time.Second}) // eight may go then
		for range 7 {
			time.Sleep(2 * time.Minute)
			send(t, l, request(0, b))
		}
		time.Sleep(2 * time.Minute)
		send(t, l, request(0, b)) // the tenth of the hour, 16 minutes later
		l.Pause("acme", time.Minute)
		check("paused, the hour used up",
			limiter.Usage{Window: minute, Reset: time.Minute},
			limiter.Usage{Window: hour, Reset: 2580 * time.Second})
	})
}

// A reloaded configuration changes what is asked; what happened stays.
func TestWindowsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		for range 20 {
			send(t, l, request(0, budget("acme", 20, time.Minute)))
		}
		refused(t, l, request(0, budget("acme", 5, time.Minute)))
		refused(t, l, request(0, budget("acme", 20, time.Hour)))
		if got, want := remaining(l, budget("acme", 30, time.Minute))[0], 10; got != want {
			t.Errorf("%d left of 30, want %d", got, want)
		}
		time.Sleep(time.Minute)
		for range 5 {
			send(t, l, request(0, budget("acme", 5, time.Minute)))
		}
		refused(t, l, request(0, budget("acme", 5, time.Minute)))
		if got, want := remaining(l, budget("acme", 20, time.Minute))[0], 15; got != want {
			t.Errorf("%d left of 20, want %d", got, want)
		}
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []limiter.Event
		l := newLocal(t, limiter.Config{Observe: func(e limiter.Event) { events = append(events, e) }})
		b := budget("acme", 10, time.Minute)
		l.Pause("acme", 30*time.Second)
		l.Pause("acme", 10*time.Second) // shortens nothing
		l.Pause("acme", -time.Second)
		if got, want := *refused(t, l, request(29*time.Second, b)), (limiter.OverBudgetError{Key: "acme", RetryAfter: 30 * time.Second}); got != want {
			t.Errorf("refusal %+v, want %+v", got, want)
		}
		if got, want := l.PausedUntil("acme"), time.Now().Add(30*time.Second); !got.Equal(want) {
			t.Errorf("paused until %v, want %v", got, want)
		}
		if got := l.PausedUntil("other"); !got.IsZero() {
			t.Errorf("other paused until %v, want never", got)
		}

		start := time.Now()
		send(t, l, request(30*time.Second, b))
		if got, want := time.Since(start), 30*time.Second; got != want {
			t.Errorf("waited %v, want %v", got, want)
		}
		if got := l.PausedUntil("acme"); !got.IsZero() {
			t.Errorf("paused until %v after the pause", got)
		}
		want := limiter.Event{Kind: limiter.BudgetPaused, Key: "acme", For: 30 * time.Second}
		if len(events) != 1 || events[0] != want {
			t.Errorf("events %+v, want %+v", events, want)
		}
		l.Pause("acme", 1<<63-1) // must not overflow
		refused(t, l, request(time.Hour, b))
	})
}

func TestTakeWhenTheContextHasEnded(t *testing.T) {
	l := newLocal(t, limiter.Config{})
	cause := errors.New("client left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := l.Take(ctx, request(time.Minute, budget("acme", 1, time.Minute))); err != cause {
		t.Errorf("Take: %v, want %v", err, cause)
	}
}

func TestNegativeGuard(t *testing.T) {
	if _, err := limiter.NewLocal(limiter.Config{Guard: -1}); err == nil {
		t.Error("NewLocal accepts a negative guard")
	}
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		b := budget("acme", 1, time.Minute)
		open := take(t, l, request(0, b))
		got := make(chan error, 10)
		for range cap(got) {
			go func() {
				_, err := l.Take(t.Context(), request(time.Hour, b))
				got <- err
			}()
		}
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		for range cap(got) {
			if err := <-got; err != limiter.ErrClosed {
				t.Errorf("a waiter got %v, want ErrClosed", err)
			}
		}
		if _, err := l.Take(t.Context(), request(0, b)); err != limiter.ErrClosed {
			t.Errorf("a later one got %v, want ErrClosed", err)
		}
		open.Sent()
		if got := remaining(l, b)[0]; got != 0 {
			t.Errorf("%d left, want 0", got)
		}
	})
}
