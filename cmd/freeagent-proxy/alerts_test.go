package main

import (
	"crypto/tls"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/porttest"
	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
)

// Every alert fires while what it speaks of is really so, at real proxies that a real Prometheus watches, and ends when it is
// not so any more. Meanwhile every query of the dashboard finds something to show.
func TestAlerts(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	w.fire(t, "", "Absent")
	var sites sync.WaitGroup
	for _, site := range []func(*testing.T, *watcher){
		redisGoes, notYetAuthorised, pausedByFreeAgent, flooded, troubleUpstream, timeRunsOut, misconfigured,
	} {
		sites.Go(func() { site(t, w) })
	}
	sites.Wait()
	w.clear(t, "", "Absent")
	all := slices.Sorted(maps.Keys(alertRules(t)))
	for what, seen := range map[string]map[string]bool{"fired": w.fired, "cleared": w.cleared} {
		if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, all) {
			t.Errorf("%s: %s; there are %s", what, got, all)
		}
	}
	w.shows(t, readDashboard(t).queries())
}

// Redis goes while a refresh is under way, and comes back.
func redisGoes(t *testing.T, w *watcher) {
	const job = "freeagent-proxy-redis"
	server := redistest.Start(t, redistest.Persistent())
	site := newShared(t, simNoLimits, "redis://"+server.Addr(), noLimits)
	site.authorise(site.sim.Authorize("owner"))
	newTokens := site.bar("/v2/token_endpoint")
	s := newScraped(site)
	w.watch(t, job, s)

	before := site.sim.Stats().Tokens.RefreshRequests
	site.sim.RevokeAccess("owner")
	calling := inBackground(func() { s.call() })
	eventually(t, "a refresh", func() bool { return site.sim.Stats().Tokens.RefreshRequests > before })
	server.Kill()
	newTokens.let()
	calling.Wait()
	s.post("/v2/invoices", "{}") // that it is its turn, Redis cannot say
	alerts := []string{"StoreDown", "LimiterAlone", "GrantUnsaved", "Degraded"}
	w.fire(t, job, alerts...)

	server.Restart()
	w.clear(t, job, alerts...)
}

// Of two installations one has a replica that was authorised.
func notYetAuthorised(t *testing.T, w *watcher) {
	const one, other = "freeagent-proxy-pair", "freeagent-proxy-alone"
	sites := make([]*world, 3)
	for i := range sites {
		sites[i] = newSimulated(t, simNoLimits, noLimits)
	}
	sites[0].authorise(sites[0].sim.Authorize("owner"))
	w.watch(t, one, newScraped(sites[0]), newScraped(sites[1]))
	w.watch(t, other, newScraped(sites[2]))
	w.fire(t, one, "NotReady", "NeedsAuthorisation")
	w.fire(t, other, "NoneReady", "NeedsAuthorisation")
	for _, site := range sites[1:] {
		site.authorise(site.sim.Authorize("owner"))
	}
	w.clear(t, one, "NotReady", "NeedsAuthorisation")
	w.clear(t, other, "NoneReady", "NeedsAuthorisation")
}

// FreeAgent answers 429 although we counted, and wants to be left alone.
func pausedByFreeAgent(t *testing.T, w *watcher) {
	const job = "freeagent-proxy-paused"
	site := newSimulated(t, simNoLimits, noLimits)
	site.authorise(site.sim.Authorize("owner"))
	s := newScraped(site)
	w.watch(t, job, s)
	fault(t, site.sim, simulator.Fault{Match: simulator.Match{Times: 1}, Kind: simulator.FaultRateLimited, RetryAfter: 10})
	calling := inBackground(func() { s.call() })
	w.fire(t, job, "BudgetPaused", "BudgetShrunk")
	calling.Wait()
	w.clear(t, job, "BudgetPaused", "BudgetShrunk")
}

// Programs want more than there is.
func flooded(t *testing.T, w *watcher) {
	const job = "freeagent-proxy-flooded"
	site := newSimulated(t, simNoLimits, `limits: {api: [{requests: 5, per: 1s}], guard: 0s, max_wait: 2s}
`)
	site.authorise(site.sim.Authorize("owner"))
	s := newScraped(site)
	w.watch(t, job, s)
	stop := again(13, func() { s.call() })
	defer stop()
	w.fire(t, job, "QueueSlow", "OverBudget")
	stop()
	w.clear(t, job, "QueueSlow", "OverBudget")
}

// FreeAgent fails, in several ways, and so does our disk.
func troubleUpstream(t *testing.T, w *watcher) {
	const job = "freeagent-proxy-trouble"
	site := newSimulated(t, simNoLimits, noLimits)
	site.authorise(site.sim.Authorize("owner"))
	temporary := filepath.Join(site.folder, "tmp")
	site.env = append(site.env, "TMPDIR="+temporary) // which is missing
	s := newScraped(site)
	w.watch(t, job, s)
	fault(t, site.sim, simulator.Fault{Match: simulator.Match{PathPrefix: "/v2/company"}, Kind: simulator.FaultStatus, Status: 500})
	fault(t, site.sim, simulator.Fault{Match: simulator.Match{Method: "POST"}, Kind: simulator.FaultDrop, After: true})
	stop := again(1, func() {
		s.call()
		s.post("/v2/contacts", "{}")
		s.post("/v2/attachments", strings.Repeat(" ", 2<<20)) // more than stays in memory
	})
	defer stop()
	alerts := []string{"UpstreamErrors", "UnknownWrites", "InternalErrors"}
	w.fire(t, job, alerts...)
	site.sim.ClearFaults()
	stop()
	if err := os.Mkdir(temporary, 0o700); err != nil {
		t.Error(err)
	}
	s.call()
	s.post("/v2/attachments", strings.Repeat(" ", 2<<20))
	w.clear(t, job, alerts...)

	fault(t, site.sim, simulator.Fault{Match: simulator.Match{PathPrefix: "/v2/token_endpoint"}, Kind: simulator.FaultStatus})
	site.sim.RevokeAccess("owner")
	calling := inBackground(func() { s.call() })
	w.fire(t, job, "TokenTrouble")
	site.sim.ClearFaults()
	calling.Wait()
	eventually(t, "a new token", func() bool { return s.call() == http.StatusOK })
	w.clear(t, job, "TokenTrouble")
}

// Certificate and refresh token come to their ends, a program takes all connections, and at last the process ends, too.
func timeRunsOut(t *testing.T, w *watcher) {
	const job = "freeagent-proxy-old"
	site := newSecured(t)
	site.restrict(simulator.Duration(24 * time.Hour))
	_, port, _ := net.SplitHostPort(porttest.Address(t))
	p, s := site.watched(port)
	w.watch(t, job, s)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	w.fire(t, job, "CertificateEnds", "RefreshTokenEnds", "ConnectionsFull")
	conn.Close()
	site.show("second", 90*24*time.Hour)
	site.restrict(simulator.Duration(90 * 24 * time.Hour))
	w.clear(t, job, "CertificateEnds", "RefreshTokenEnds", "ConnectionsFull")

	p.kill()
	w.fire(t, job, "Down")
	site.watched(port)
	w.clear(t, job, "Down")
	if resp, err := site.ask(strings.TrimPrefix(s.url, "http://"), &tls.Config{}); err == nil {
		t.Errorf("the former listener answers %d", resp.StatusCode)
	}
}

// The configuration that is written cannot be used.
func misconfigured(t *testing.T, w *watcher) {
	const job = "freeagent-proxy-misconfigured"
	site := newReloaded(t, simNoLimits, noLimits)
	w.watch(t, job, site.scraped())
	site.become(noLimits+"log: {level: loud}\n", "the configuration cannot be used")
	w.fire(t, job, "ReloadRefused")
	site.become(noLimits, "configuration reloaded")
	w.clear(t, job, "ReloadRefused")
}

// restrict authorises the account for so long.
func (s *secured) restrict(life simulator.Duration) {
	s.t.Helper()
	cfg := s.sim.Config()
	cfg.RefreshTokenLifetime = life
	if err := s.sim.Configure(cfg); err != nil {
		s.t.Error(err)
	}
	s.authorise(s.sim.Authorize("owner"))
}

// watched starts a proxy that takes one connection, with its operator's listener at a port.
func (s *secured) watched(port string) (*process, *scraped) {
	s.t.Helper()
	s.configure(s.simURL, "listen: 127.0.0.1:0\nmax_connections: 1\nstore: {file: store}\n"+tlsSettings+noLimits)
	path := filepath.Join(s.folder, "config.yaml")
	text := strings.Replace(readText(s.t, path), "admin: {listen: 127.0.0.1:0}", "admin: {listen: 127.0.0.1:"+port+"}", 1)
	s.write("config.yaml", []byte(text))
	p, url := s.serve()
	addresses, err := p.listening()
	if err != nil {
		s.t.Fatal(err)
	}
	return p, &scraped{s.t, s.client(false), url, "http://" + addresses[len(addresses)-1]}
}

// again lets so many programs do something, again and again.
func again(programs int, do func()) (stop func()) {
	enough := make(chan struct{})
	var running sync.WaitGroup
	for range programs {
		running.Go(func() {
			for {
				do()
				select {
				case <-enough:
					return
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
	return sync.OnceFunc(func() {
		close(enough)
		running.Wait()
	})
}

// post sends a program's write, whatever becomes of it.
func (s *scraped) post(path, body string) {
	s.t.Helper()
	resp, err := s.client.Post(s.url+path, "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Error(err)
		return
	}
	resp.Body.Close()
}

func fault(t *testing.T, sim *simulator.Simulator, f simulator.Fault) {
	t.Helper()
	if _, err := sim.Fault(f); err != nil {
		t.Error(err)
	}
}

func inBackground(do func()) *sync.WaitGroup {
	var running sync.WaitGroup
	running.Go(do)
	return &running
}
