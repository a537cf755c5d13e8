package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
)

// reloaded is a running proxy whose configuration is changed.
type reloaded struct {
	*world
	proxy  *process
	url    string
	client *http.Client
}

// reloadable are the settings before a test's own: a restart is needed to change any of these.
const reloadable = "listen: 127.0.0.1:0\nstore: {file: store}\n"

// newReloaded starts a proxy with an authorised account.
func newReloaded(t *testing.T, switches simulator.Config, settings string) *reloaded {
	t.Helper()
	w := newSimulated(t, switches, "")
	w.configure(w.simURL, reloadable+settings)
	w.authorise(w.sim.Authorize("owner"))
	r := &reloaded{world: w, client: w.client(false)}
	r.proxy, r.url = w.serve()
	return r
}

// reloadLines are those that reloads leave in the log, whole: the end of what was read so far may be within one.
var reloadLines = regexp.MustCompile(`(?m)^.*"msg":"(configuration reloaded|the configuration cannot be used).*\n`)

// reload sends SIGHUP, and returns the line that comes of it.
func (r *reloaded) reload() string {
	r.t.Helper()
	before := len(r.proxy.stderr.String())
	if err := r.proxy.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
	var line string
	eventually(r.t, "a line about the reload", func() bool {
		line = reloadLines.FindString(r.proxy.stderr.String()[before:])
		return line != ""
	})
	return line
}

// become writes other settings, reloads them, and expects all of what the log's line is to say.
func (r *reloaded) become(settings string, want ...string) {
	r.t.Helper()
	r.configure(r.simURL, reloadable+settings)
	r.says(want...)
}

// says reloads, and expects all of what the log's line is to say.
func (r *reloaded) says(want ...string) {
	r.t.Helper()
	line := r.reload()
	for _, w := range want {
		if !strings.Contains(line, w) {
			r.t.Errorf("the log's line does not say %q: %s", w, line)
		}
	}
}

// scraped is the proxy as one that is asked for its metrics.
func (r *reloaded) scraped() *scraped {
	r.t.Helper()
	addresses, err := r.proxy.listening()
	if err != nil {
		r.t.Fatal(err)
	}
	return &scraped{r.t, r.client, r.url, "http://" + addresses[len(addresses)-1]}
}

// gets expects a status.
func (r *reloaded) gets(want int, path string, headers ...string) {
	r.t.Helper()
	if status, body := call(r.t, r.client, http.MethodGet, r.url+path, headers...); status != want {
		r.t.Errorf("%s: %d %s, want %d", path, status, body, want)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// No request is lost by reloads under load, and each meets one configuration as a whole: of two keys that take turns, and of which each
// comes with another policy, one is good at any time.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	settings := func(key, methods string) string {
		return fmt.Sprintf("clients: {billing: {key_sha256: %s, methods: [%s]}, steady: {key_sha256: %s, max_wait: 1m}}\n%s",
			hexDigest(mark+key), methods, hexDigest(mark+"steady"), "limits: {api: [{requests: 20, per: 100ms}], guard: 0s, max_wait: 1m}\n")
	}
	one, other := settings("one", "GET, POST"), settings("other", "GET")
	r := newReloaded(t, simNoLimits, one)
	var ended atomic.Bool
	var steady, one200, other200 atomic.Int64
	var running sync.WaitGroup
	defer running.Wait()
	defer ended.Store(true)
	ask := func(key string, judge func(status int, body string)) {
		client := r.world.client(false)
		running.Go(func() {
			for !ended.Load() {
				req, _ := http.NewRequest(http.MethodGet, r.url+"/v2/company", nil)
				req.Header.Set("X-Api-Key", mark+key)
				resp, err := client.Do(req)
				if err != nil {
					t.Errorf("a request was lost: %v", err)
					return
				}
				resp.Body.Close()
				time.Sleep(5 * time.Millisecond) // the log is to stay readable
				judge(resp.StatusCode, resp.Header.Get("Proxy-Status"))
			}
		})
	}
	for range 8 {
		ask("steady", func(status int, why string) {
			steady.Add(1)
			if status != http.StatusOK {
				t.Errorf("a steady client got %d %s", status, why)
			}
		})
	}
	for key, good := range map[string]*atomic.Int64{"one": &one200, "other": &other200} {
		ask(key, func(status int, why string) {
			switch status {
			case http.StatusOK:
				good.Add(1)
			case http.StatusUnauthorized:
			default:
				t.Errorf("%d %s", status, why)
			}
		})
	}
	for range 5 {
		r.become(other, "client billing: key_sha256, methods")
		before := other200.Load()
		eventually(t, "the other key", func() bool { return other200.Load() > before })
		r.become(one, "client billing: key_sha256, methods")
		before = one200.Load()
		eventually(t, "the one key", func() bool { return one200.Load() > before })
	}
	eventually(t, "some hundred requests", func() bool { return steady.Load() > 300 })
}

// One connection meets the new configuration with its next request: another policy, and no client any more. What waits goes on as it
// began, and so does a token that stands in for a key until the key is gone.
func TestReloadOnOpenConnection(t *testing.T) {
	t.Parallel()
	key := mark + "-key"
	client := fmt.Sprintf("key_sha256: %s", hexDigest(key))
	r := newReloaded(t, simNoLimits, "clients: {billing: {"+client+"}}\n"+noLimits)
	address := strings.TrimPrefix(r.url, "http://")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	held := over(t, conn)
	standIn := refresh(t, ownOAuth(r.url, "billing", key, 0))
	expect := func(want int, method, credential string) {
		t.Helper()
		held.send(lines(method+" /v2/contacts HTTP/1.1", "Host: "+address, credential, "Content-Length: 0"))
		if resp, body := held.answer(method); resp.StatusCode != want {
			t.Errorf("%s: %s %s, want %d", method, resp.Status, body, want)
		}
	}
	byKey, byStandIn := "X-Api-Key: "+key, "Authorization: Bearer "+standIn.AccessToken
	expect(http.StatusOK, "GET", byKey)
	expect(http.StatusOK, "GET", byStandIn)
	r.become("clients: {billing: {"+client+", read_only: true, weight: 2}}\n"+noLimits, "client billing: read_only, weight")
	expect(http.StatusOK, "GET", byKey)
	expect(http.StatusForbidden, "POST", byKey)
	r.become("clients: {shop: {key_sha256: "+hexDigest(mark+"-other")+"}}\n"+noLimits, "client billing removed", "client shop added")
	expect(http.StatusUnauthorized, "GET", byStandIn)
	expect(http.StatusUnauthorized, "GET", byKey)
	expect(http.StatusOK, "GET", "X-Api-Key: "+mark+"-other")
}

// A bad file changes nothing, and one line has every problem with its line.
func TestReloadRefused(t *testing.T) {
	t.Parallel()
	r := newReloaded(t, simNoLimits, noLimits)
	s := r.scraped()
	r.become(strings.Replace(noLimits, "guard: 0s", "guard: 0", 1)+"clients: {billing: {weight: 0}}\nlog: {level: loud}\n",
		`"level":"error"`, "config.yaml:11: limits.guard: ", "config.yaml:13: clients.billing.weight: ", "config.yaml:14: log.level: ", "nothing tells it from others")
	r.gets(http.StatusOK, "/v2/company")
	s.come("refused", map[string]float64{
		`config_reloads_total{outcome="refused"}`: 1, `config_reloads_total{outcome="applied"}`: 0, `config_last_reload_successful`: 0,
	})
	before := s.values()["config_last_reload_timestamp_seconds"]
	write(t, filepath.Join(r.folder, "config.yaml"), "a: [")
	r.says("not YAML")
	if err := os.Remove(filepath.Join(r.folder, "config.yaml")); err != nil {
		t.Fatal(err)
	}
	r.says("no such file")
	r.become(noLimits, `"changed":"nothing"`, `apps.main.client_secret_env`)
	s.come("applied", map[string]float64{
		`config_reloads_total{outcome="refused"}`: 3, `config_reloads_total{outcome="applied"}`: 1, `config_last_reload_successful`: 1,
	})
	if after := s.values()["config_last_reload_timestamp_seconds"]; after <= before {
		t.Errorf("last reload at %v, want later than %v", after, before)
	}
}

// What a running process cannot change is named and stays as it is; what that would make unsafe is refused.
func TestReloadNeedsRestart(t *testing.T) {
	t.Parallel()
	key := fmt.Sprintf("key_sha256: %s", hexDigest(mark+"-key"))
	clients := "clients: {billing: {" + key + "}, legacy: {listen: 'unix:legacy.sock'}}\n"
	open := "listen: ['0.0.0.0:0', 'unix:proxy.sock']\nstore: {file: store}\n"
	w := newSimulated(t, simNoLimits, "")
	w.configure(w.simURL, open+clients+noLimits)
	w.authorise(w.sim.Authorize("owner"))
	r := &reloaded{world: w, client: w.client(false)}
	r.proxy, _ = w.serve()
	legacy := dialling(t, "unix", filepath.Join(w.folder, "legacy.sock"), "")
	ask := func(want int) {
		t.Helper()
		if status, body := call(t, legacy, http.MethodGet, "http://localhost/v2/company"); status != want {
			t.Errorf("%d %s, want %d", status, body, want)
		}
	}
	ask(http.StatusOK)
	// Without clients everybody on the network would be let in.
	w.configure(w.simURL, reloadable+noLimits)
	r.says(`"level":"error"`, "it needs a restart", "0.0.0.0:0", "named clients")
	ask(http.StatusOK)
	w.configure(w.simURL, reloadable+"clients: {billing: {"+key+", listen: 'unix:new.sock'}}\nmax_connections: 9\nlog: {format: console, level: debug}\n"+
		strings.Replace(noLimits, "guard: 0s", "guard: 2s", 1))
	r.says(`"level":"info"`, `"changed":"client legacy removed; log.level"`,
		`"needs_restart":"listen; client billing: listen; max_connections; limits.guard; log.format; the listener of client legacy, which stays open and lets nobody in"`)
	for _, line := range []string{`"msg":"setting replaced","section":"clients","name":"legacy","setting":"removed"`,
		`"msg":"setting waits for a restart","section":"","name":"","setting":"listen"`} {
		if !strings.Contains(r.proxy.stderr.String(), line) {
			t.Errorf("at level debug there is no %s", line)
		}
	}
	ask(http.StatusUnauthorized)
	if _, err := os.Stat(filepath.Join(w.folder, "new.sock")); err == nil {
		t.Error("the new listener is there")
	}
	w.configure(w.simURL, open+clients+noLimits)
	r.says(`"changed":"client legacy added; log.level"`)
	ask(http.StatusOK)
}

// Requests that wait do so by the limits under which they came; those that come later go by the new ones, which FreeAgent's count shows.
func TestReloadLimits(t *testing.T) {
	t.Parallel()
	limits := func(requests int) string {
		return fmt.Sprintf("limits: {api: [{requests: %d, per: 1s}], guard: 1s, max_wait: 1m}\n", requests)
	}
	r := newReloaded(t, simNoLimits, limits(6))
	busiest := func(enough int) int {
		var ended atomic.Bool
		var asking sync.WaitGroup
		for range 8 {
			asking.Go(func() {
				for !ended.Load() {
					if status, body := call(t, r.client, http.MethodGet, r.url+"/v2/company"); status != http.StatusOK {
						t.Errorf("%d %s", status, body)
					}
				}
			})
		}
		before := len(r.arrivals())
		eventually(t, "more than a window has room for", func() bool { return len(r.arrivals()) > before+enough })
		ended.Store(true)
		asking.Wait()
		return mostWithin(r.arrivals()[before:], time.Second)
	}
	for _, requests := range []int{6, 3, 20} {
		if requests != 6 {
			r.become(limits(requests), `"changed":"limits.api"`)
		}
		if got := busiest(requests); got > requests || got < requests/2 {
			t.Errorf("%d requests within 1s at FreeAgent, want about %d and no more", got, requests)
		}
	}
}

// What is counted in Redis stays counted when the limits change, on every replica that has reloaded.
func TestReloadLimitsInRedis(t *testing.T) {
	t.Parallel()
	limits := func(requests int) string {
		return fmt.Sprintf("limits: {api: [{requests: %d, per: 1h}], guard: 0s}\n", requests)
	}
	w := newShared(t, simNoLimits, "redis://"+redistest.Start(t).Addr(), limits(3))
	w.authorise(w.sim.Authorize("owner"))
	r := &reloaded{world: w, client: w.client(false)}
	r.proxy, r.url = w.serve()
	r.scraped().come("linked", map[string]float64{`limiter_state{state="linked"}`: 1})
	path := filepath.Join(w.folder, "config.yaml")
	before := readText(t, path)
	for _, step := range []struct{ limit, left int }{{3, 3}, {5, 2}, {4, 0}, {6, 1}} {
		write(t, path, strings.Replace(before, limits(3), limits(step.limit), 1))
		r.says("configuration reloaded")
		for range step.left {
			r.gets(http.StatusOK, "/v2/company", "Prefer: wait=0")
		}
		r.gets(http.StatusTooManyRequests, "/v2/company", "Prefer: wait=0")
	}
}

// mostWithin is how many arrivals fell into one window at most.
func mostWithin(all []simulator.Request, window time.Duration) int {
	best := 0
	for i, first := range all {
		n := 0
		for _, next := range all[i:] {
			if next.Time.Sub(first.Time) < window {
				n++
			}
		}
		best = max(best, n)
	}
	return best
}
