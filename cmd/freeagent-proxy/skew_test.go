package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/oauth2"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/tokens"
)

// skewedLife is how long access tokens live here. A token in use is renewed at most a fifth before its end.
const skewedLife = 12 * time.Second

// skewed is replicas whose clocks are wrong.
type skewed struct {
	*fleet
	keyed *http.Client // of a program that does its own OAuth, with a token of the first replica's
}

// Clocks that are wrong by minutes, hours and a day, and that are set while their processes run, are nobody's trouble: each
// access token is renewed once, when it is about to end; none is used after that; no program hears of it; what one replica
// hands out is good at all; and a keyed write is neither sent twice nor given up while its process lives.
func TestWrongClocks(t *testing.T) {
	t.Parallel()
	switches := simNoLimits
	switches.RequestLog = 100_000
	switches.AccessTokenLifetime = simulator.Duration(skewedLife)
	key := mark + "-key"
	settings := fmt.Sprintf("clients: {program: {key_sha256: %s}, others: {cidrs: [127.0.0.1/32], read_only: true}}\n%s", hexDigest(key), noLimits)
	server := redistest.Start(t)
	w := newShared(t, switches, "redis://"+server.Addr(), settings)
	w.skew(7*time.Minute, -11*time.Minute, 3*time.Hour, 0, 25*time.Hour)
	w.env = append(w.env, newClock(t, 24*time.Hour).env()) // of all but those that serve
	w.authorise(w.sim.Authorize("owner"))
	s := &skewed{fleet: &fleet{world: w, client: w.client(false), failed: map[string]int{}}}
	for range 4 {
		s.join()
	}
	s.tell()
	own := refresh(t, ownOAuth(s.members[0].url, "program", key, oauth2.AuthStyleInHeader))
	s.keyed = oauth2.NewClient(context.WithValue(t.Context(), oauth2.HTTPClient, s.client), oauth2.StaticTokenSource(own))

	ctx, stop := context.WithCancel(t.Context())
	var asking, writing sync.WaitGroup
	defer asking.Wait()
	defer stop()
	for _, r := range s.members {
		s.ask(ctx, &asking, r)
	}
	s.write(&writing, s.members[0], s.members[1], s.members[2])
	for i, ahead := range []time.Duration{-24 * time.Hour, 2 * time.Hour, 0, 5 * time.Minute} {
		s.clocks[i].set(ahead)
	}
	s.lose(server.Client(t))
	s.ask(ctx, &asking, s.join()) // instead of the one that was killed
	eventuallyWithin(t, 3*skewedLife, "two refreshes", func() bool { return len(s.refreshed()) > 2 })
	writing.Wait()
	stop()
	asking.Wait()
	s.check()
}

// tell expects each replica to tell the time that its clock says.
func (s *skewed) tell() {
	s.t.Helper()
	for i, ahead := range []time.Duration{7 * time.Minute, -11 * time.Minute, 3 * time.Hour, 0} {
		resp, err := s.client.Get(s.members[i].url + "/") // which is answered by the replica itself
		if err != nil {
			s.t.Fatal(err)
		}
		resp.Body.Close()
		told, err := http.ParseTime(resp.Header.Get("Date"))
		if off := time.Until(told) - ahead; err != nil || off.Abs() > patience {
			s.t.Fatalf("replica %d: Date: %s, %v; want it %s ahead", i, resp.Header.Get("Date"), err, ahead)
		}
	}
}

// ask calls a replica all the time.
func (s *skewed) ask(ctx context.Context, asking *sync.WaitGroup, r *replica) {
	asking.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil && !r.gone.Load(); <-tick.C {
			status, body, err := s.get(r)
			if r.gone.Load() || err == nil && status == http.StatusOK {
				continue
			}
			s.mu.Lock()
			s.failed[fmt.Sprint(status, " ", body, err)]++
			s.mu.Unlock()
		}
	})
}

// write creates under three keys: at once; one that takes longer than a silent replica is believed to live; and one whose
// replica is killed.
func (s *skewed) write(writing *sync.WaitGroup, slow, other, killed *replica) {
	s.t.Helper()
	if got := s.world.create(s.keyed, killed.url, "at-once"); got.status != http.StatusCreated {
		s.t.Errorf("at once: %+v", got)
	}
	if got := s.world.create(s.keyed, other.url, "at-once"); got.status != http.StatusCreated || !got.replayed {
		s.t.Errorf("at once, again: %+v", got)
	}
	send := func(r *replica, key string, f simulator.Fault, acted bool) {
		before := s.sim.Stats().FaultsApplied
		s.fault(f)
		writing.Go(func() {
			if got := s.world.create(s.keyed, r.url, key); acted && got.status != http.StatusCreated {
				s.t.Errorf("%s: %+v", key, got)
			}
		})
		eventually(s.t, key+" at FreeAgent", func() bool { return s.sim.Stats().FaultsApplied > before })
	}
	once := simulator.Match{Method: "POST", Times: 1, PathPrefix: "/v2/contacts"}
	send(slow, "slow", simulator.Fault{Kind: simulator.FaultLatency, Delay: simulator.Duration(17 * time.Second), Match: once}, true)
	send(killed, "killed", simulator.Fault{Kind: simulator.FaultStall, After: true, Match: once}, false)
	killed.leave()
	writing.Go(func() {
		got := s.world.eventually(s.keyed, other.url, "slow")
		if got.status != http.StatusCreated || !got.replayed {
			s.t.Errorf("slow, asked for meanwhile: %+v", got)
		}
	})
	writing.Go(func() {
		got := s.world.eventually(s.keyed, other.url, "killed")
		if got.status != http.StatusConflict || !strings.Contains(got.body, "may have acted") {
			s.t.Errorf("killed, asked for again: %+v", got)
		}
	})
}

// lose lets Redis lose the grant, and waits until a replica has put it back.
func (s *skewed) lose(client *redis.Client) {
	s.t.Helper()
	key := "fap:v1:{" + account + "}:grant"
	if n, err := client.Del(s.t.Context(), key).Result(); n != 1 || err != nil {
		s.t.Fatalf("DEL %s: %d, %v", key, n, err)
	}
	eventually(s.t, "the grant in Redis again", func() bool { return client.HExists(s.t.Context(), key, "sealed").Val() })
}

// refreshed is when refreshes came to FreeAgent.
func (s *skewed) refreshed() (at []time.Time) {
	for _, r := range s.sim.Requests(0) {
		if strings.HasPrefix(r.Target, "/v2/token_endpoint") {
			at = append(at, r.Time)
		}
	}
	return at
}

func (s *skewed) check() {
	for what, n := range s.failed {
		s.t.Errorf("%d times: %s", n, what)
	}
	at := s.refreshed()
	for i := 1; i < len(at); i++ {
		life := at[i].Sub(at[i-1])
		s.t.Logf("the token of refresh %d was renewed after %s", i, life)
		if least := skewedLife*4/5 - time.Second; life < least { // the request for it may have been that long on its way
			s.t.Errorf("the token of refresh %d was renewed after %s, want at least %s", i, life, least)
		}
	}
	stats := s.sim.Stats()
	if stats.Unauthorized != 0 || stats.Tokens.SpentTokens != 0 || stats.Tokens.Refused != 0 {
		s.t.Errorf("FreeAgent answered 401 %d times (%v), got %d spent refresh tokens and refused %d; want none",
			stats.Unauthorized, stats.Authorization, stats.Tokens.SpentTokens, stats.Tokens.Refused)
	}
	s.acts(3)
}

// A command whose clock is ahead numbers what it stores by Redis's all the same: else a later authorisation, given after Redis
// had lost its data, would be taken for older than what a backup has.
func TestVersionsOfCommands(t *testing.T) {
	t.Parallel()
	const behind = 3 * time.Hour
	server := redistest.Start(t, redistest.OwnClock())
	server.SetClock(-behind)
	w := newShared(t, simNoLimits, "redis://"+server.Addr(), noLimits)
	version := func() time.Time {
		t.Helper()
		ms, err := server.Client(t).HGet(t.Context(), "fap:v1:{"+account+"}:grant", "version").Int64()
		if err != nil {
			t.Fatal(err)
		}
		return time.UnixMilli(ms)
	}
	cfg, err := loadConfig(filepath.Join(w.folder, "config.yaml"), w.getenv)
	if err != nil {
		t.Fatal(err)
	}
	if err := putGrant(t.Context(), cfg, tokens.Grant{Account: account, RefreshToken: w.sim.Authorize("owner")}); err != nil {
		t.Fatal(err)
	}
	if off := time.Until(version()) + behind; off.Abs() > patience {
		t.Errorf("authorised: the version is %s ahead of Redis's clock", off)
	}
	server.Client(t).FlushAll(t.Context())
	w.authorise(w.sim.Authorize("owner"))
	if off := time.Until(version()) + behind; off.Abs() > patience {
		t.Errorf("imported: the version is %s ahead of Redis's clock", off)
	}
}
