package limiter_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/limiter"

	"pgregory.net/rapid"
)

// outcome is what became of one request that waited.
type outcome struct {
	name   string
	err    error
	waited time.Duration
}

// waiters lets requests wait, inside a synctest bubble, and collects what becomes of them. Permits are sent at once.
type waiters struct {
	t  *testing.T
	l  *limiter.Local
	wg sync.WaitGroup

	mu       sync.Mutex
	outcomes []outcome
}

// add lets one more request arrive.
func (w *waiters) add(ctx context.Context, name string, r limiter.Request) {
	w.wg.Go(func() {
		start := time.Now()
		p, err := w.l.Take(ctx, r)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.outcomes = append(w.outcomes, outcome{name, err, time.Since(start)})
		if err == nil {
			p.Sent()
		}
	})
	synctest.Wait()
}

// expect waits for all, or for what is over by now, and compares.
func (w *waiters) expect(want ...outcome) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.EqualFunc(w.outcomes, want, func(got, want outcome) bool {
		return got.name == want.name && got.waited == want.waited && fmt.Sprint(got.err) == fmt.Sprint(want.err)
	}) {
		w.t.Errorf("outcomes\n%v, want\n%v", w.outcomes, want)
	}
	w.outcomes = nil
}

func TestFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{Guard: time.Second})
		r := request(time.Hour, budget("acme", 2, 9*time.Second))
		send(t, l, r)
		time.Sleep(4 * time.Second)
		send(t, l, r)

		w := waiters{t: t, l: l}
		for i := range 5 {
			w.add(t.Context(), fmt.Sprint(i), r)
		}
		if got := l.Waiting("acme"); got != 5 {
			t.Errorf("%d wait, want 5", got)
		}
		w.wg.Wait()
		w.expect(
			outcome{"0", nil, 6 * time.Second},
			outcome{"1", nil, 10 * time.Second},
			outcome{"2", nil, 16 * time.Second},
			outcome{"3", nil, 20 * time.Second},
			outcome{"4", nil, 26 * time.Second},
		)
	})
}

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
	time.Sleep(1)
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
		w.expect(outcome{"first", &limiter.OverBudgetError{Key: "acme", RetryAfter: 19 * time.Second}, 12 * time.Second})
		w.wg.Wait()
		w.expect(outcome{"second", nil, 21 * time.Second})
	})
}

func TestLeavingTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		b := budget("acme", 1, 10*time.Second)
		send(t, l, request(0, b))
		left := errors.New("client left")
		ctx, leave := context.WithCancelCause(t.Context())
		w := waiters{t: t, l: l}
		w.add(ctx, "leaver", request(time.Hour, b))
		w.add(t.Context(), "stayer", request(time.Hour, b))
		if got, want := refused(t, l, request(20*time.Second, b)).RetryAfter, 30*time.Second; got != want {
			t.Errorf("retry after %v, want %v", got, want)
		}
		time.Sleep(time.Second)
		leave(left)
		w.expect(outcome{"leaver", left, time.Second})
		w.add(t.Context(), "newcomer", request(20*time.Second, b)) // moves up
		w.wg.Wait()
		w.expect(outcome{"stayer", nil, 10 * time.Second}, outcome{"newcomer", nil, 19 * time.Second})
	})
}

// Who leaves in the very moment in which it is served has a permit or has not, but none is lost.
func TestLeavingWhenServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		b := budget("acme", 1, 10*time.Second)
		for range 200 {
			send(t, l, request(10*time.Second, b))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if p, err := l.Take(ctx, request(time.Minute, b)); err == nil {
				p.Release()
			} else if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			if got := remaining(l, b)[0]; got != 1 {
				t.Fatalf("%d left, want 1", got)
			}
			cancel()
		}
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
		w.expect(outcome{"impatient", &limiter.OverBudgetError{Key: "acme", RetryAfter: 36 * time.Second}, 0})
		w.wg.Wait()
		w.expect(outcome{"other", nil, 10 * time.Second},
			outcome{"patient", nil, 16 * time.Second}, outcome{"last", nil, 26 * time.Second})
	})
}

// Two accounts share the address. One floods, the other's request waits for those who came before, no more.
func TestSharedBudgetStarvesNoQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		egress := budget("egress", 1, time.Second)
		flood := request(time.Hour, budget("flood", 1000, time.Second), egress)
		modest := request(time.Hour, budget("modest", 1000, time.Second), egress)
		send(t, l, flood)
		w := waiters{t: t, l: l}
		for range 5 {
			w.add(t.Context(), "flood", flood)
		}
		w.add(t.Context(), "modest", modest)
		for range 50 {
			w.add(t.Context(), "flood", flood)
		}
		time.Sleep(6 * time.Second)
		// One who would be alone in its queue comes when there is room: that is for those before.
		refused(t, l, request(0, budget("new", 1, time.Second), egress))
		served := outcome{"flood", nil, 0}
		want := make([]outcome, 6)
		for i := range want {
			want[i] = served
			want[i].waited = time.Duration(i+1) * time.Second
		}
		want[5].name = "modest"
		w.expect(want...)
		w.wg.Wait()
	})
}

// A request that cannot have a permit, for want of room in its own budget, keeps no other queue waiting.
func TestSharedBudgetIsUsedByWhoCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		egress := budget("egress", 100, time.Second)
		slow := request(time.Minute, budget("slow", 1, 10*time.Second), egress)
		send(t, l, slow)
		w := waiters{t: t, l: l}
		w.add(t.Context(), "slow", slow)
		send(t, l, request(0, budget("quick", 1, time.Second), egress))
		w.add(t.Context(), "quick", request(time.Second, budget("quick", 1, time.Second), egress))
		w.wg.Wait()
		w.expect(outcome{"quick", nil, time.Second}, outcome{"slow", nil, 10 * time.Second})
	})
}

// Requests with headroom wait for the address; a refresh does not wait behind them.
func TestRefreshPassesWhoLeaveHeadroom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		egress := budget("egress", 10, time.Minute)
		api := request(time.Hour, budget("acme", 100, time.Minute), egress)
		api.Budgets[1].Headroom = 2
		w := waiters{t: t, l: l}
		for range 20 {
			w.add(t.Context(), "api", api)
		}
		if got := l.Waiting("acme"); got != 12 {
			t.Errorf("%d wait, want 12", got)
		}
		send(t, l, request(0, budget("refresh", 15, time.Minute), egress))
		w.wg.Wait()
	})
}

// Whoever wants a permit all the time gets nearly all that the guard leaves.
func TestUtilisation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := 100 * time.Millisecond
		l := newLocal(t, limiter.Config{Guard: guard})
		b := limiter.Budget{Key: "acme", Windows: []limiter.Window{
			{Requests: 20, Per: 2 * time.Second}, {Requests: 60, Per: 10 * time.Second},
		}}
		const span = 10 * time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), span)
		defer cancel()
		var mu sync.Mutex
		var history []*taken
		var clients sync.WaitGroup
		for range 100 {
			clients.Go(func() {
				for {
					p, err := l.Take(ctx, request(time.Hour, b))
					if err != nil {
						return
					}
					got := &taken{budgets: []limiter.Budget{b}, at: time.Now()}
					time.Sleep(5 * time.Millisecond) // writing the request
					got.done = time.Now()
					p.Sent()
					mu.Lock()
					history = append(history, got)
					mu.Unlock()
				}
			})
		}
		clients.Wait()
		if err := check(history, []limiter.Budget{b}, guard); err != nil {
			t.Error(err)
		}
		windows := float64(span) / float64(10*time.Second+guard)
		if got := float64(len(history)) / (60 * windows); got < 0.97 {
			t.Errorf("used %.1f %% of the budget, want 97 %%", 100*got)
		}
	})
}

func TestTenThousandWaiters(t *testing.T) {
	const n = 10_000
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{Guard: time.Second})
		egress := budget("egress", 1000, time.Minute)
		var mu sync.Mutex
		var served []int
		var wg sync.WaitGroup
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		start := time.Now()
		for i := range n {
			r := request(time.Hour, budget(fmt.Sprint("account", i%50), 120, time.Minute), egress)
			wg.Go(func() {
				p, err := l.Take(ctx, r)
				if err != nil {
					return
				}
				p.Sent()
				mu.Lock()
				defer mu.Unlock()
				served = append(served, i)
			})
		}
		wg.Wait()
		if got, want := time.Since(start), 9*61*time.Second; got != want || len(served) != n {
			t.Errorf("%d served within %v, want %d within %v", len(served), got, n, want)
		}

		// All leave at once, and newcomers are told so.
		for i := range n {
			r := request(time.Hour, budget(fmt.Sprint("account", i%50), 120, time.Minute), egress)
			wg.Go(func() { l.Take(ctx, r) })
		}
		synctest.Wait()
		leave()
		wg.Wait()
		if got := refused(t, l, request(0, egress)).RetryAfter; got > 61*time.Second {
			t.Errorf("retry after %v when nobody waits, want at most 61s", got)
		}
	})
}
