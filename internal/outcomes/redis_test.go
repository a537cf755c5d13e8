package outcomes_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/outcomes"
	"freeagent-proxy/internal/redistest"
)

// While Redis is away nothing is begun, and what was begun keeps its outcome until Redis has it.
func TestRedisDies(t *testing.T) {
	t.Parallel()
	s := newShelf(t, true, redistest.Persistent())
	var degraded atomic.Int32
	a := outcomes.NewRedis(s.client, lease, outcomes.Config{Sealer: s.sealer, Degraded: func(err error) {
		if err != nil {
			degraded.Add(1)
		} else {
			degraded.Add(-1)
		}
	}})
	t.Cleanup(a.Halt)
	left, unsent, waits := claims(t, a, invoice), claims(t, a, named("unsent")), claims(t, a, named("waits"))
	leaves(t, left)
	leaves(t, unsent)
	s.server.Kill()
	if _, _, err := begin(a, named("new"), first); !errors.Is(err, outcomes.ErrUnavailable) {
		t.Errorf("Begin while Redis is away: %v", err)
	}
	if err := waits.Leave(); !errors.Is(err, outcomes.ErrUnavailable) {
		t.Errorf("Leave while Redis is away: %v", err)
	}
	waits.Drop()
	left.Keep(created)
	unsent.Drop()
	answers(t, a, created) // from memory
	soon(t, "it was told, once, that outcomes cannot be stored", func() bool { return degraded.Load() == 1 })
	s.server.Restart()
	soon(t, "all is stored", func() bool { return a.Held() == 0 })
	soon(t, "that is told", func() bool { return degraded.Load() == 0 })
	b := s.open()
	answers(t, b, created)
	for _, key := range []string{"unsent", "waits", "new"} {
		claims(t, b, named(key)).Drop()
	}
}

// That the store is well again is told also if nobody asks for anything any more.
func TestStoreIsBackAtNight(t *testing.T) {
	t.Parallel()
	s := newShelf(t, true, redistest.Persistent())
	told := make(chan error, 100)
	a := outcomes.NewRedis(s.client, lease, outcomes.Config{Sealer: s.sealer, Degraded: func(err error) { told <- err }})
	t.Cleanup(a.Halt)
	s.server.Kill()
	if _, _, err := begin(a, invoice, first); !errors.Is(err, outcomes.ErrUnavailable) {
		t.Errorf("Begin while Redis is away: %v", err)
	}
	if err := <-told; err == nil {
		t.Error("told that the store is well")
	}
	s.server.Restart()
	if err := <-told; err != nil {
		t.Errorf("told %v, want that the store is well", err)
	}
	soon(t, "nothing is held", func() bool { return a.Held() == 0 })
	claims(t, a, invoice).Drop()
}

func named(key string) outcomes.Name {
	name := invoice
	name.Key = key
	return name
}

// What Redis loses comes back from who holds it: what runs, and what was done of late.
func TestRedisLosesAll(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(s *shelf){
		"flushed":         func(s *shelf) { s.client.FlushAll(context.Background()) },
		"restarted empty": func(s *shelf) { s.server.RestartEmpty() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t, true)
			a, b := s.open(), s.open()
			done, runs, waits := claims(t, a, invoice), claims(t, a, named("runs")), claims(t, a, named("waits"))
			leaves(t, done)
			done.Keep(created)
			for i := range 20 {
				c := claims(t, a, named("more"+string(rune('a'+i))))
				leaves(t, c)
				c.Keep(created)
			}
			leaves(t, runs)
			lose(s)
			soon(t, "all is back", func() bool { return len(s.client.Keys(t.Context(), "fap:v1:write:*").Val()) == 23 })
			answers(t, b, created)
			for _, key := range []string{"runs", "waits"} {
				if _, _, err := begin(b, named(key), first); !errors.Is(err, outcomes.ErrRunning) {
					t.Errorf("%s: %v, want %v", key, err, outcomes.ErrRunning)
				}
			}
			leaves(t, waits)
			waits.Keep(created)
			runs.Keep(created)
		})
	}
}

// An owner that was halted while it waited does not send when another has taken over; one that was halted after it had
// sent says how that ended.
func TestHaltedOwner(t *testing.T) {
	t.Parallel()
	s := newShelf(t, true)
	a, b := s.open(), s.open()
	late, sent := claims(t, a, invoice), claims(t, a, named("sent"))
	leaves(t, sent)
	a.Halt()
	var c *outcomes.Claim
	soon(t, "another takes over", func() bool { c, _, _ = begin(b, invoice, first); return c != nil })
	if err := late.Leave(); !errors.Is(err, outcomes.ErrRunning) {
		t.Errorf("Leave of who was halted: %v, want %v", err, outcomes.ErrRunning)
	}
	late.Drop()
	leaves(t, c)
	c.Keep(created)
	answers(t, b, created)

	soon(t, "what was sent is unknown", func() bool { _, _, err := begin(b, named("sent"), first); return errors.Is(err, outcomes.ErrUnknown) })
	sent.Keep(created)
	if _, answer, err := begin(b, named("sent"), first); answer == nil {
		t.Errorf("Begin after the owner came back: %v, want the answer", err)
	}
}

// An owner whose claim Redis has lost to another that waits does not let that one send, too.
func TestOutcomeStopsWhoWaits(t *testing.T) {
	t.Parallel()
	s := newShelf(t, true)
	a, b := s.open(), s.open()
	c := claims(t, a, invoice)
	leaves(t, c)
	a.Halt() // so that it does not notice
	s.client.Del(t.Context(), outcomes.Key(invoice))
	second := claims(t, b, invoice)
	c.Keep(created)
	if err := second.Leave(); !errors.Is(err, outcomes.ErrRunning) {
		t.Errorf("Leave: %v, want %v", err, outcomes.ErrRunning)
	}
	second.Drop()
	answers(t, b, created)
}

// An owner that lives keeps its claim for as long as it takes.
func TestLivingOwner(t *testing.T) {
	t.Parallel()
	s := newShelf(t, true)
	a, b := s.open(), s.open()
	waits, sent := claims(t, a, invoice), claims(t, a, named("sent"))
	leaves(t, sent)
	for deadline := time.Now().Add(3 * lease); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		refuses(t, b, outcomes.ErrRunning)
		if _, _, err := begin(b, named("sent"), first); !errors.Is(err, outcomes.ErrRunning) {
			t.Fatalf("sent: %v, want %v", err, outcomes.ErrRunning)
		}
	}
	leaves(t, waits)
}

// All that Redis has expires, a day after the outcome is known.
func TestRedisForgets(t *testing.T) {
	t.Parallel()
	s := newShelf(t, true)
	b := s.open()
	c := claims(t, b, invoice)
	for _, step := range []struct {
		run         func()
		least, most time.Duration
	}{
		{func() {}, 0, lease},
		{func() { leaves(t, c) }, outcomes.Life - time.Minute, outcomes.Life},
		{func() { c.Keep(created) }, outcomes.Life - time.Minute, outcomes.Life},
	} {
		step.run()
		left := s.client.PTTL(t.Context(), outcomes.Key(invoice)).Val()
		if left <= step.least || left > step.most {
			t.Errorf("expires in %s, want between %s and %s", left, step.least, step.most)
		}
	}
	if left := s.client.PTTL(t.Context(), outcomes.CountKey(invoice)).Val(); left <= outcomes.Life {
		t.Errorf("the count expires in %s", left)
	}
	if count := s.client.HVals(t.Context(), outcomes.CountKey(invoice)).Val(); len(count) != 1 || count[0] != "1" {
		t.Errorf("counted %v, want 1", count)
	}
}

// It works in a Cluster, where all of an account is in one slot.
func TestCluster(t *testing.T) {
	t.Parallel()
	s := newShelf(t, false)
	s.shared, s.client = true, redistest.Cluster(t).Client(t)
	b := s.open()
	for _, account := range []string{"a", "b", "c", "d"} {
		name := invoice
		name.Account = account
		c := claims(t, b, name)
		leaves(t, c)
		c.Keep(created)
		if _, answer, err := begin(s.open(), name, first); answer == nil {
			t.Errorf("account %s: %v", account, err)
		}
	}
}

// A request leaves when so many of Redis's replicas know of it, or half a second later.
func TestWaitsForReplicas(t *testing.T) {
	t.Parallel()
	s := newShelf(t, false)
	watched := redistest.Sentinel(t)
	o := watched.Master.Options()
	o.ContextTimeoutEnabled, o.MaxRetries = true, -1
	client, replica := redis.NewClient(o), watched.Replica.Client(t)
	t.Cleanup(func() { _ = client.Close() })
	b := outcomes.NewRedis(client, lease, outcomes.Config{Sealer: s.sealer, WaitReplicas: 1})
	t.Cleanup(b.Halt)
	const wait = 500 * time.Millisecond
	known := 0
	for i := range 50 {
		name := named(fmt.Sprint(i))
		c := claims(t, b, name)
		began := time.Now()
		leaves(t, c)
		took := time.Since(began)
		switch state := replica.HGet(t.Context(), outcomes.Key(name), "state").Val(); {
		case state == "2":
			known++
		case took < wait: // else the replica was not quick enough
			t.Fatalf("request %d left after %s, and the replica has it in state %q", i, took, state)
		}
		c.Drop()
	}
	if known == 0 {
		t.Error("no request has reached the replica before it left")
	}
	c := claims(t, b, invoice)
	watched.Replica.Stop()
	defer watched.Replica.Cont()
	began := time.Now()
	leaves(t, c)
	if took := time.Since(began); took < wait {
		t.Errorf("it did not wait for a replica that is halted: %s", took)
	}
}
