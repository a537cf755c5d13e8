package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/internal/admin"
	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
)

// fleet is several proxies that share a Redis, and programs that call all of them.
type fleet struct {
	*world
	client  *http.Client
	mu      sync.Mutex
	members []*replica
	failed  map[string]int // answers other than 200
	good    atomic.Int64
}

// replica is one of them.
type replica struct {
	*process
	url   string
	gone  atomic.Bool
	pulse *pulse // nil: nobody looks
}

func newFleet(t *testing.T, size int, switches simulator.Config, redisURL, settings string) *fleet {
	t.Helper()
	w := newShared(t, switches, redisURL, settings)
	w.authorise(w.sim.Authorize("owner"))
	f := &fleet{world: w, client: w.client(false), failed: map[string]int{}}
	for range size {
		f.join()
	}
	return f
}

// join starts another replica.
func (f *fleet) join() *replica {
	f.t.Helper()
	p, url := f.serve()
	r := &replica{process: p, url: url}
	f.mu.Lock()
	f.members = append(f.members, r)
	f.mu.Unlock()
	return r
}

// leave kills a replica.
func (r *replica) leave() {
	r.gone.Store(true)
	r.kill()
}

// watch looks whether a replica is prompt, until ctx ends or it goes.
func (f *fleet) watch(ctx context.Context, r *replica) {
	ctx, stop := context.WithCancel(ctx)
	r.pulse = newPulse(ctx, f.t, f.client, r.url)
	go func() {
		<-r.ended
		stop()
	}()
}

// pulses are those of all that were watched.
func (f *fleet) pulses() (all []*pulse) {
	for _, r := range f.members {
		if r.pulse != nil {
			all = append(all, r.pulse)
		}
	}
	return all
}

// lost is for how long, between two times, one of them was not prompt at most.
func (f *fleet) lost(from, to time.Time) (lost time.Duration) {
	for _, p := range f.pulses() {
		lost = max(lost, p.lost(from, to))
	}
	return lost
}

// lostRedis reports whether a replica has lost Redis. If that was not meant to be, the machine was too busy for it to answer in time.
func (f *fleet) lostRedis() bool {
	return slices.ContainsFunc(f.members, func(r *replica) bool { return strings.Contains(r.stderr.String(), "Redis cannot be reached") })
}

// get asks a replica for the company.
func (f *fleet) get(r *replica) (status int, body string, err error) {
	resp, err := f.client.Get(r.url + "/v2/company")
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// load lets so many programs call a replica until ctx ends or it goes.
func (f *fleet) load(ctx context.Context, running *sync.WaitGroup, r *replica, programs int) {
	for range programs {
		running.Go(func() {
			for ctx.Err() == nil && !r.gone.Load() {
				status, body, err := f.get(r)
				switch {
				case r.gone.Load():
				case err == nil && status == http.StatusOK:
					f.good.Add(1)
				default:
					f.mu.Lock()
					f.failed[fmt.Sprint(status, " ", body, err)]++
					f.mu.Unlock()
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
}

// mostly expects that 99.9 % of the requests were answered as if nothing had happened.
func (f *fleet) mostly() {
	f.t.Helper()
	failed := 0
	for what, n := range f.failed {
		f.t.Logf("%d times: %s", n, what)
		failed += n
	}
	if good := int(f.good.Load()); failed*1000 > good {
		f.t.Errorf("%d of %d requests were not answered as if nothing had happened", failed, failed+good)
	}
}

// within expects that no window held more than FreeAgent allows.
func (f *fleet) within() {
	f.t.Helper()
	for _, w := range f.sim.Stats().Users[0].Windows {
		f.t.Logf("most in %s: %d, %d on the clock, of %d", time.Duration(w.Per), w.MaxSliding, w.MaxAligned, w.Requests)
		if w.MaxSliding > w.Requests || w.MaxAligned > w.Requests {
			f.t.Errorf("up to %d requests in %s, %d on the clock; want at most %d", w.MaxSliding, time.Duration(w.Per), w.MaxAligned, w.Requests)
		}
	}
}

// 600 requests to three replicas meet a revoked token: one refresh, and no client sees a 401.
func TestReplicasRefreshOnce(t *testing.T) {
	server := redistest.Start(t)
	f := newFleet(t, 3, simNoLimits, "redis://"+server.Addr(), noLimits)
	f.client.Timeout = 10 * patience // 600 at once take a busy machine long
	for round := range 2 {
		if round > 0 {
			time.Sleep(6 * time.Second) // a token is renewed when it is 5 s old
		}
		for _, r := range f.members {
			if status, body, err := f.get(r); status != http.StatusOK {
				t.Fatal(status, body, err)
			}
		}
		before := f.sim.Stats()
		f.sim.RevokeAccess("owner")
		var asking sync.WaitGroup
		for n := range 600 {
			asking.Go(func() {
				if status, body, err := f.get(f.members[n%3]); status != http.StatusOK {
					t.Errorf("request %d: status %d: %s %v", n, status, body, err)
				}
			})
		}
		asking.Wait()
		after := f.sim.Stats().Tokens
		if n := after.RefreshRequests - before.Tokens.RefreshRequests; n != 1 {
			t.Errorf("%d refreshes, want 1", n)
		}
		if after.SpentTokens != 0 || after.Refused != 0 {
			t.Errorf("%d spent refresh tokens were sent, %d refused; want none", after.SpentTokens, after.Refused)
		}
	}
}

// What is a limit for FreeAgent, and what three replicas make of it: 400 requests in each cycle.
var sharedWindows = []simulator.Window{
	{Requests: 60, Per: simulator.Duration(3 * time.Second)},
	{Requests: 400, Per: simulator.Duration(30 * time.Second)},
}

const (
	sharedLimits = `limits:
  api: [{requests: 60, per: 3s}, {requests: 400, per: 30s}]
  refresh: [{requests: 1000, per: 1s}]
  guard: 1s
  max_wait: 1m
`
	sharedCycle = 30*time.Second + time.Second
)

// Replicas come and go under saturation: no window is exceeded, and next to nothing is wasted.
func TestReplicasSaturate(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	f := newFleet(t, 3, simulator.Config{Enforcement: simulator.EnforceOff, UserLimits: sharedWindows}, "redis://"+server.Addr(), sharedLimits)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for _, r := range f.members {
		f.watch(ctx, r)
		f.load(ctx, &running, r, 20)
	}
	for i := range 4 {
		time.Sleep(8 * time.Second)
		f.members[i].leave()
		r := f.join()
		f.watch(ctx, r)
		f.load(ctx, &running, r, 20)
	}
	const cycles = 2
	eventuallyWithin(t, cycles*sharedCycle, "two cycles of requests", func() bool { return len(f.arrivals()) > cycles*400 })
	stop()
	running.Wait()
	f.within()
	f.mostly()
	used := utilisation(t, f.arrivals(), 400, cycles, sharedCycle, f.pulses()...)
	if used < leastUtilisation && !f.lostRedis() {
		t.Errorf("utilisation %.4f, want at least %.2f", used, leastUtilisation)
	}
}

// eventuallyWithin is eventually, for what takes longer.
func eventuallyWithin(t *testing.T, more time.Duration, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(more + patience); !happened(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: does not come", what)
		}
	}
}

// Redis dies under load, in several ways: requests are answered as if nothing had happened, within the limits, and a
// token that ended meanwhile is renewed once.
func TestReplicasWithoutRedis(t *testing.T) {
	t.Parallel()
	outages := map[string]func(*testing.T) (url string, outage func()){
		"killed and started empty": func(t *testing.T) (string, func()) {
			server := redistest.Start(t)
			return "redis://" + server.Addr(), func() {
				server.Kill()
				time.Sleep(5 * time.Second)
				server.RestartEmpty()
			}
		},
		"hung": func(t *testing.T) (string, func()) {
			server := redistest.Start(t)
			return "redis://" + server.Addr(), func() {
				server.Stop()
				time.Sleep(10 * time.Second)
				server.Cont()
			}
		},
		"failed over": func(t *testing.T) (string, func()) {
			watched := redistest.Sentinel(t)
			return "redis-sentinel://" + watched.Addrs()[0] + "/" + redistest.MasterName, watched.Failover
		},
	}
	var all sync.WaitGroup // not t.Parallel, which runs only as many at a time as there are processors
	for name, prepare := range outages {
		all.Go(func() {
			t.Run(name, func(t *testing.T) {
				url, outage := prepare(t)
				f := newFleet(t, 3, simulator.Config{Enforcement: simulator.EnforceOff, UserLimits: sharedWindows}, url, sharedLimits)
				ctx, stop := context.WithCancel(context.Background())
				var running sync.WaitGroup
				defer running.Wait()
				defer stop()
				for _, r := range f.members {
					f.load(ctx, &running, r, 10)
				}
				f.together()
				f.more(61) // the second window has begun
				before := f.sim.Stats().Tokens.RefreshRequests
				outage()
				f.together()
				f.sim.RevokeAccess("owner")
				eventually(t, "a refresh", func() bool { return f.sim.Stats().Tokens.RefreshRequests > before })
				f.more(2 * 61) // another one would come by now
				stop()
				running.Wait()
				f.within()
				f.mostly()
				tokens := f.sim.Stats().Tokens
				if n := tokens.RefreshRequests - before; n != 1 || tokens.SpentTokens != 0 {
					t.Errorf("%d refreshes, %d of spent tokens; want 1 and none", n, tokens.SpentTokens)
				}
			})
		})
	}
	all.Wait()
}

// together waits until all replicas count in Redis, and know of one another.
func (f *fleet) together() {
	f.t.Helper()
	for i, r := range f.members {
		page := operatorURL(f.t, r.process)
		eventually(f.t, fmt.Sprintf("replica %d among the others", i), func() bool {
			_, body, _ := get(page + "/api/status")
			var now admin.Status
			return json.Unmarshal(body, &now) == nil && now.Store == admin.Store{Kind: "redis", Up: true, State: "linked", Replicas: len(f.members)}
		})
	}
}

// more waits until so many more requests have reached FreeAgent.
func (f *fleet) more(n int) {
	f.t.Helper()
	before := len(f.arrivals())
	eventually(f.t, "more requests", func() bool { return len(f.arrivals()) >= before+n })
}
