package tokens_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/tokens"
)

// aged is a grant whose access token is rejected, and old enough to be renewed for that.
func aged(refreshToken string) tokens.Grant {
	at := time.Now().Add(-20 * time.Minute)
	return tokens.Grant{
		Account: account, AccessToken: "revoked", RefreshToken: refreshToken,
		ObtainedAt: at, ExpiresAt: at.Add(time.Hour), RefreshObtained: at, Version: at.UnixMilli(),
	}
}

// replica is a Manager on its own connection to Redis, which it watches.
type replica struct {
	*rig
	redis *tokens.Redis
}

func newReplica(t *testing.T, agent *freeAgent, endpoint *tokens.Endpoint, server *redistest.Server, change ...func(*tokens.RedisConfig)) *replica {
	t.Helper()
	return newReplicaOn(t, agent, endpoint, client(t, server), change...)
}

func newReplicaOn(t *testing.T, agent *freeAgent, endpoint *tokens.Endpoint, c redis.UniversalClient, change ...func(*tokens.RedisConfig)) *replica {
	t.Helper()
	store := openRedis(t, c, change...)
	r := &replica{rig: newRigOn(t, agent, store, endpoint), redis: store}
	watch(t, store, r.Changed)
	return r
}

// renew renews the revoked token, and returns the new one.
func (r *replica) renew() tokens.Token {
	r.t.Helper()
	return r.renewOld(r.token())
}

func (r *replica) renewOld(old tokens.Token) tokens.Token {
	r.t.Helper()
	got, err := r.renewWithin(20*time.Second, "/", old)
	if err != nil || got == old {
		r.t.Errorf("Renew: %v, %v", got, err)
	}
	return got
}

// findsStoreTrouble expects that the store gives no leave to renew a token.
func (r *replica) findsStoreTrouble(old tokens.Token) {
	r.t.Helper()
	eventually(r.t, "found that the store is in trouble", func() bool {
		got, err := r.renewWithin(time.Second, "/", old)
		if err == nil {
			r.t.Errorf("Renew: %v", got)
		}
		return err == nil || errors.Is(err, tokens.ErrStore)
	})
}

// eventually expects something to become true soon.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s in 10 s", what)
		}
	}
}

// stored is what is stored, whatever a Manager thinks.
func stored(t *testing.T, s tokens.Store) tokens.Grant {
	t.Helper()
	g, err := s.Load(t.Context(), account)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return g
}

// Three replicas, twenty clients each, one revoked token: one refresh, though it takes longer than the lock lives.
func TestReplicasRefreshOnce(t *testing.T) {
	t.Parallel()
	agent := newFreeAgent()
	agent.ever(late(time.Second, agent.refresh))
	endpoint, server := agent.listen(t, 10*time.Second), redistest.Start(t)
	var replicas []*replica
	for range 3 {
		replicas = append(replicas, newReplica(t, agent, endpoint, server, func(c *tokens.RedisConfig) { c.Lease = 300 * time.Millisecond }))
	}
	save(t, replicas[0].redis, aged(agent.grant()), 0)
	var wg sync.WaitGroup
	tokensGot := make(chan tokens.Token, 60)
	var old tokens.Token
	for _, r := range replicas {
		old = r.token()
	}
	for _, r := range replicas {
		for range 20 {
			wg.Go(func() { tokensGot <- r.renewOld(old) })
		}
	}
	wg.Wait()
	want := <-tokensGot
	for range 59 {
		if got := <-tokensGot; got != want {
			t.Fatal("two tokens")
		}
	}
	replicas[0].refreshes(1)
}

// Who waits for the lock gets the token as soon as it is stored, not when the lock is free.
func TestLosersWaitForTheTokenNotForTheLock(t *testing.T) {
	t.Parallel()
	agent := newFreeAgent()
	agent.ever(late(300*time.Millisecond, agent.refresh))
	endpoint, server := agent.listen(t, 10*time.Second), redistest.Start(t)
	winner, loser := newReplica(t, agent, endpoint, server), newReplica(t, agent, endpoint, server)
	save(t, winner.redis, aged(agent.grant()), 0)
	winner.token()
	old := loser.token()
	free := make(chan struct{})
	winner.store.then("save", func() error { <-free; return nil }) // it keeps the lock
	var wg sync.WaitGroup
	wg.Go(func() { winner.renew() })
	eventually(t, "refreshing", func() bool { return agent.count() == 1 })
	loser.renewOld(old)
	close(free)
	wg.Wait()
	loser.refreshes(1)
}

// A grant that is removed while it is refreshed stays removed, on all replicas, also when one still had it.
func TestRemovedOnAllReplicas(t *testing.T) {
	t.Parallel()
	agent := newFreeAgent()
	endpoint, server := agent.listen(t, 10*time.Second), redistest.Start(t)
	a, b := newReplica(t, agent, endpoint, server), newReplica(t, agent, endpoint, server)
	save(t, a.redis, aged(agent.grant()), 0)
	a.token()
	b.token()
	removed := make(chan struct{})
	agent.ever(when(removed, agent.refresh))
	go func() { _, _ = a.renewWithin(10*time.Second, "/", a.token()) }()
	eventually(t, "refreshing", func() bool { return agent.count() == 1 })
	if err := b.Remove(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	eventually(t, "removed from who refreshes it", func() bool { _, ok := a.TokenNow(account); return !ok })
	close(removed)
	eventually(t, "dropped", func() bool { return a.events.count(tokens.EventSuperseded) == 1 })
	for _, r := range []*replica{a, b} {
		eventually(t, "removed", func() bool { _, ok := r.TokenNow(account); return !ok })
		if _, err := r.tokenWithin(time.Second); !errors.Is(err, tokens.ErrNoGrant) {
			t.Errorf("Token: %v, want ErrNoGrant", err)
		}
	}
	if _, err := a.redis.Load(t.Context(), account); !errors.Is(err, tokens.ErrNoGrant) || errors.Is(err, tokens.ErrForgotten) {
		t.Errorf("Load: %v, want ErrNoGrant", err)
	}
	// It can be authorised again, by a process whose clock is behind.
	old := aged(agent.grant())
	if err := b.Put(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	eventually(t, "authorised again", func() bool { _, ok := a.TokenNow(account); return ok })
}

// What Redis loses comes back from those who hold it: after FLUSHALL, a restart without data, a restart with old data.
func TestWhatRedisLosesComesBack(t *testing.T) {
	t.Parallel()
	agent := newFreeAgent()
	server := redistest.Start(t)
	a := newReplica(t, agent, agent.listen(t, 10*time.Second), server)
	save(t, a.redis, aged(agent.grant()), 0)
	a.token()
	admin := server.Client(t)
	if err := admin.Save(t.Context()).Err(); err != nil { // the grant before
		t.Fatal(err)
	}
	a.renew()
	newest := a.stored()
	look := openRedis(t, client(t, server))
	for _, lose := range []struct {
		name string
		how  func()
	}{
		{"FLUSHALL", func() { flushAll(t, server) }},
		{"an old snapshot", server.Restart},
		{"a restart without data", server.RestartEmpty},
	} {
		lose.how()
		eventually(t, "back after "+lose.name, func() bool {
			g, err := look.Load(t.Context(), account)
			return err == nil && g.Version == newest.Version && g.RefreshToken == newest.RefreshToken
		})
	}
	a.refreshes(1)
	a.state(tokens.StateOK)
}

// While Redis is away good tokens serve, and nothing is refreshed; then it goes on.
func TestNoRefreshWithoutRedis(t *testing.T) {
	t.Parallel()
	agent := newFreeAgent()
	server := redistest.Start(t)
	a := newReplica(t, agent, agent.listen(t, 10*time.Second), server)
	save(t, a.redis, aged(agent.grant()), 0)
	old := a.token()
	server.Kill()
	if _, err := a.renewWithin(time.Second, "/", old); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("Renew without Redis: %v", err)
	}
	eventually(t, "noticed", func() bool { return a.Status(account).State == tokens.StateTrouble })
	if _, ok := a.TokenNow(account); !ok {
		t.Error("the good token does not serve")
	}
	a.refreshes(0)
	server.Restart()
	if got, err := a.renewWithin(20*time.Second, "/", old); err != nil || got == old {
		t.Errorf("Renew when Redis is back, empty: %v, %v", got, err)
	}
	a.refreshes(1)
	if g := stored(t, a.redis); g.AccessToken == "revoked" {
		t.Error("not stored")
	}
}

// A pair that comes while Redis is away serves from memory, and is stored when Redis is back, as much as it lost.
func TestRedisDiesDuringARefresh(t *testing.T) {
	t.Parallel()
	agent := newFreeAgent()
	server := redistest.Start(t)
	a := newReplica(t, agent, agent.listen(t, 10*time.Second), server)
	save(t, a.redis, aged(agent.grant()), 0)
	a.token()
	agent.trouble = sync.OnceFunc(server.Kill)
	got := a.renew()
	eventually(t, "found that it cannot be stored", func() bool { return a.events.count(tokens.EventUnsaved) == 1 })
	server.Restart()
	eventually(t, "stored", func() bool {
		g, err := a.redis.Load(t.Context(), account)
		return err == nil && "Bearer "+g.AccessToken == got.Authorization()
	})
	a.refreshes(1)
}

// A request for which leave was given does not leave later: the connection took longer than that. The refresh token
// is not spent, and the next try spends it.
func TestNothingLeavesTooLate(t *testing.T) {
	t.Parallel()
	agent := newFreeAgent()
	web := httptest.NewServer(agent)
	defer web.Close()
	base, _ := url.Parse(web.URL)
	var dials atomic.Int64
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials.Add(1) == 1 {
				time.Sleep(1500 * time.Millisecond) // leave lasts a second
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	endpoint := tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: base, Timeout: 6 * time.Second, Client: &http.Client{Transport: transport}})
	a := newReplica(t, agent, endpoint, redistest.Start(t), func(c *tokens.RedisConfig) { c.Lease, c.Call = 3*time.Second, 6*time.Second })
	save(t, a.redis, aged(agent.grant()), 0)
	a.renew()
	a.refreshes(1)
	a.events.expect(t, tokens.EventTrouble, tokens.EventRefreshed)
	if dials.Load() != 2 {
		t.Errorf("%d connections, want 2", dials.Load())
	}
}
