package limiter_test

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/limiter"

	"github.com/redis/go-redis/v9"
)

// spent is what some replicas let go of one budget.
type spent struct {
	t        *testing.T
	budget   limiter.Budget
	replicas []*limiter.Redis
	arrivals []time.Time
}

// all takes whatever a replica gives now.
func (s *spent) all(r *limiter.Redis) (n int) {
	for {
		p, err := r.Take(s.t.Context(), request(0, s.budget))
		if err != nil {
			return n
		}
		p.Sent()
		s.arrivals = append(s.arrivals, time.Now())
		n++
	}
}

// check looks for a window that held too much.
func (s *spent) check() {
	s.t.Helper()
	slices.SortFunc(s.arrivals, time.Time.Compare)
	w := s.budget.Windows[0]
	most := busiest(s.arrivals, w.Per)
	if most > w.Requests {
		s.t.Errorf("%d went in a window of %d per %v", most, w.Requests, w.Per)
	}
	s.t.Logf("most in %v: %d of %d", w.Per, most, w.Requests)
}

// join starts a replica whose client dials what dial says. It does not wait for anything.
func (s *spent) join(dial func() string) *limiter.Redis {
	t, number := s.t, len(s.replicas)
	client := redis.NewClient(&redis.Options{Addr: "redis:6379", ContextTimeoutEnabled: true, MaxRetries: -1,
		Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, dial())
		}})
	r, err := limiter.NewRedis(limiter.RedisConfig{Client: client, Guard: guard, Observe: func(e limiter.Event) {
		t.Logf("%s: %c %+v", time.Now().Format("05.000"), 'A'+number, e)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Close()
		_ = client.Close()
	})
	s.replicas = append(s.replicas, r)
	return r
}

// joined is join, and waits until all know of all.
func (s *spent) joined(dial ...func() string) {
	s.t.Helper()
	for _, d := range dial {
		s.join(d)
	}
	for _, r := range s.replicas {
		until(s.t, "all count in Redis, and know of all", func() bool {
			return r.State() == "linked" && r.Replicas() == len(s.replicas)
		})
	}
}

// are waits until replicas are in a state.
func are(t *testing.T, state string, replicas ...*limiter.Redis) {
	t.Helper()
	for _, r := range replicas {
		until(t, state, func() bool { return r.State() == state })
	}
}

// is tells if a replica is in another state: the machine was too busy for what the test is about.
func is(t *testing.T, state string, r *limiter.Redis) {
	t.Helper()
	if got := r.State(); got != state {
		t.Logf("it is %s, not %s: this shows nothing", got, state)
	}
}

// Of three that have counted alone one returns, and loses Redis once more: what it took alone before is its share still.
func TestLostTwice(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one, other := redistest.NewWire(t, server.Addr()), redistest.NewWire(t, server.Addr())
	s := &spent{t: t, budget: budget("api/acme", 60, time.Minute)}
	s.joined(one.Addr, other.Addr)
	a, b := s.replicas[0], s.replicas[1]
	server.Kill()
	are(t, "alone", a, b)
	s.all(a)
	s.all(b)
	other.Cut()
	server.RestartEmpty()
	are(t, "returning", a)
	one.Cut()
	are(t, "alone", a)
	for began := time.Now(); time.Since(began) < 2500*time.Millisecond; time.Sleep(10 * time.Millisecond) { // at first it takes nothing
		s.all(a)
	}
	is(t, "alone", b)
	s.check()
	one.Mend()
	other.Mend()
}

// Redis is lost while one returns who was away when another joined: its share is one in as many as there are now.
func TestLostWhenOneReturnsToMore(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	wire := redistest.NewWire(t, server.Addr())
	s := &spent{t: t, budget: budget("api/acme", 60, time.Minute)}
	s.joined(wire.Addr, server.Addr)
	a, b := s.replicas[0], s.replicas[1]
	wire.Cut()
	are(t, "alone", a)
	c := s.join(server.Addr)
	are(t, "returning", c)
	time.Sleep(time.Second) // so that it is linked before the other one is
	wire.Mend()
	are(t, "returning", a)
	are(t, "linked", c)
	is(t, "returning", a)
	server.Kill()
	are(t, "alone", a, b, c)
	for _, r := range s.replicas {
		s.all(r)
	}
	s.check()
}

// One puts back what it counted alone, while another counted in Redis all the time: that one hears of it before Redis is lost for both.
func TestLostAfterOneReturned(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	wire := redistest.NewWire(t, server.Addr())
	s := &spent{t: t, budget: budget("api/acme", 60, 4*time.Second)}
	s.joined(wire.Addr, server.Addr)
	a, b := s.replicas[0], s.replicas[1]
	var open []*limiter.Permit
	for range 30 {
		open = append(open, take(t, a.Local, request(10*time.Second, s.budget)))
	}
	began := time.Now()
	wire.Cut()
	are(t, "alone", a)
	time.Sleep(time.Until(began.Add(1500 * time.Millisecond))) // their stamps in Redis are that old, and are moved
	for _, p := range open {                                   // long after they were counted in Redis
		p.Sent()
		s.arrivals = append(s.arrivals, time.Now())
	}
	wire.Mend()
	are(t, "linked", a)
	is(t, "linked", b)
	server.Kill()
	are(t, "alone", a, b)
	for time.Since(began) < 5*time.Second {
		s.all(a)
		s.all(b)
		time.Sleep(10 * time.Millisecond)
	}
	s.check()
}

// Who lost Redis in silence goes over to another server, which does not know either what the others counted at the old one before
// they noticed.
func TestLostToAnotherServer(t *testing.T) {
	t.Parallel()
	old, next := redistest.Start(t), redistest.Start(t)
	wire, copying := redistest.NewWire(t, old.Addr()), redistest.NewWire(t, old.Addr())
	host, port, _ := net.SplitHostPort(copying.Addr())
	admin := next.Client(t)
	do(t, admin, []string{"REPLICAOF", host, port})
	s := &spent{t: t, budget: budget("api/acme", 60, 3*time.Second)}
	var failed atomic.Bool
	s.joined(old.Addr, func() string {
		if failed.Load() {
			return next.Addr()
		}
		return wire.Addr()
	})
	a, b := s.replicas[0], s.replicas[1]
	for range 60 {
		send(t, a.Local, request(10*time.Second, s.budget))
	}
	began := time.Now()
	until(t, "the replica has it all", func() bool { return admin.Exists(t.Context(), limiter.RedisKey(s.budget.Key)).Val() == 1 })
	time.Sleep(time.Until(began.Add(2900 * time.Millisecond))) // just before the window is over
	wire.Cut()
	copying.Cut()
	for time.Since(began) < 3400*time.Millisecond {
		s.all(a)
		time.Sleep(10 * time.Millisecond)
	}
	are(t, "alone", b)
	do(t, admin, []string{"REPLICAOF", "NO", "ONE"})
	failed.Store(true)
	for time.Since(began) < 6*time.Second {
		s.all(b)
		time.Sleep(10 * time.Millisecond)
	}
	is(t, "returning", b)
	s.check()
}

// A replica that has ended makes the shares of the others greater when they have told one another, not before.
func TestLostBeforeAShareWasTold(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	wire := redistest.NewWire(t, server.Addr())
	s := &spent{t: t, budget: budget("api/acme", 60, 2*time.Second)}
	s.joined(wire.Addr, server.Addr, server.Addr)
	a, b, c := s.replicas[0], s.replicas[1], s.replicas[2]
	time.Sleep(500 * time.Millisecond) // all have told their shares
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "knows of two", func() bool { return a.Replicas() == 2 })
	wire.Cut()
	are(t, "alone", a)
	for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(10 * time.Millisecond) {
		s.all(b)
		s.all(a)
	}
	is(t, "alone", a)
	s.check()
	wire.Mend()
}

// One is cut off while it returns from a Redis that had refused connections: that was before, and tells nothing of what the others do now.
func TestLostAfterARefusal(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	wire := redistest.NewWire(t, server.Addr())
	s := &spent{t: t, budget: budget("api/acme", 60, time.Minute)}
	var far atomic.Bool
	s.joined(func() string {
		if far.Load() {
			return wire.Addr()
		}
		return server.Addr()
	}, server.Addr)
	a, b := s.replicas[0], s.replicas[1]
	server.Kill()
	are(t, "alone", a, b)
	time.Sleep(500 * time.Millisecond) // they try again
	wire.Cut()
	far.Store(true)
	server.RestartEmpty()
	are(t, "returning", b)
	time.Sleep(time.Second) // so that it is linked before the other one is
	wire.Mend()
	are(t, "returning", a)
	are(t, "linked", b)
	is(t, "returning", a)
	wire.Cut()
	s.all(b)
	are(t, "alone", a)
	s.all(a)
	s.check()
	wire.Mend()
}

// One is back that has not noticed that another is cut off, and leaves it its share all the same.
func TestReturnsWhileAnotherIsCutOff(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one, other := redistest.NewWire(t, server.Addr()), redistest.NewWire(t, server.Addr())
	s := &spent{t: t, budget: budget("api/acme", 60, 2500*time.Millisecond)}
	s.joined(one.Addr, other.Addr, server.Addr)
	a, b, c := s.replicas[0], s.replicas[1], s.replicas[2]
	send(t, b.Local, request(10*time.Second, s.budget)) // so that it knows the windows
	one.Cut()
	other.Cut()
	are(t, "alone", a, b)
	time.Sleep(2500 * time.Millisecond) // the silence in which they take nothing is over
	one.Mend()
	are(t, "returning", a)
	time.Sleep(2200 * time.Millisecond) // what the one that is cut off took for used is over
	s.all(c)
	s.join(server.Addr)
	until(t, "knows of the fourth", func() bool { return a.Replicas() == 4 })
	s.all(a)
	s.all(b)
	is(t, "returning", a)
	is(t, "alone", b)
	s.check()
	other.Mend()
}
