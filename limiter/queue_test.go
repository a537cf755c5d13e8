package limiter_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/limiter"
)

// outcome is what became of one request that waited, like "name after 2s", and its error.
type outcome struct {
	text string
	at   time.Time
}

// waiters lets requests wait, inside a synctest bubble, and collects what becomes
// of them. Permits are sent at once.
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
		text := fmt.Sprintf("%s after %v", name, time.Since(start))
		if err == nil {
			p.Sent()
		} else {
			text += ": " + err.Error()
		}
		w.outcomes = append(w.outcomes, outcome{text, time.Now()})
	})
	synctest.Wait()
}

// expect compares the outcomes so far, in order of time, and by text at the same time.
func (w *waiters) expect(want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortFunc(w.outcomes, func(a, b outcome) int {
		return cmp.Or(a.at.Compare(b.at), strings.Compare(a.text, b.text))
	})
	var got []string
	for _, o := range w.outcomes {
		got = append(got, o.text)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("outcomes %q, want %q", got, want)
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
			"0 after 6s",
			"1 after 10s",
			"2 after 16s",
			"3 after 20s",
			"4 after 26s",
		)
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
		w.expect("leaver after 1s: client left")
		w.add(t.Context(), "newcomer", request(20*time.Second, b)) // moves up
		w.wg.Wait()
		w.expect("stayer after 10s", "newcomer after 19s")
	})
}

// In one queue nobody passes, even who would need less.
func TestBehindAnotherInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		acme, egress := budget("acme", 10, time.Minute), budget("egress", 1, 30*time.Second)
		send(t, l, request(0, egress))
		ctx, leave := context.WithCancel(t.Context())
		w := waiters{t: t, l: l}
		w.add(ctx, "both", request(time.Minute, acme, egress))
		w.add(t.Context(), "acme", request(time.Minute, acme))
		want := limiter.OverBudgetError{Key: "egress", Window: egress.Windows[0], RetryAfter: 30 * time.Second}
		if got := *refused(t, l, request(0, acme)); got != want {
			t.Errorf("refusal %+v, want %+v", got, want)
		}
		time.Sleep(time.Second)
		leave()
		w.wg.Wait()
		w.expect("acme after 1s", "both after 1s: context canceled")
	})
}

// lateContext ends as soon as it is waited for. It calls asked when it is asked why.
type lateContext struct {
	context.Context
	asked func()
	done  chan struct{}
}

func (c *lateContext) Done() <-chan struct{} {
	close(c.done)
	return c.done
}

func (c *lateContext) Err() error {
	select {
	case <-c.done:
		c.asked()
		return context.Canceled
	default:
		return nil
	}
}

// Who is served in the very moment in which it leaves gives the permit back.
func TestServedWhenLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		b := budget("acme", 1, 10*time.Second)
		p := take(t, l, request(0, b))
		ctx := &lateContext{context.Background(), p.Release, make(chan struct{})}
		if p, err := l.Take(ctx, request(time.Minute, b)); err != context.Canceled {
			t.Errorf("Take = %v, %v, want %v", p, err, context.Canceled)
		}
		if got := remaining(l, b)[0]; got != 1 {
			t.Errorf("%d left, want 1", got)
		}
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
		for i := 1; i <= 6; i++ {
			time.Sleep(time.Second)
			// One who would be first in its queue comes when there is room: that is for those before.
			over := refused(t, l, request(0, budget("new", 1, time.Second), egress))
			if got, want := over.RetryAfter, time.Duration(57-i)*time.Second; got != want {
				t.Errorf("retry after %v, want %v", got, want)
			}
		}
		w.expect("flood after 1s", "flood after 2s", "flood after 3s", "flood after 4s", "flood after 5s", "modest after 6s")
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
		w.expect("quick after 1s", "slow after 10s")
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
