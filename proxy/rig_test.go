package proxy_test

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/internal/outcomes"
	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
	"freeagent-proxy/tokens"
)

const account = "acme"

// The tokens of rigs without a simulator. Whoever finds them in what a client got has found a leak.
const (
	accessToken  = "marked-access-token-f7a0c2"
	refreshToken = "marked-refresh-token-93be1d"
)

// ample is a window that no test fills.
var ample = []limiter.Window{{Requests: 1_000_000, Per: time.Minute}}

// rig is a proxy at a real listener, configured as `serve` does it, with all that it works with.
type rig struct {
	t       *testing.T
	addr    string // host:port that clients dial
	proxy   *proxy.Proxy
	tokens  *tokens.Manager
	limiter *limiter.Local
	kept    *outcomes.Book
	log     *logBuffer
	secrets *secrets
	ended   atomic.Int32 // requests whose client has closed the connection, or its half of it, as the proxy knows by then
}

// newRig starts a proxy in front of an upstream. Its one account has no grant yet.
func newRig(t *testing.T, upstream string, change ...func(*proxy.Config)) *rig {
	t.Helper()
	base, marks := mustURL(upstream), &secrets{}
	r := &rig{t: t, secrets: marks, log: &logBuffer{}}
	var err error
	r.limiter, err = limiter.NewLocal(limiter.Config{Guard: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	store, err := tokens.OpenFile(tokens.FileConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if r.kept, err = outcomes.OpenFile(t.TempDir(), outcomes.Config{Sealer: sealer()}); err != nil {
		t.Fatal(err)
	}
	r.tokens = tokens.New(tokens.Config{
		Store:    watchedStore{store, marks},
		Endpoint: tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: base, Timeout: 20 * time.Second}),
		App: func(name string) (tokens.App, bool) {
			return tokens.App{ClientID: "id", ClientSecret: "secret"}, true
		},
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = r.tokens.Close(ctx)
		_ = r.limiter.Close()
		_ = r.kept.Close(ctx)
		_ = store.Close()
		marks.verify(t, r.log)
	})
	r.listen(r.configured(base, change))
	return r
}

func (r *rig) configured(upstream *url.URL, change []func(*proxy.Config)) proxy.Config {
	cfg := proxy.Config{
		Upstream: upstream,
		Timeout:  30 * time.Second,
		Version:  "test",
		Accounts: []proxy.Account{{Name: account, API: ample}},
		Hosts:    []string{"freeagent.internal"},
		MaxWait:  20 * time.Second,
		Egress:   ample,
		Sealer:   sealer(),
		Tokens:   r.tokens,
		Limiter:  r.limiter,
		Outcomes: r.kept,
		Log:      r.log.logger(),
		Served:   r.log.served,
	}
	for _, c := range change {
		c(&cfg)
	}
	return cfg
}

func (r *rig) listen(cfg proxy.Config) {
	r.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr, r.proxy = listener.Addr().String(), proxy.New(cfg)
	server := &http.Server{
		Handler:                      http.HandlerFunc(r.serve),
		ReadHeaderTimeout:            10 * time.Second,
		IdleTimeout:                  2 * time.Minute,
		MaxHeaderBytes:               64 << 10,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(io.Discard, "", 0),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(tapListener{listener, r.secrets})
	}()
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
		<-served
	})
}

// serve is the proxy, and notes when it can know that a client has closed its connection.
func (r *rig) serve(w http.ResponseWriter, req *http.Request) {
	defer context.AfterFunc(req.Context(), func() { r.ended.Add(1) })()
	r.proxy.ServeHTTP(w, req)
}

// withUpstream is a rig in front of an upstream that the test plays, with a token that is good for an hour.
func withUpstream(t *testing.T, answer answerer, change ...func(*proxy.Config)) (*rig, *upstream) {
	t.Helper()
	u := newUpstream(t, answer)
	r := newRig(t, u.url, change...)
	r.grant(accessToken, refreshToken, time.Hour)
	return r, u
}

// grant gives the account tokens. They are some minutes old, so that a 401 renews them at once.
func (r *rig) grant(access, refresh string, life time.Duration) {
	r.t.Helper()
	now := time.Now()
	err := r.tokens.Put(context.Background(), tokens.Grant{
		Account: account, AccessToken: access, RefreshToken: refresh,
		ObtainedAt: now.Add(-5 * time.Minute), ExpiresAt: now.Add(life), RefreshObtained: now,
	})
	if err != nil {
		r.t.Fatalf("Put: %v", err)
	}
}

// withSimulator is a rig in front of the simulator, which enforces no limit unless told to, with a grant of its own.
func withSimulator(t *testing.T, cfg simulator.Config, change ...func(*proxy.Config)) (*rig, *simulator.Simulator) {
	t.Helper()
	r, sim := withoutGrant(t, cfg, change...)
	r.grant(sim.AccessToken(""), sim.Authorize(""), time.Hour)
	return r, sim
}

func withoutGrant(t *testing.T, cfg simulator.Config, change ...func(*proxy.Config)) (*rig, *simulator.Simulator) {
	t.Helper()
	if cfg.Enforcement == "" {
		cfg.Enforcement = simulator.EnforceOff
	}
	sim := simulator.New(cfg)
	running, err := sim.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = running.Close() })
	return newRig(t, running.URL(), change...), sim
}

// api lets the account have few requests.
func api(windows ...limiter.Window) func(*proxy.Config) {
	return func(c *proxy.Config) { c.Accounts[0].API = windows }
}

func maxWait(d time.Duration) func(*proxy.Config) {
	return func(c *proxy.Config) { c.MaxWait = d }
}

func timeout(d time.Duration) func(*proxy.Config) {
	return func(c *proxy.Config) { c.Timeout = d }
}

// taken is how many permits the account's budget has counted.
func (r *rig) taken(windows []limiter.Window) int {
	usage := r.limiter.Usage(proxy.APIBudget(account, windows))
	return windows[0].Requests - usage[0].Remaining
}

// hold takes a permit out of the account's budget, as an attempt has one that is on its way: until it lets go others wait.
func (r *rig) hold(by string, windows []limiter.Window) (letGo func()) {
	r.t.Helper()
	permit, err := r.limiter.Take(context.Background(), limiter.Request{
		Budgets: []limiter.Budget{proxy.APIBudget(account, windows)}, Client: by, Weight: 1, MaxWait: 20 * time.Second,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return permit.Release
}

// oneWaits waits until a request waits for a permit of the account's budget.
func (r *rig) oneWaits() {
	r.t.Helper()
	soon(r.t, "one waits", func() bool { return r.limiter.Waiting("api/"+account) == 1 })
}

// soon waits until something is so.
func soon(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so within 20 s: %s", what)
		}
	}
}

func mustURL(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return u
}

// together runs all cases at once: parallel subtests go by the number of cores, and these only wait.
func together[T any](cases []T, run func(T)) {
	var running sync.WaitGroup
	for _, c := range cases {
		running.Go(func() { run(c) })
	}
	running.Wait()
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
