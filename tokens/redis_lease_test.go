package tokens_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/tokens"
)

func lock(t *testing.T, s tokens.Store) tokens.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	l, err := s.Lock(ctx, account)
	if err != nil {
		t.Fatalf("Lock: %v", err)
	}
	return l
}

func spend(t *testing.T, l tokens.Lease, version int64) {
	t.Helper()
	if _, err := l.Spend(t.Context(), version); err != nil {
		t.Fatalf("Spend: %v", err)
	}
}

// within runs f, and expects it to take that long.
func within(t *testing.T, least, most time.Duration, f func()) {
	t.Helper()
	began := time.Now()
	f()
	if took := time.Since(began); took < least || took > most {
		t.Errorf("took %v, want %v to %v", took, least, most)
	}
}

var first = tokens.Grant{Account: account, RefreshToken: "r", Version: 1}

// A lock outlives its lease as long as its holder lives; after that another has it, and the holder may not spend.
func TestRedisLockIsRenewedAndLost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	admin := server.Client(t)
	const lease = 3 * time.Second // of which a third may pass between renewals, and the rest on a busy machine
	short := func(c *tokens.RedisConfig) { c.Lease = lease }
	a, b := openRedis(t, client(t, server), short), openRedis(t, client(t, server), short)
	save(t, a, first, 0)
	held := lock(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), 2*lease)
	defer cancel()
	if _, err := b.Lock(ctx, account); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another process refreshes it") {
		t.Errorf("Lock of what is locked: %v", err)
	}
	// As if a had been halted: the lock is gone and b has it.
	if err := admin.Set(t.Context(), "fap:v1:{acme}:lock", "stranger", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := held.Spend(t.Context(), 1); !errors.Is(err, tokens.ErrStore) || !strings.Contains(err.Error(), "the lock is lost") {
		t.Errorf("Spend without the lock: %v", err)
	}
	time.Sleep(lease / 2) // the renewals too have to leave it alone
	held.Release()
	time.Sleep(500 * time.Millisecond)
	if got := admin.Get(t.Context(), "fap:v1:{acme}:lock").Val(); got != "stranger" {
		t.Errorf("the lock is %q, want the stranger's", got)
	}
}

func TestRedisSpendsTheStoredVersionAlone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := openRedis(t, client(t, server))
	l := lock(t, a)
	defer l.Release()
	for _, version := range []int64{1, 2} {
		if _, err := l.Spend(t.Context(), version); !errors.Is(err, tokens.ErrConflict) {
			t.Errorf("Spend(%d): %v, want ErrConflict", version, err)
		}
		if version == 1 {
			save(t, a, first, 0)
		}
	}
	spend(t, l, 1)
}

// What another was about to spend is not spent until its answer can come no more, unless it said that none will.
func TestRedisWaitsForAnothersAnswer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	const call, mark = 3 * time.Second, 4 * time.Second // a third longer than the call
	calm := func(c *tokens.RedisConfig) { c.Call = call }
	a, b := openRedis(t, client(t, server), calm), openRedis(t, client(t, server), calm)
	save(t, a, first, 0)
	halted := func() { // a process that took the lock and leave to spend, and then does nothing more
		c := client(t, server)
		spend(t, lock(t, openRedis(t, c, calm, func(c *tokens.RedisConfig) { c.Lease = time.Second })), 1)
		_ = c.Close()
	}
	began := time.Now()
	halted()
	l := lock(t, b)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := l.Spend(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Spend while another may spend: %v", err)
	}
	spend(t, l, 1)
	if took := time.Since(began); took < mark-100*time.Millisecond {
		t.Errorf("spent after %v, while an answer could come", took)
	}
	l.Release()

	next := lock(t, a) // b released it
	within(t, 0, mark/2, func() { spend(t, next, 1) })
	next.Release()
	l = lock(t, b)
	within(t, 0, mark/2, func() { spend(t, l, 1) })

	// The answer comes while b waits.
	l.Release()
	halted()
	l = lock(t, b)
	defer l.Release()
	time.AfterFunc(200*time.Millisecond, func() { save(t, a, tokens.Grant{Account: account, RefreshToken: "next", Version: 2}, 1) })
	if _, err := l.Spend(t.Context(), 1); !errors.Is(err, tokens.ErrConflict) {
		t.Errorf("Spend after the answer came: %v, want ErrConflict", err)
	}
}

// lockWithout locks in a Redis that has lost an owner's lock, however often that puts it back until then.
func lockWithout(t *testing.T, server *redistest.Server, owner string, s tokens.Store) tokens.Lease {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var losing sync.WaitGroup
	admin := server.Client(t)
	losing.Go(func() {
		const lose = `return redis.call("get", KEYS[1]) == ARGV[1] and redis.call("del", KEYS[1])`
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			_ = admin.Eval(ctx, lose, []string{"fap:v1:{acme}:lock"}, owner).Err() // nil if it has not put it back
		}
	})
	defer losing.Wait()
	defer stop()
	return lock(t, s)
}

// A Redis that comes back without lock and mark gets them again from the holder, before another spends.
func TestRedisLosesALock(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := openRedis(t, client(t, server)), openRedis(t, client(t, server))
	save(t, a, first, 0)
	for _, s := range []*tokens.Redis{a, b} { // both know this server
		lock(t, s).Release()
	}
	if err := server.Client(t).Save(t.Context()).Err(); err != nil { // the grant alone comes back
		t.Fatal(err)
	}
	slow := openRedis(t, client(t, server), func(c *tokens.RedisConfig) { c.Lease = time.Second })
	held := lock(t, slow)
	defer held.Release()
	spend(t, held, 1)
	owner := server.Client(t).Get(t.Context(), "fap:v1:{acme}:lock").Val()
	server.Restart()
	l := lockWithout(t, server, owner, b)
	defer l.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if until, err := l.Spend(ctx, 1); err == nil {
		t.Errorf("b may spend until %v what another is spending", until)
	}
}
