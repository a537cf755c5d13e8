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

// taken is one permit in the history that the checkers below go over by brute force.
type taken struct {
	request  int
	budgets  []limiter.Budget
	at       time.Time
	done     time.Time // zero: still open
	released bool
}

func (p *taken) names(key string) bool {
	return slices.ContainsFunc(p.budgets, func(b limiter.Budget) bool { return b.Key == key })
}

// inUse counts the permits of a window that are open at now or were sent less than length ago.
func inUse(history []*taken, key string, length time.Duration, now time.Time) int {
	n := 0
	for _, p := range history {
		if p.names(key) && !p.released && (p.done.IsZero() || now.Sub(p.done) < length) {
			n++
		}
	}
	return n
}

// hasRoom decides as the documentation says, by counting.
func hasRoom(history []*taken, b limiter.Budget, guard time.Duration, now time.Time) bool {
	for _, w := range b.Windows {
		if inUse(history, b.Key, w.Per+guard, now) >= max(1, w.Requests-b.Headroom) {
			return false
		}
	}
	return true
}

// check looks for a window that could have seen too much: each permit that was sent
// was counted by the upstream at some time from taken to sent, whichever is worst.
func check(history []*taken, budgets []limiter.Budget, guard time.Duration) error {
	for _, b := range budgets {
		var at, done []time.Time
		for _, p := range history {
			if p.names(b.Key) && !p.released {
				at, done = append(at, p.at), append(done, p.done)
			}
		}
		slices.SortFunc(at, time.Time.Compare)
		slices.SortFunc(done, time.Time.Compare)
		for _, w := range b.Windows {
			for over, begin := range done { // over: how many were over before the window begins
				taken, _ := slices.BinarySearchFunc(at, begin.Add(w.Per+guard), time.Time.Compare)
				if n := taken - over; n > w.Requests {
					return fmt.Errorf("%s: up to %d in a window of %d per %v", b.Key, n, w.Requests, w.Per)
				}
			}
		}
	}
	return nil
}

func drawWindows(t *rapid.T, label string) []limiter.Window {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) limiter.Window {
		return limiter.Window{
			Requests: rapid.IntRange(1, 12).Draw(t, "requests"),
			Per:      time.Duration(rapid.IntRange(1, 200).Draw(t, "per")) * time.Millisecond,
		}
	}), 1, 3).Draw(t, label)
}

func drawMillis(t *rapid.T, most int, label string) time.Duration {
	return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Millisecond
}

// plannedRequest is one request of a scenario: when it comes and what becomes of it.
type plannedRequest struct {
	after    time.Duration // the one before
	account  int
	headroom int
	maxWait  time.Duration
	patience time.Duration // its context ends then; 0: never
	latency  time.Duration // from permit to Sent or Release
	release  bool
	pause    time.Duration // instead of a request: the account is paused
	client   string        // "": none is named
	weight   int
}

type scenario struct {
	guard    time.Duration
	egress   limiter.Budget
	accounts []limiter.Budget
	requests []plannedRequest
}

func drawScenario(t *rapid.T) scenario {
	s := scenario{
		guard:  drawMillis(t, 20, "guard"),
		egress: limiter.Budget{Key: "egress", Windows: drawWindows(t, "egress")},
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "accounts") {
		s.accounts = append(s.accounts, limiter.Budget{Key: fmt.Sprint("account", i), Windows: drawWindows(t, "account")})
	}
	s.requests = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) plannedRequest {
		r := plannedRequest{
			account:  rapid.IntRange(0, len(s.accounts)-1).Draw(t, "account"),
			headroom: rapid.IntRange(0, 2).Draw(t, "headroom"),
			maxWait:  drawMillis(t, 600, "max wait"),
			latency:  drawMillis(t, 60, "latency"),
			release:  rapid.IntRange(0, 5).Draw(t, "release") == 5,
		}
		if rapid.Bool().Draw(t, "later") {
			r.after = drawMillis(t, 40, "after")
		}
		if rapid.IntRange(0, 3).Draw(t, "impatient") == 3 {
			r.patience = 1 + drawMillis(t, 300, "patience")
		}
		if rapid.IntRange(0, 30).Draw(t, "pause") == 30 {
			r.pause = drawMillis(t, 300, "for")
		}
		return r
	}), 1, 150).Draw(t, "requests")
	return s
}

// runner lets a scenario happen to a limiter and remembers its history.
type runner struct {
	scenario
	l *limiter.Local

	mu       sync.Mutex
	history  []*taken
	problems []string
}

func (r *runner) problem(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

func (r *runner) run(t *testing.T) {
	var requests sync.WaitGroup
	for i, planned := range r.requests {
		time.Sleep(planned.after)
		synctest.Wait() // whatever else happens at this instant has happened
		if planned.pause > 0 {
			r.l.Pause(r.accounts[planned.account].Key, planned.pause)
			continue
		}
		requests.Go(func() { r.request(t.Context(), i, planned) })
		synctest.Wait() // it is served, refused or in the queue before the next one comes
	}
	requests.Wait()
	r.atRest()
}

func (r *runner) request(ctx context.Context, i int, planned plannedRequest) {
	egress := r.egress
	egress.Headroom = planned.headroom
	budgets := []limiter.Budget{r.accounts[planned.account], egress}
	if planned.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, planned.patience)
		defer cancel()
	}
	start := time.Now()
	permit, err := r.l.Take(ctx, limiter.Request{
		Budgets: budgets, MaxWait: planned.maxWait, Client: planned.client, Weight: planned.weight,
	})
	waited := time.Since(start)
	if waited > planned.maxWait {
		r.problem("request %d waited %v of %v", i, waited, planned.maxWait)
	}
	if err != nil {
		r.refused(i, planned, budgets, waited, err)
		return
	}
	got := &taken{request: i, budgets: budgets, at: time.Now()}
	r.mu.Lock()
	r.history = append(r.history, got)
	r.mu.Unlock()

	time.Sleep(planned.latency)
	r.mu.Lock()
	defer r.mu.Unlock()
	got.done, got.released = time.Now(), planned.release
	if planned.release {
		permit.Release()
	} else {
		permit.Sent()
	}
}

func (r *runner) refused(i int, planned plannedRequest, budgets []limiter.Budget, waited time.Duration, err error) {
	if errors.Is(err, context.DeadlineExceeded) {
		if waited != planned.patience {
			r.problem("request %d was cancelled after %v, want %v", i, waited, planned.patience)
		}
		return
	}
	var over *limiter.OverBudgetError
	if !errors.As(err, &over) {
		r.problem("request %d: %v", i, err)
		return
	}
	if over.RetryAfter <= 0 {
		r.problem("request %d: retry after %v", i, over.RetryAfter)
	}
	if waited > 0 || planned.client != "" {
		return // others may have made room at the same instant, or have their turns
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	room := true
	for _, b := range budgets {
		room = room && hasRoom(r.history, b, r.guard, time.Now())
	}
	key := budgets[0].Key
	if room && r.l.PausedUntil(key).IsZero() && r.l.Waiting(key) == 0 {
		r.problem("request %d was refused (%v) although there is room", i, err)
	}
}

// atRest checks that nothing is left behind when all is over.
func (r *runner) atRest() {
	time.Sleep(time.Second)
	for _, b := range append(r.accounts, r.egress) {
		for _, u := range r.l.Usage(b) {
			if want := (limiter.Usage{Window: u.Window, Remaining: u.Window.Requests}); u != want {
				r.problem("at rest: %s has %+v, want %+v", b.Key, u, want)
			}
		}
		if n := r.l.Waiting(b.Key); n != 0 {
			r.problem("at rest: %d wait for %s", n, b.Key)
		}
	}
}

// Whatever comes, no window sees too much, nobody is refused needlessly or waits too long,
// and each account is served in order of arrival.
func TestExactness(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := &runner{scenario: drawScenario(rt)}
		synctest.Test(t, func(t *testing.T) {
			r.l = newLocal(t, limiter.Config{Guard: r.guard})
			r.run(t)
		})
		for _, p := range r.problems {
			rt.Error(p)
		}
		if err := check(r.history, append(r.accounts, r.egress), r.guard); err != nil {
			rt.Error(err)
		}
		for _, p := range r.history {
			for _, q := range r.history {
				if p.budgets[0].Key == q.budgets[0].Key && p.request < q.request && p.at.After(q.at) {
					rt.Errorf("request %d was served before %d", q.request, p.request)
				}
			}
		}
	})
}

// For one who asks for permits one after the other, every answer is what counting by hand gives:
// permit or refusal, when to retry, and usage.
func TestSameAsCounting(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		guard := drawMillis(rt, 20, "guard")
		budgets := []limiter.Budget{
			{Key: "a", Windows: drawWindows(rt, "a")},
			{Key: "b", Windows: drawWindows(rt, "b"), Headroom: rapid.IntRange(0, 3).Draw(rt, "headroom")},
		}
		steps := rapid.SliceOfN(rapid.IntRange(0, 99), 1, 200).Draw(rt, "steps")
		var problem error
		synctest.Test(t, func(t *testing.T) {
			problem = compare(t, newLocal(t, limiter.Config{Guard: guard}), guard, budgets, steps)
		})
		if problem != nil {
			rt.Error(problem)
		}
	})
}

func compare(t *testing.T, l *limiter.Local, guard time.Duration, budgets []limiter.Budget, steps []int) error {
	var history []*taken
	type openPermit struct {
		*limiter.Permit
		*taken
	}
	var open []openPermit
	settle := func(released bool) {
		if len(open) == 0 {
			return
		}
		p := open[0]
		open = open[1:]
		if p.taken.done, p.taken.released = time.Now(), released; released {
			p.Permit.Release()
		} else {
			p.Permit.Sent()
		}
	}
	for i, step := range steps {
		switch {
		case step < 10:
			settle(true)
		case step < 40:
			settle(false)
		case step < 60:
			time.Sleep(time.Duration(step-39) * time.Millisecond)
		default:
			asked := budgets[:1+step%2]
			want := expectedRoom(history, asked, guard)
			p, err := l.Take(t.Context(), limiter.Request{Budgets: asked})
			if err == nil {
				got := &taken{budgets: asked, at: time.Now()}
				history = append(history, got)
				open = append(open, openPermit{p, got})
			}
			var got time.Duration
			if over, ok := errors.AsType[*limiter.OverBudgetError](err); ok {
				got = over.RetryAfter
			}
			if got != want {
				return fmt.Errorf("step %d: retry after %v, want %v (0: a permit)", i, got, want)
			}
		}
		for _, b := range budgets {
			for _, u := range l.Usage(b) {
				want := max(0, max(1, u.Window.Requests-b.Headroom)-inUse(history, b.Key, u.Window.Per+guard, time.Now()))
				if u.Remaining != want {
					return fmt.Errorf("step %d: %d of %v remain in %s, want %d", i, u.Remaining, u.Window, b.Key, want)
				}
			}
		}
	}
	return nil
}

// expectedRoom returns in how long there is room, to the millisecond, if what is open is sent now.
func expectedRoom(history []*taken, budgets []limiter.Budget, guard time.Duration) time.Duration {
	now := time.Now()
	settled := make([]*taken, len(history))
	for i, p := range history {
		s := *p
		if s.done.IsZero() {
			s.done = now
		}
		settled[i] = &s
	}
	for wait := time.Duration(0); ; wait += time.Millisecond {
		room := true
		for _, b := range budgets {
			room = room && hasRoom(settled, b, guard, now.Add(wait))
		}
		if room {
			return wait
		}
	}
}
