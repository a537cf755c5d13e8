package limiter_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/limiter"
)

// crowd is several clients, inside a synctest bubble, and what they got.
type crowd struct {
	t   *testing.T
	l   *limiter.Local
	ctx context.Context
	wg  sync.WaitGroup

	mu     sync.Mutex
	waits  map[string][]time.Duration
	served map[string][]time.Time
	turns  []string // who was served, in order
}

// gather lets a crowd be there for so long.
func gather(t *testing.T, l *limiter.Local, d time.Duration) *crowd {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return &crowd{t: t, l: l, ctx: ctx, waits: make(map[string][]time.Duration), served: make(map[string][]time.Time)}
}

// once takes and sends one permit.
func (c *crowd) once(r limiter.Request) {
	asked := time.Now()
	p, err := c.l.Take(c.ctx, r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		p.Sent()
		c.turns = append(c.turns, r.Client)
		c.served[r.Client] = append(c.served[r.Client], time.Now())
	} else if c.ctx.Err() != nil {
		return
	}
	c.waits[r.Client] = append(c.waits[r.Client], time.Since(asked))
}

// flood lets n connections ask all the time.
func (c *crowd) flood(n int, r limiter.Request) {
	for range n {
		c.wg.Go(func() {
			for c.ctx.Err() == nil {
				c.once(r)
			}
		})
	}
	synctest.Wait()
}

// every asks once in each interval, unless the last one still waits.
func (c *crowd) every(interval time.Duration, r limiter.Request) {
	c.wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for c.ctx.Err() == nil {
			c.once(r)
			select {
			case <-tick.C:
			case <-c.ctx.Done():
			}
		}
	})
}

// p95 is what a client waits at most, in 19 of 20 cases.
func (c *crowd) p95(client string) time.Duration {
	waits := slices.Clone(c.waits[client])
	slices.Sort(waits)
	return waits[len(waits)*95/100]
}

func named(client string, weight int, budgets ...limiter.Budget) limiter.Request {
	r := request(time.Hour, budgets...)
	r.Client, r.Weight = client, weight
	return r
}

var freeAgent = limiter.Budget{Key: "acme", Windows: []limiter.Window{
	{Requests: 120, Per: time.Minute}, {Requests: 3600, Per: time.Hour},
}}

// The pace of the minute is one in half a second; two are active.
func TestFloodAndPolite(t *testing.T) {
	const bound = 2 * time.Minute / 120
	minute := budget("acme", 120, time.Minute)
	tests := map[string]struct {
		weight int
		polite time.Duration // when it comes
		flood  time.Duration
		warmUp int // how many of the polite one's requests are not looked at
	}{
		"polite first":            {1, 0, 10 * time.Second, 0},
		"both at once":            {1, 0, 0, 0},
		"flood first":             {1, 30 * time.Second, 0, 0},
		"flood has used it up":    {0, 30 * time.Second, 0, 1}, // it was not known that another would come
		"flood is past its burst": {1, 10 * time.Minute, 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLocal(t, limiter.Config{Guard: time.Second})
				const span = 20 * time.Minute
				c := gather(t, l, span)
				start := time.Now()
				c.wg.Go(func() {
					time.Sleep(test.polite)
					c.every(time.Second, named("polite", test.weight, minute))
				})
				time.Sleep(test.flood)
				c.flood(200, named("flood", test.weight, minute))
				c.wg.Wait()
				c.waits["polite"] = c.waits["polite"][test.warmUp:]
				if got := c.p95("polite"); got >= bound {
					t.Errorf("the polite one waits %v, want less than %v", got, bound)
				}
				if n, want := len(c.served["polite"]), int((span-test.polite)/time.Second)*9/10; n < want-60*test.warmUp {
					t.Errorf("the polite one was served %d times, want %d", n, want)
				}
				used, may := float64(len(c.turns)), 120*float64(time.Since(start))/float64(61*time.Second)
				if used < 0.97*may {
					t.Errorf("used %.1f %% of the budget, want 97 %%", 100*used/may)
				}
			})
		})
	}
}

// In the hour, too, nobody is starved: when it becomes scarce both get what there is by turns.
func TestFairInTheHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{Guard: time.Second})
		c := gather(t, l, 4*time.Hour)
		c.flood(50, named("flood", 1, freeAgent))
		c.every(10*time.Second, named("polite", 1, freeAgent))
		c.wg.Wait()
		if got, want := c.p95("polite"), 2*time.Second; got > want {
			t.Errorf("the polite one waits %v, want at most %v", got, want)
		}
		if got, want := slices.Max(c.waits["polite"]), 10*time.Second; got > want {
			t.Errorf("the polite one waits up to %v, want at most %v", got, want)
		}
		if got, want := len(c.turns), 4*3600*97/100; got < want {
			t.Errorf("%d permits in 4 h, want %d", got, want)
		}
	})
}

func TestWeights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		c := gather(t, l, 30*time.Minute)
		b := budget("acme", 120, time.Minute)
		c.flood(100, named("light", 1, b))
		c.flood(100, named("heavy", 4, b))
		c.wg.Wait()
		later := c.turns[len(c.turns)/2:]
		heavy := 0
		for _, client := range later {
			if client == "heavy" {
				heavy++
			}
		}
		if part := float64(heavy) / float64(len(later)); part < 0.78 || part > 0.82 {
			t.Errorf("weight 4 of 5 got %.1f %% of the permits, want 80 %%", 100*part)
		}
	})
}

// One whose own share is used up keeps nobody of its queue waiting, however many it lets wait; nor does that earn it anything.
func TestShareIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		b, share := budget("acme", 100, time.Minute), budget("share/acme/flood", 40, time.Minute)
		for range 40 {
			send(t, l, named("flood", 1, b, share))
		}
		w := waiters{t: t, l: l}
		for range 20 {
			w.add(t.Context(), "flood", named("flood", 1, b, share))
		}
		for range 25 { // none waits: a half of what is fair goes at once
			r := named("other", 1, b)
			r.MaxWait = 0
			send(t, l, r)
		}
		if got := l.Waiting("acme"); got != 20 {
			t.Errorf("%d wait, want 20", got)
		}
		w.wg.Wait()
		if u := l.UsedBy(share); u[0]["flood"] != 20 {
			t.Errorf("flood has used %v of its share, want 20", u)
		}
	})
}

// In which order four are served depends on what their clients had before.
func TestTurns(t *testing.T) {
	one := limiter.Budget{Key: "acme", Windows: []limiter.Window{{Requests: 1, Per: time.Second}, {Requests: 1000, Per: time.Hour}}}
	tests := map[string]struct {
		before []string // served before, one in each second
		come   []string
		want   []string
	}{
		"in turn":                           {nil, []string{"a", "a", "a", "b", "c"}, []string{"a", "b", "c", "a", "a"}},
		"who was idle has earned nothing":   {[]string{"a", "a", "a"}, []string{"a", "a", "b", "b", "b"}, []string{"b", "a", "b", "a", "b"}},
		"who has just had its turn is next": {[]string{"a"}, []string{"a", "b"}, []string{"b", "a"}},
		"who comes anew is first":           {[]string{"b", "b", "a"}, []string{"a", "b", "c"}, []string{"c", "a", "b"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLocal(t, limiter.Config{})
				for _, client := range test.before {
					send(t, l, named(client, 0, one))
					time.Sleep(time.Second)
				}
				p := take(t, l, named("z", 0, one)) // nobody else yet
				c := gather(t, l, time.Hour)
				for _, client := range test.come {
					c.wg.Go(func() { c.once(named(client, 0, one)) })
					synctest.Wait()
				}
				p.Sent()
				c.wg.Wait()
				if !slices.Equal(c.turns, test.want) {
					t.Errorf("turns %q, want %q", c.turns, test.want)
				}
			})
		})
	}
}

// Leaving the queue and coming back gains nothing.
func TestLeaveAndReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		b := budget("acme", 1, time.Second)
		c := gather(t, l, 10*time.Minute)
		c.flood(3, named("stays", 1, b))
		for range 3 {
			c.wg.Go(func() {
				for c.ctx.Err() == nil {
					r := named("returns", 1, b)
					r.MaxWait = 1100 * time.Millisecond
					c.once(r)
					time.Sleep(10 * time.Millisecond) // if it was refused at once
				}
			})
		}
		c.wg.Wait()
		stays, returns := len(c.served["stays"]), len(c.served["returns"])
		if returns > stays+stays/20 || stays+returns < 580 {
			t.Errorf("who leaves and returns got %d permits, who stays %d", returns, stays)
		}
	})
}

// A polite client is not told of the flood before it, and the flood is told the truth.
func TestExpectedWaitIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		b := budget("acme", 10, 10*time.Second)
		c := gather(t, l, time.Hour)
		for range 10 {
			send(t, l, named("flood", 0, b))
			time.Sleep(time.Second)
		}
		for range 50 {
			c.wg.Go(func() { c.once(named("flood", 0, b)) })
		}
		synctest.Wait()
		r := named("polite", 0, b)
		r.MaxWait = 2 * time.Second
		start := time.Now()
		send(t, l, r)
		if waited := time.Since(start); waited > 2*time.Second {
			t.Errorf("the polite one waited %v", waited)
		}
		r = named("flood", 0, b)
		r.MaxWait = time.Second
		if got := refused(t, l, r).RetryAfter; got < 48*time.Second || got > 52*time.Second {
			t.Errorf("the flood is told %v, want about 50s", got)
		}
		c.wg.Wait()
	})
}

func TestUsedBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		check := func(when string, want ...map[string]int) {
			t.Helper()
			if got := l.UsedBy(freeAgent); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		}
		check("unused", map[string]int{}, map[string]int{})
		send(t, l, named("a", 1, freeAgent))
		time.Sleep(time.Minute)
		for range 3 {
			send(t, l, named("b", 1, freeAgent))
		}
		p := take(t, l, named("a", 1, freeAgent))
		check("one open", map[string]int{"a": 1, "b": 3}, map[string]int{"a": 2, "b": 3})
		p.Release()
		check("released", map[string]int{"b": 3}, map[string]int{"a": 1, "b": 3})
	})
}
