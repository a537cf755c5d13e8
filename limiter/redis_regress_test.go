package limiter_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/limiter"

	"github.com/redis/go-redis/v9"
)

// Permits that are open when Redis dies are counted one by one, however many there are.
func TestOpenPermitsOutliveRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := newLinked(t, server.Options())
	b := budget("api/acme", 50, 5*time.Second)
	var open []*limiter.Permit
	for range 50 {
		p, err := s.Take(context.Background(), request(0, b))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, p)
	}
	server.Kill()
	until(t, "counts alone", func() bool { return s.State() == "alone" })
	time.Sleep(300 * time.Millisecond) // they are counted anew meanwhile
	refused(t, s.Local, request(0, b))
	for _, p := range open {
		p.Sent()
	}
	refused(t, s.Local, request(0, b))
	server.RestartEmpty()
	until(t, "counts in Redis again", func() bool { return s.State() == "linked" })
	refused(t, s.Local, request(0, b))
}

// A replica that has just started knows what others used, should Redis die before it uses anything itself.
func TestNewReplicaKnowsThePast(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	old := newLinked(t, server.Options())
	b := budget("api/acme", 30, time.Minute)
	for range 30 {
		send(t, old.Local, request(0, b))
	}
	fresh := newLinked(t, server.Options())
	server.Kill()
	until(t, "both count alone", func() bool { return old.State() == "alone" && fresh.State() == "alone" })
	refused(t, old.Local, request(0, b))
	refused(t, fresh.Local, request(0, b))
	server.RestartEmpty()
	until(t, "both count in Redis again", func() bool { return old.State() == "linked" && fresh.State() == "linked" })
	refused(t, old.Local, request(0, b))
	refused(t, fresh.Local, request(0, b))
}

// A permit that was taken while Redis was away, and sent when it was back, counts there.
func TestTakenAwaySentBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one := newLinked(t, server.Options())
	b := budget("api/acme", 10, 20*time.Second)
	send(t, one.Local, request(0, b))
	server.Kill()
	until(t, "counts alone", func() bool { return one.State() == "alone" })
	var open []*limiter.Permit
	for range 9 {
		open = append(open, take(t, one.Local, request(0, b)))
	}
	server.RestartEmpty()
	until(t, "counts in Redis again", func() bool { return one.State() == "linked" })
	for _, p := range open {
		p.Sent()
	}
	other := newLinked(t, server.Options())
	refused(t, other.Local, request(0, b))
	refused(t, one.Local, request(0, b))
}

// What one releases the next one may have, although Redis had just refused him.
func TestReleasedToWhoWasRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one, other := newLinked(t, server.Options()), newLinked(t, server.Options())
	b := budget("api/acme", 1, time.Minute)
	p := take(t, one.Local, request(0, b))
	time.AfterFunc(300*time.Millisecond, p.Release)
	began := time.Now()
	q, err := other.Take(context.Background(), request(70*time.Second, b))
	if err != nil {
		t.Fatal(err)
	}
	q.Sent()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("waited %v", took)
	}
}

// A budget of fewer requests than there are replicas gives nobody anything while Redis is away. Who waits for it, or asks, is told
// so at once, with the window that it is about.
func TestTooSmallToShare(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var all []*limiter.Redis
	for range 3 {
		all = append(all, newLinked(t, server.Options()))
	}
	until(t, "knows of all", func() bool { return all[0].Replicas() == 3 })
	b := budget("api/acme", 2, time.Minute)
	send(t, all[0].Local, request(0, b))
	send(t, all[0].Local, request(0, b))
	waited := make(chan error, 1)
	go func() {
		_, err := all[0].Take(context.Background(), request(5*time.Minute, b))
		waited <- err
	}()
	until(t, "waits", func() bool { return all[0].Waiting(b.Key) == 1 })
	server.Kill()
	check := func(err error) {
		t.Helper()
		var over *limiter.OverBudgetError
		if !errors.As(err, &over) || over.Key != b.Key || over.Window != b.Windows[0] || over.RetryAfter != time.Minute {
			t.Errorf("%#v, want the window of %v and to come again after it", err, b)
		}
	}
	select {
	case err := <-waited:
		check(err)
	case <-time.After(10 * time.Second):
		t.Fatal("waits still")
	}
	began := time.Now()
	_, err := all[0].Take(context.Background(), request(5*time.Minute, b))
	check(err)
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v to be told", took)
	}
}

// A permit that others have pushed out of a short ring before its request leaves is counted when it does, and Redis is not taken for
// one that has lost data.
func TestPushedOutBeforeItLeft(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var lost atomic.Int64
	s := newObserved(t, server, func(e limiter.Event) {
		if e.Kind == limiter.RedisLost {
			lost.Add(1)
			t.Logf("%v", e.Err)
		}
	})
	send(t, s.Local, request(0, budget("api/acme", 1, time.Minute))) // what was counted within a minute matters
	b := budget("api/acme", 1, time.Millisecond)
	next := func() *limiter.Permit {
		p, err := s.Take(context.Background(), request(time.Second, b))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for range 100 {
		p := next()
		time.Sleep(6 * time.Millisecond) // longer than what is not told to Redis
		next().Sent()
		p.Sent()
	}
	if n := lost.Load(); n > 0 {
		t.Errorf("Redis was lost %d times", n)
	}
}

// Permits that two replicas count alone in the same microsecond are two when Redis is back.
func TestAloneAtTheSameTime(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	replicas := []*limiter.Redis{newLinked(t, server.Options()), newLinked(t, server.Options())}
	for _, s := range replicas {
		until(t, "knows of both", func() bool { return s.Replicas() == 2 })
	}
	server.Kill()
	const each = 1000
	b := budget("api/acme", 3*each, time.Minute)
	taken := make([][]*limiter.Permit, len(replicas))
	for i, s := range replicas {
		until(t, "counts alone", func() bool { return s.State() == "alone" })
		for range each {
			taken[i] = append(taken[i], take(t, s.Local, request(0, b)))
		}
	}
	var together sync.WaitGroup
	for _, permits := range taken {
		together.Go(func() {
			for _, p := range permits {
				p.Sent()
			}
		})
	}
	together.Wait()
	server.RestartEmpty()
	for _, s := range replicas {
		until(t, "counts in Redis again", func() bool { return s.State() == "linked" })
	}
	for _, s := range replicas {
		if left := s.Usage(b)[0].Remaining; left != each {
			t.Errorf("%d are left of %d after 2 times %d", left, 3*each, each)
		}
	}
}

// Requests that are under way when Redis is back do not make it look as if it had forgotten them.
func TestBackWithRequestsUnderWay(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var forgot atomic.Int64
	s := newObserved(t, server, func(e limiter.Event) {
		if e.Kind == limiter.RedisLost && strings.Contains(e.Err.Error(), "not there any more") {
			forgot.Add(1)
		}
	})
	b := budget("api/acme", 100000, time.Minute)
	over := make(chan struct{})
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if p, err := s.Take(context.Background(), request(time.Second, b)); err == nil {
					time.Sleep(5 * time.Millisecond)
					p.Sent()
				}
			}
		})
	}
	for range 3 {
		server.Kill()
		until(t, "counts alone", func() bool { return s.State() == "alone" })
		server.RestartEmpty()
		until(t, "counts in Redis again", func() bool { return s.State() == "linked" })
	}
	close(over)
	clients.Wait()
	if n := forgot.Load(); n > 0 {
		t.Errorf("Redis was taken for forgetful %d times", n)
	}
}

// newObserved is a replica that counts in Redis, and tells of what happens.
func newObserved(t *testing.T, server *redistest.Server, observe func(limiter.Event)) *limiter.Redis {
	t.Helper()
	options := server.Options()
	options.ContextTimeoutEnabled, options.MaxRetries = true, -1
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	s, err := limiter.NewRedis(limiter.RedisConfig{Client: client, Observe: observe})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	until(t, "counts in Redis", func() bool { return s.State() == "linked" })
	return s
}
