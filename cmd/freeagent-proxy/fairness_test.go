package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
)

// The minute, ten times as fast: one request in each 100ms. The guard is for what delays a request between our counting it and
// FreeAgent's, when two hundred begin at once on a busy machine.
const (
	fairRequests = 60
	fairWindow   = 6 * time.Second
	fairGuard    = 600 * time.Millisecond
	fairSlot     = fairWindow / fairRequests
	fairClients  = 2
	politeAsks   = 20
)

// One client floods with 200 connections, and another asks once a second: that one waits less than a slot of the pace for each
// active client, at one process and at three that share a Redis. A share leaves what it says to others.
func TestFloodAndPolite(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		replicas int
		settings string
		most     int // of the flood's requests in a window
	}{
		"no share":       {1, "", fairRequests},
		"share 0.8":      {1, ", share: 0.8", fairRequests * 8 / 10},
		"three replicas": {3, "", fairRequests},
	}
	var running sync.WaitGroup // not t.Parallel, which runs only as many at a time as there are processors
	for name, test := range tests {
		running.Go(func() {
			t.Run(name, func(t *testing.T) {
				f := newFairness(t, test.replicas, test.settings)
				ctx, stop := context.WithTimeout(t.Context(), 2*politeAsks*time.Second) // more than it takes if nobody waits long
				var flood sync.WaitGroup
				defer flood.Wait()
				defer stop()
				for i := range 200 {
					flood.Go(func() {
						for ctx.Err() == nil {
							f.ask(ctx, i, "flood")
						}
					})
				}
				f.politely(ctx)
				stop()
				flood.Wait()
				f.checkWaits()
				f.checkFlood(test.most)
			})
		})
	}
	running.Wait()
}

// fairness is one proxy or several, with two clients, whose resources are their names.
type fairness struct {
	*world
	client  *http.Client
	proxies []*process
	urls    []string
}

func newFairness(t *testing.T, replicas int, settings string) *fairness {
	switches := simulator.Config{
		Enforcement: simulator.EnforceSliding,
		UserLimits:  []simulator.Window{{Requests: fairRequests, Per: simulator.Duration(fairWindow)}},
	}
	clients := fmt.Sprintf(`limits: {api: [{requests: %d, per: %s}], guard: %s, max_wait: 1m}
clients:
  flood: {key_sha256: %s%s}
  polite: {key_sha256: %s}
`, fairRequests, fairWindow, fairGuard, hexDigest("flood"), settings, hexDigest("polite"))
	f := &fairness{}
	if replicas == 1 {
		f.world = newSimulated(t, switches, "")
		f.configure(f.simURL, "listen: 127.0.0.1:0\nstore: {file: store}\n"+clients)
	} else {
		f.world = newShared(t, switches, "redis://"+redistest.Start(t).Addr(), clients)
	}
	f.authorise(f.sim.Authorize("owner"))
	f.client = f.world.client(false)
	for range replicas {
		proxy, url := f.serve()
		f.proxies, f.urls = append(f.proxies, proxy), append(f.urls, url)
	}
	for i := range replicas { // a new replica waits until the others know of it
		f.ask(t.Context(), i, "flood")
	}
	return f
}

// ask makes a client's request, at one of the replicas. It is answered with success unless ctx ends.
func (f *fairness) ask(ctx context.Context, replica int, client string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.urls[replica%len(f.urls)]+"/v2/contacts?asked_by="+client, nil)
	if err != nil {
		f.t.Error(err)
		return
	}
	req.Header.Set("X-Api-Key", client)
	resp, err := f.client.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			f.t.Errorf("%s: %v", client, err)
		}
		return
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); ctx.Err() == nil && (err != nil || resp.StatusCode != http.StatusOK) {
		f.t.Errorf("%s: got %d %s, %v", client, resp.StatusCode, body, err)
	}
}

// politely asks once a second.
func (f *fairness) politely(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for range politeAsks {
		<-tick.C
		f.ask(ctx, 0, "polite")
	}
}

// checkWaits looks at how long the proxy let the polite one wait.
func (f *fairness) checkWaits() {
	f.t.Helper()
	// A line is written after its answer.
	eventually(f.t, "all that the polite one asked is answered and in the log", func() bool { return len(f.waits("polite")) == politeAsks })
	polite, flood := f.waits("polite"), f.waits("flood")
	if p95 := polite[len(polite)*95/100-1]; p95 >= fairClients*fairSlot {
		f.t.Errorf("the polite one waits %v in one of twenty cases, want less than %v: %v", p95, fairClients*fairSlot, polite)
	}
	if longest := flood[len(flood)-1]; longest < politeAsks*time.Second/4 {
		f.t.Errorf("the flood waits %v at most: it is none", longest)
	}
}

// waits are how long the proxy let a client's requests wait, sorted.
func (f *fairness) waits(client string) (all []time.Duration) {
	for _, proxy := range f.proxies {
		for _, l := range proxy.accessLog(client) {
			all = append(all, time.Duration(l.WaitedMs)*time.Millisecond)
		}
	}
	slices.Sort(all)
	return all
}

// checkFlood counts at FreeAgent: no window held more of the flood than it may have, nor much less.
func (f *fairness) checkFlood(most int) {
	f.t.Helper()
	if n := f.sim.Stats().RateLimited; n != 0 {
		f.t.Errorf("FreeAgent answered 429 %d times", n)
	}
	var flood []time.Time
	for _, r := range f.arrivals() {
		if strings.HasSuffix(r.Target, "asked_by=flood") {
			flood = append(flood, r.Time)
		}
	}
	for i := most; i < len(flood); i++ {
		if span := flood[i].Sub(flood[i-most]); span < fairWindow {
			f.t.Errorf("FreeAgent saw %d requests of the flood in %v, want at most %d in %v", most+1, span, most, fairWindow)
		}
	}
	// One a second is the polite one's.
	whole := min(most, fairRequests-int(fairWindow/time.Second)) * int(politeAsks*time.Second/(fairWindow+fairGuard))
	if len(flood) < whole*9/10 {
		f.t.Errorf("the flood had %d requests, want nine tenths of %d at least", len(flood), whole)
	}
}
