package limiter_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/limiter"
)

// Many at once, in real time and with everything that can happen to a permit.
func TestConcurrency(t *testing.T) {
	const guard = 10 * time.Millisecond
	l := newLocal(t, limiter.Config{Guard: guard, Journal: filepath.Join(t.TempDir(), "journal")})
	egress := budget("egress", 60, 40*time.Millisecond)
	budgets := []limiter.Budget{egress}
	for i := range 4 {
		budgets = append(budgets, limiter.Budget{Key: fmt.Sprint("account", i), Windows: []limiter.Window{
			{Requests: 20, Per: 30 * time.Millisecond}, {Requests: 100, Per: 300 * time.Millisecond},
		}})
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	var mu sync.Mutex
	var history []*taken
	var clients sync.WaitGroup
	for i := range 64 {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		clients.Go(func() {
			for ctx.Err() == nil {
				r := request(time.Duration(random.IntN(200))*time.Millisecond, budgets[1+random.IntN(4)], egress)
				r.Budgets[1].Headroom = random.IntN(5)
				waiting, leave := context.WithTimeout(ctx, time.Duration(1+random.IntN(100))*time.Millisecond)
				p, err := l.Take(waiting, r)
				leave()
				if err != nil {
					continue
				}
				got := &taken{budgets: r.Budgets, at: time.Now()}
				time.Sleep(time.Duration(random.IntN(5)) * time.Millisecond)
				got.done = time.Now() // the true time is somewhere between
				switch random.IntN(10) {
				case 0:
					got.released = true
					p.Release()
				case 1:
					l.Pause(r.Budgets[0].Key, 5*time.Millisecond)
					fallthrough
				default:
					p.Sent()
				}
				l.Usage(egress)
				mu.Lock()
				history = append(history, got)
				enough := time.Since(began) > 2*time.Second && len(history) >= 500
				mu.Unlock()
				if enough || time.Since(began) > patience {
					cancel()
				}
			}
		})
	}
	clients.Wait()
	if err := check(history, budgets, guard); err != nil {
		t.Error(err)
	}
	if n := len(history); n < 500 {
		t.Errorf("only %d permits were taken", n)
	}
	for _, b := range budgets {
		if n := l.Waiting(b.Key); n != 0 {
			t.Errorf("%d wait for %s, want none", n, b.Key)
		}
	}
}

// Memory is for the keys in use, not for all there ever were.
func TestIdleBudgetsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		egress := budget("egress", 1000, time.Second)
		round := func(from int) {
			for i := range 20_000 {
				if i%100 == 0 {
					time.Sleep(time.Second)
				}
				send(t, l, request(0, budget(fmt.Sprint("company", from+i), 10, time.Second), egress))
				if i%10 == 0 {
					l.Pause(fmt.Sprint("other", from+i), time.Second)
				}
			}
		}
		round(0)
		before := heap()
		round(1_000_000)
		if growth := heap() - before; growth > 1<<20 {
			t.Errorf("20,000 more keys have left %d bytes behind", growth)
		}
		if got := before; got > 64<<20 {
			t.Errorf("heap is %d bytes", got)
		}
	})
}

// Nor is it for what a budget could hold.
func TestQuietBudgetStaysSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limiter.Config{})
		before := heap()
		for range 300_000 {
			send(t, l, request(0, budget("acme", 1<<23, time.Second)))
			time.Sleep(100 * time.Millisecond)
		}
		if growth := heap() - before; growth > 1<<20 {
			t.Errorf("a budget of which 10 are used at a time takes %d bytes", growth)
		}
		l.Usage(budget("acme", 1, time.Second))
	})
}

func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func TestTakeAllocatesLittle(t *testing.T) {
	l := newLocal(t, limiter.Config{})
	r := twoBudgets()
	if got := testing.AllocsPerRun(1000, func() { send(t, l, r) }); got > 1 {
		t.Errorf("%v allocations for a permit, want 1", got)
	}
}

func twoBudgets() limiter.Request {
	return request(0,
		limiter.Budget{Key: "acme", Windows: []limiter.Window{
			{Requests: 1 << 23, Per: time.Millisecond}, {Requests: 1 << 23, Per: time.Millisecond},
		}},
		budget("egress", 1<<23, time.Millisecond))
}

func BenchmarkTake(b *testing.B) {
	l, err := limiter.NewLocal(limiter.Config{Journal: filepath.Join(b.TempDir(), "journal")})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	r, ctx := twoBudgets(), b.Context()
	b.Run("Take+Sent", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p, err := l.Take(ctx, r)
			if err != nil {
				b.Fatal(err)
			}
			p.Sent()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if p, err := l.Take(ctx, r); err == nil {
					p.Sent()
				}
			}
		})
	})
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		r := request(0, budget("full", 3600, time.Hour))
		for range 3600 {
			if p, err := l.Take(ctx, r); err == nil {
				p.Sent()
			}
		}
		for b.Loop() {
			if _, err := l.Take(ctx, r); err == nil {
				b.Fatal("not refused")
			}
		}
	})
}

// BenchmarkQueue is a request that arrives behind 10,000 others and is told when to come back.
func BenchmarkQueue(b *testing.B) {
	for _, queues := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint("queues=", queues), func(b *testing.B) {
			l, err := limiter.NewLocal(limiter.Config{})
			if err != nil {
				b.Fatal(err)
			}
			egress := budget("egress", 1000, time.Minute)
			egressOnly := request(0, egress)
			for range 1000 {
				if p, err := l.Take(b.Context(), egressOnly); err == nil {
					p.Sent()
				}
			}
			var waiting sync.WaitGroup
			for i := range 10_000 {
				r := request(24*time.Hour, budget(fmt.Sprint("account", i%queues), 120, time.Minute), egress)
				waiting.Go(func() { l.Take(b.Context(), r) })
			}
			for i := range queues {
				for l.Waiting(fmt.Sprint("account", i)) < 10_000/queues {
					runtime.Gosched()
				}
			}
			r := request(time.Minute, budget("account0", 120, time.Minute), egress)
			for b.Loop() {
				if _, err := l.Take(b.Context(), r); err == nil {
					b.Fatal("not refused")
				}
			}
			l.Close()
			waiting.Wait()
		})
	}
}
