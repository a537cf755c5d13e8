package limiter_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/limiter"

	"github.com/redis/go-redis/v9"
)

// anyLimiter is what all limiters do.
type anyLimiter interface {
	Take(ctx context.Context, r limiter.Request) (*limiter.Permit, error)
	Pause(key string, d time.Duration)
	Exceeded(b limiter.Budget, retryAfter time.Duration)
	PausedUntil(key string) time.Time
	Usage(b limiter.Budget) []limiter.Usage
	AppendUsage(usage []limiter.Usage, budgets ...limiter.Budget) []limiter.Usage
	UsedBy(b limiter.Budget) []map[string]int
	Waiting(key string) int
	Statement(b limiter.Budget) limiter.Statement
	InUse(most int, match func(key string) bool) []string
	Close() error
}

// forms are all limiters, each made anew, that replicas may share: open opens one of them.
func forms(t *testing.T) map[string]func(t *testing.T) (open func() anyLimiter) {
	local := func(t *testing.T) func() anyLimiter {
		l := newLocal(t, limiter.Config{Guard: guard})
		return func() anyLimiter { return l }
	}
	return map[string]func(t *testing.T) func() anyLimiter{
		"memory": local,
		"one Redis": func(t *testing.T) func() anyLimiter {
			server := redistest.Start(t)
			return func() anyLimiter { return newLinked(t, server.Options()) }
		},
		"Redis Cluster": func(t *testing.T) func() anyLimiter {
			nodes := redistest.Cluster(t)
			return func() anyLimiter {
				return link(t, redis.NewClusterClient(&redis.ClusterOptions{Addrs: nodes.Addrs(), ContextTimeoutEnabled: true, MaxRetries: -1}))
			}
		},
		"Redis behind Sentinel": func(t *testing.T) func() anyLimiter {
			watched := redistest.Sentinel(t)
			return func() anyLimiter { return newWatched(t, watched) }
		},
	}
}

const guard = 40 * time.Millisecond

func newLinked(t testing.TB, options *redis.Options) *limiter.Redis {
	t.Helper()
	options.ContextTimeoutEnabled, options.MaxRetries = true, -1
	return link(t, redis.NewClient(options))
}

func newWatched(t testing.TB, watched *redistest.Watched) *limiter.Redis {
	t.Helper()
	return link(t, redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: redistest.MasterName, SentinelAddrs: watched.Addrs(), ContextTimeoutEnabled: true, MaxRetries: -1,
	}))
}

// link opens a limiter that counts in Redis, and waits until it does.
func link(t testing.TB, client redis.UniversalClient) *limiter.Redis {
	t.Helper()
	s, err := limiter.NewRedis(limiter.RedisConfig{Client: client, Guard: guard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		_ = client.Close()
	})
	until(t, "counts in Redis", func() bool { return s.State() == "linked" })
	return s
}

// patience is for what comes within seconds, on a machine that is so busy that a call of Redis often takes longer than is waited for.
const patience = 2 * time.Minute

// until waits until something is so.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so within %v: %s", patience, what)
		}
	}
}

// The contract: what holds for one process holds for two that share a store.
func TestContract(t *testing.T) {
	for name, form := range forms(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			open := form(t)
			c := contract{t, t, open(), open(), 0, 0}
			for _, what := range []func(contract){
				contract.testLimit, contract.testAllOrNone, contract.testRelease, contract.testOpen, contract.testHeadroom,
				contract.testPause, contract.testOrder, contract.testLeaving, contract.testShrink, contract.testFair,
				contract.testShare, contract.testUsedBy, contract.testStatement, contract.testInUse,
			} {
				c.step(what)
			}
		})
	}
}

func (c contract) take(l anyLimiter, budgets ...limiter.Budget) *limiter.Permit {
	c.Helper()
	p, err := l.Take(context.Background(), request(0, budgets...))
	if err != nil {
		c.Fatalf("Take: %v", err)
	}
	return p
}

func (c contract) refused(l anyLimiter, budgets ...limiter.Budget) *limiter.OverBudgetError {
	c.Helper()
	var over *limiter.OverBudgetError
	if p, err := l.Take(context.Background(), request(0, budgets...)); !errors.As(err, &over) {
		if p != nil {
			c.whole.Errorf("a permit too many of %v", budgets)
		}
		c.Fatalf("Take: %v, %v; want OverBudgetError", p, err)
	}
	return over
}

// remain waits until both say that so many permits are left.
func (c contract) remain(b limiter.Budget, want int) {
	c.Helper()
	c.until("remaining permits", func() bool {
		return c.one.Usage(b)[0].Remaining == want && c.other.Usage(b)[0].Remaining == want
	})
}

// window is what steps wait for that wait for a window: longer than some calls of Redis take on a busy machine, so that what is to be
// seen within the window is.
const window = 3 * time.Second

func (c contract) testLimit() {
	b := c.budget("api/limit", 4, window)
	first := time.Now()
	for i := range 4 {
		c.take([]anyLimiter{c.one, c.other}[i%2], b).Sent()
	}
	last := time.Now()
	c.remain(b, 0)
	for range 3 {
		over := c.refused(c.one, b)
		if over.Key != b.Key || over.RetryAfter <= 0 || over.RetryAfter > window+guard {
			c.Errorf("%+v", over)
		}
		c.refused(c.other, b)
	}
	p, err := c.other.Take(context.Background(), request(5*window, b))
	if err != nil {
		c.Fatal(err)
	}
	p.Sent()
	if got := time.Now(); got.Sub(first) < window || got.Sub(last) > window+2*time.Second {
		c.Errorf("got one %v after the first and %v after the last of a window of %v", got.Sub(first), got.Sub(last), window)
	}
}

func (c contract) testAllOrNone() {
	small, large := c.budget("api/all", 2, time.Minute), c.budget("egress", 100, time.Minute)
	c.take(c.one, small, large).Sent()
	c.take(c.other, small, large).Sent()
	for range 10 {
		c.refused(c.one, small, large)
		c.refused(c.other, large, small)
	}
	c.remain(large, 98)
	c.remain(small, 0)
}

func (c contract) testRelease() {
	b := c.budget("api/release", 2, time.Minute)
	p, q := c.take(c.one, b), c.take(c.other, b)
	c.remain(b, 0)
	c.refused(c.one, b)
	p.Release()
	p.Sent() // is too late
	c.remain(b, 1)
	q.Sent()
	q.Release() // is too late, too
	c.take(c.other, b).Sent()
	c.remain(b, 0)
}

// A permit whose request has not left counts as of now.
func (c contract) testOpen() {
	b := c.budget("api/open", 1, window)
	p := c.take(c.one, b)
	time.Sleep(window + window/2)
	c.refused(c.other, b)
	p.Sent()
	time.Sleep(300 * time.Millisecond)
	c.refused(c.other, b)
	p, err := c.other.Take(context.Background(), request(5*window, b))
	if err != nil {
		c.Fatal(err)
	}
	p.Sent()
}

func (c contract) testHeadroom() {
	b := c.budget("api/headroom", 3, time.Minute)
	modest := b
	modest.Headroom = 1
	c.take(c.one, modest).Sent()
	c.take(c.other, modest).Sent()
	c.remain(modest, 0)
	c.refused(c.one, modest)
	c.take(c.one, b).Sent()
	c.refused(c.other, b)
}

func (c contract) testPause() {
	b := c.budget("api/pause", 10, time.Minute)
	c.take(c.one, b).Sent()
	paused := time.Now()
	c.one.Pause(b.Key, window)
	c.until("paused there, too", func() bool { return !c.other.PausedUntil(b.Key).IsZero() })
	c.refused(c.other, b)
	c.refused(c.one, b)
	p, err := c.other.Take(context.Background(), request(5*window, b))
	if err != nil {
		c.Fatal(err)
	}
	p.Sent()
	if waited := time.Since(paused); waited < window-50*time.Millisecond {
		c.Errorf("waited %v for a pause of %v", waited, window)
	}
}

// Who waits is served in order of arrival.
func (c contract) testOrder() {
	b := c.budget("api/order", 1, 250*time.Millisecond)
	c.take(c.one, b).Sent()
	served := make(chan int, 4)
	for i := range 4 {
		go func() {
			p, err := c.one.Take(context.Background(), request(10*window, b))
			served <- i // before another one can be
			if err != nil {
				c.Error(err)
			} else {
				p.Sent()
			}
		}()
		c.until("waits, or did", func() bool {
			before := len(served)
			return before+c.one.Waiting(b.Key) > i
		})
	}
	for want := range 4 {
		if got := <-served; got != want {
			c.Errorf("number %d was served as number %d", got, want)
		}
	}
}

// Who leaves takes nothing with him.
func (c contract) testLeaving() {
	b := c.budget("api/leaving", 1, window)
	c.take(c.one, b).Sent()
	ctx, cancel := context.WithCancelCause(context.Background())
	left := errors.New("left")
	go func() {
		for c.one.Waiting(b.Key) == 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel(left)
	}()
	defer cancel(nil)
	if _, err := c.one.Take(ctx, request(10*window, b)); !errors.Is(err, left) {
		c.Errorf("Take: %v, want %v", err, left)
	}
	c.remain(b, 1)
}

// A 429 although we had used half shrinks the budget to that half, on all replicas, and it comes back by and by.
func (c contract) testShrink() {
	b := c.budget("api/shrink", 20, 3*window) // in which ten are taken, and those that left late are counted as of then
	for range 10 {
		c.take(c.one, b).Sent()
	}
	c.one.Exceeded(b, window)
	c.until("shrunk there, too", func() bool { return !c.other.PausedUntil(b.Key).IsZero() })
	c.until("empty", func() bool {
		one, other := c.one.Usage(b)[0], c.other.Usage(b)[0]
		return one.Reset == 0 && other.Reset == 0 && other.Remaining > 0
	})
	took := 0
	for range 20 {
		if p, err := c.other.Take(context.Background(), request(0, b)); err == nil {
			p.Sent()
			took++
		}
	}
	if took < 10 || took > 11 {
		c.Errorf("%d permits of a budget that shrank to 10", took)
	}
}
