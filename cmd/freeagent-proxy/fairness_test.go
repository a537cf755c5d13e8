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
	"testing"
	"time"

	"freeagent-proxy/internal/admin"
	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
)

// The minute, ten times as fast, with the guard that the product has by default: it is for what delays a request between our
// counting it and FreeAgent's, as when two hundred begin at once on a busy machine.
const (
	fairRequests = 60
	fairWindow   = 6 * time.Second
	fairGuard    = time.Second
	fairClients  = 2
	fairFlood    = 200
	politeAsks   = 21 // three windows
)

// One client floods with 200 connections, and another asks once a second: that one waits less than a slot of the pace for each
// active client, at one process and at three that share a Redis. A share leaves what it says to others.
//
// Slots are told by what FreeAgent sees and not by a clock: a machine that lets a process wait lets the flood's requests wait
// as well.
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
	var running, flooded sync.WaitGroup // not t.Parallel, which runs only as many at a time as there are processors
	flooded.Add(len(tests))
	for name, test := range tests {
		running.Go(func() {
			ready := sync.OnceFunc(flooded.Done)
			defer ready() // also if it is not run, or fails: the others would wait for ever
			t.Run(name, func(t *testing.T) {
				f := newFairness(t, test.replicas, test.settings)
				ctx, stop := context.WithTimeout(t.Context(), 4*politeAsks*time.Second) // more than it takes if nobody waits long
				var flood sync.WaitGroup
				defer flood.Wait()
				defer stop()
				began := time.Now()
				for i := range fairFlood {
					flood.Go(func() {
						for ctx.Err() == nil {
							f.ask(ctx, i, "flood")
						}
					})
				}
				f.awaitFlood()
				ready()
				flooded.Wait() // what starts beside us disturbs nobody
				f.politely(ctx)
				ended := time.Now()
				stop()
				flood.Wait()
				f.checkWaits()
				f.checkFlood(test.most, began, ended)
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

// awaitFlood waits until the flood stands in the queues.
func (f *fairness) awaitFlood() {
	f.t.Helper()
	var pages []string
	for _, proxy := range f.proxies {
		pages = append(pages, operatorURL(f.t, proxy))
	}
	eventually(f.t, "the flood in the queues", func() bool {
		waiting := 0
		for _, page := range pages {
			_, body, _ := get(page + "/api/status")
			var now admin.Status
			if json.Unmarshal(body, &now) == nil && len(now.Accounts) == 1 {
				waiting += now.Accounts[0].Queue
			}
		}
		return waiting >= fairFlood*9/10 // of the others some are on their way
	})
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

// seenOf is a client's requests among those that FreeAgent saw.
func seenOf(arrivals []simulator.Request, client string) (of []simulator.Request) {
	for _, r := range arrivals {
		if strings.HasSuffix(r.Target, "asked_by="+client) {
			of = append(of, r)
		}
	}
	return of
}

// checkWaits looks at how many of the flood's requests FreeAgent saw while the proxy let one of the polite one wait.
func (f *fairness) checkWaits() {
	f.t.Helper()
	// A line is written after its answer.
	eventually(f.t, "all that the polite one asked is answered and in the log", func() bool { return len(f.waits("polite")) == politeAsks })
	polite, flood := f.waits("polite"), f.waits("flood")
	var slots []int
	all := f.arrivals()
	for i, r := range seenOf(all, "polite") {
		slots = append(slots, 0)
		for _, other := range seenOf(all, "flood") {
			if wait := r.Time.Sub(other.Time); 0 < wait && wait < polite[i] {
				slots[i]++
			}
		}
	}
	slices.Sort(slots)
	if p95 := slots[len(slots)-1-len(slots)/20]; p95 >= fairClients {
		f.t.Errorf("the polite one waits for %d slots in one of twenty cases, want less than %d: %v, %v", p95, fairClients, slots, polite)
	}
	if longest := slices.Max(flood); longest < politeAsks*time.Second/4 {
		f.t.Errorf("the flood waits %v at most: it is none", longest)
	}
}

// waits are how long the proxy let a client's requests wait, in the order of their answers at each process.
func (f *fairness) waits(client string) (all []time.Duration) {
	for _, proxy := range f.proxies {
		for _, l := range proxy.accessLog(client) {
			all = append(all, time.Duration(l.WaitedMs)*time.Millisecond)
		}
	}
	return all
}

// checkFlood counts at FreeAgent: no window held more of the flood than it may have; nor did all the time hold much less.
func (f *fairness) checkFlood(most int, began, ended time.Time) {
	f.t.Helper()
	if n := f.sim.Stats().RateLimited; n != 0 {
		f.t.Errorf("FreeAgent answered 429 %d times", n)
	}
	flood := seenOf(f.arrivals(), "flood")
	for i := most; i < len(flood); i++ {
		if span := flood[i].Time.Sub(flood[i-most].Time); span < fairWindow {
			f.t.Errorf("FreeAgent saw %d requests of the flood in %v, want at most %d in %v", most+1, span, most, fairWindow)
		}
	}
	windows, had := int(ended.Sub(began)/(fairWindow+fairGuard)), 0
	for _, r := range flood {
		if r.Time.After(began) && r.Time.Before(ended) {
			had++
		}
	}
	whole := min(windows*most, windows*fairRequests-politeAsks) // the rest is the polite one's
	if had < whole*9/10 {
		f.t.Errorf("the flood had %d requests, want nine tenths of %d at least", had, whole)
	}
}
