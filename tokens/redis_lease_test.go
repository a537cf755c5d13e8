package tokens_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/tokens"
)

// brisk makes locks and marks die soon: 300 ms and 800 ms.
func brisk(c *tokens.RedisConfig) { c.Lease, c.Call = 300*time.Millisecond, 600*time.Millisecond }

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
	aSecond := func(c *tokens.RedisConfig) { c.Lease = time.Second }
	a, b := openRedis(t, client(t, server), aSecond), openRedis(t, client(t, server), aSecond)
	save(t, a, first, 0)
	held := lock(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
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
	held.Release()
	time.Sleep(500 * time.Millisecond) // the renewals too have to leave it alone
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
	calm := func(c *tokens.RedisConfig) { c.Lease, c.Call = 300*time.Millisecond, 2*time.Second }
	a, b := openRedis(t, client(t, server), calm), openRedis(t, client(t, server), calm)
	save(t, a, first, 0)
	halted := func() { // a process that took the lock and leave to spend, and then does nothing more
		c := client(t, server)
		spend(t, lock(t, openRedis(t, c, calm)), 1)
		_ = c.Close()
	}
	began := time.Now()
	halted()
	l := lock(t, b)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.Spend(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Spend while another may spend: %v", err)
	}
	spend(t, l, 1)
	if took := time.Since(began); took < 2600*time.Millisecond {
		t.Errorf("spent after %v, while an answer could come", took)
	}
	l.Release()

	next := lock(t, a) // b released it
	within(t, 0, 2*time.Second, func() { spend(t, next, 1) })
	next.Release()
	l = lock(t, b)
	within(t, 0, 2*time.Second, func() { spend(t, l, 1) })

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
	server.Restart()
	if err := server.Client(t).Del(t.Context(), "fap:v1:{acme}:lock").Err(); err != nil {
		t.Fatal(err)
	}
	l := lock(t, b)
	defer l.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if until, err := l.Spend(ctx, 1); err == nil {
		t.Errorf("b may spend until %v what another is spending", until)
	}
}
