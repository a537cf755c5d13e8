package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
)

// operatorURL is where a serve process shows its page.
func operatorURL(t *testing.T, p *process) string {
	t.Helper()
	addresses, err := p.listening()
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + addresses[len(addresses)-1]
}

// person is a browser without a screen: it keeps cookies and follows redirects, FreeAgent's approve page included if that
// approves by itself.
type person struct {
	*http.Client
	t *testing.T
}

func newPerson(t *testing.T) person {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return person{&http.Client{Jar: jar, Transport: transport, Timeout: 2 * patience}, t}
}

// connect presses an account's button and returns the page that it ends at.
func (p person) connect(page, account string) (status int, text string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, page+"/accounts/"+account+"/connect", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Origin", page)
	resp, err := p.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	ours := strings.HasPrefix(resp.Request.URL.String(), page)
	if ours && (strings.Contains(string(body), mark) || strings.Contains(string(body), tokenBegin)) {
		p.t.Errorf("the page holds a secret: %s", body)
	}
	return resp.StatusCode, string(body)
}

// approving is a FreeAgent whose user approves at once.
func approving() simulator.Config {
	switches := simNoLimits
	switches.AutoApprove = true
	return switches
}

// Connect at the page does what authorize does, and says what became of it.
func TestAdminConnect(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, approving(), noLimits)
	p, url := w.serve()
	page, client := operatorURL(t, p), w.client(false)
	connect := func(want string) {
		t.Helper()
		if status, text := newPerson(t).connect(page, account); status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("got %d, want %q: %s", status, want, text)
		}
	}
	works := func() {
		t.Helper()
		if status, body := call(t, client, http.MethodGet, url+"/v2/company"); status != http.StatusOK {
			t.Errorf("got %d %s", status, body)
		}
	}
	connect(account + " is connected to FreeAgent")
	works()

	// The code has ended when it comes; nothing is lost by that.
	cfg := w.sim.Config()
	cfg.CodeLifetime = 1
	if err := w.sim.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	connect("FreeAgent did not take its own code")
	works()

	// The token endpoint is in trouble.
	cfg.CodeLifetime = simulator.Duration(time.Minute)
	if err := w.sim.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := w.sim.Fault(simulator.Fault{Kind: simulator.FaultStatus, Match: simulator.Match{PathPrefix: "/v2/token_endpoint"}}); err != nil {
		t.Fatal(err)
	}
	connect("token endpoint answered 503")
	w.sim.ClearFaults()
	works()

	// The store cannot keep anything: FreeAgent is not even asked.
	grants := filepath.Join(w.folder, "store", "grants")
	if err := os.Rename(grants, grants+".away"); err != nil {
		t.Fatal(err)
	}
	seen := len(w.sim.Requests(0))
	connect("Nothing was taken from FreeAgent")
	if got := len(w.sim.Requests(0)); got != seen {
		t.Errorf("FreeAgent saw %d more requests", got-seen)
	}
	mend := func() {
		t.Helper()
		if err := os.Rename(grants+".away", grants); err != nil {
			t.Fatal(err)
		}
	}
	mend()

	// It cannot when FreeAgent's answer comes: the code is not spent.
	someone := newPerson(t)
	var callback string
	someone.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasSuffix(req.URL.Path, "/callback") {
			callback = req.URL.String()
			return http.ErrUseLastResponse
		}
		return nil
	}
	someone.connect(page, account)
	if err := os.Rename(grants, grants+".away"); err != nil {
		t.Fatal(err)
	}
	someone.CheckRedirect = nil
	exchanges := w.sim.Stats().Tokens.Exchanges
	if _, text := call(t, someone.Client, http.MethodGet, callback); !strings.Contains(text, "Nothing was taken from FreeAgent") {
		t.Error(text)
	}
	if got := w.sim.Stats().Tokens; got.Exchanges != exchanges || got.Refused != 1 {
		t.Errorf("the code was spent: %+v", got)
	}
	mend()
	connect(account + " is connected to FreeAgent")
	works()
	if got := w.sim.Stats().Tokens; got.Exchanges != 2 || got.RefreshRequests != 0 {
		t.Errorf("%d codes were exchanged and %d refreshes asked for, want 2 and none", got.Exchanges, got.RefreshRequests)
	}
	if log := p.stderr.String(); !strings.Contains(log, `"the account was connected by the admin page"`) || strings.Contains(log, "code=") {
		t.Error(log)
	}
}

// Whoever stops the proxy while it exchanges a code costs nobody the authorisation: it is kept, and the next process has it.
func TestAdminConnectMeetsSIGTERM(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, approving(), noLimits)
	p, _ := w.serve()
	fault(t, w.sim, simulator.Fault{
		Match: simulator.Match{PathPrefix: "/v2/token_endpoint"}, Kind: simulator.FaultLatency, After: true, Delay: simulator.Duration(time.Second),
	})
	connecting := inBackground(func() { // its last page is gone with the proxy
		someone := newPerson(t)
		someone.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
			if req.URL.Query().Has("connect") {
				return http.ErrUseLastResponse
			}
			return nil
		}
		someone.connect(operatorURL(t, p), account)
	})
	eventually(t, "the code at FreeAgent", func() bool { return w.sim.Stats().Tokens.Exchanges == 1 })
	if code, err := p.stop(syscall.SIGTERM); err != nil || code != exitOK {
		t.Errorf("exit code %d, %v; want 0; stderr: %s", code, err, &p.stderr)
	}
	connecting.Wait()
	w.sim.ClearFaults()
	_, url := w.serve()
	if status, body := call(t, w.client(false), http.MethodGet, url+"/v2/company"); status != http.StatusOK {
		t.Errorf("after a restart: %d %s", status, body)
	}
}

// What is connected at one replica serves at the other at once; with Redis away nothing is spent.
func TestAdminConnectAtReplicas(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := newShared(t, approving(), "redis://"+server.Addr(), noLimits)
	first, _ := w.serve()
	_, url := w.serve()
	page, client := operatorURL(t, first), w.client(false)
	pulse := newPulse(t.Context(), t, client, url)
	if status, body := call(t, client, http.MethodGet, url+"/v2/company"); status != http.StatusServiceUnavailable {
		t.Fatalf("before: %d %s", status, body)
	}
	if status, text := newPerson(t).connect(page, account); status != http.StatusOK || !strings.Contains(text, account+" is connected") {
		t.Fatalf("got %d: %s", status, text)
	}
	began := time.Now()
	eventually(t, "the other replica serves", func() bool {
		status, _ := call(t, client, http.MethodGet, url+"/v2/company")
		return status == http.StatusOK
	})
	served := time.Now()
	if took := served.Sub(began) - pulse.lost(began, served); took > 5*time.Second {
		t.Errorf("the other replica served after %s", took)
	}
	server.Kill()
	exchanges := w.sim.Stats().Tokens.Exchanges
	if _, text := newPerson(t).connect(page, account); !strings.Contains(text, "Nothing was taken from FreeAgent") {
		t.Errorf("without Redis: %s", text)
	}
	if got := w.sim.Stats().Tokens.Exchanges; got != exchanges {
		t.Error("a code was exchanged without Redis")
	}
}

// The rules hold at the real listener: names, other sites' pages, the password off loopback.
func TestAdminListener(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, approving(), noLimits)
	password := mark + "-password"
	w.env = append(w.env, "ADMIN_PASSWORD="+password)
	config := fmt.Sprintf(`admin: {listen: '0.0.0.0:0', password_env: ADMIN_PASSWORD, public_url: 'https://proxy.example.com'}
listen: 127.0.0.1:0
allowed_hosts: [box.lan]
trusted_proxies: [127.0.0.1]
upstream: {base_url: %s}
store: {file: store}
apps: {main: {client_id: tests, client_secret_env: FREEAGENT_CLIENT_SECRET}}
accounts: {%s: {app: main}}
`, w.simURL, account)
	if err := os.WriteFile(filepath.Join(w.folder, "config.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p, _ := w.serve()
	_, port, _ := strings.Cut(strings.TrimPrefix(operatorURL(t, p), "http://[::]"), ":")
	page, client := "http://127.0.0.1:"+port, w.client(false)
	ask := func(path, host, password string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, page+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("X-Forwarded-For", "192.0.2.7")
		if password != "" {
			req.SetBasicAuth("operator", password)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	for _, test := range []struct {
		path, host, password string
		want                 int
	}{
		{"/", "", "", 401},
		{"/api/status", "", "", 401},
		{"/api/status", "", "wrong", 401},
		{"/", "", password, 200},
		{"/api/status", "", password, 200},
		{"/", "box.lan:" + port, password, 200},
		{"/", "proxy.example.com", password, 200},
		{"/", "evil.test", password, 421},
		{"/healthz", "evil.test", "", 200},
		{"/metrics", "prometheus-calls-it-so", "", 200},
		{"/readyz", "", "", 503},
	} {
		if got, body := ask(test.path, test.host, test.password); got != test.want {
			t.Errorf("%+v: got %d %.300s", test, got, body)
		}
	}
	if _, body := ask("/", "proxy.example.com", password); !strings.Contains(body, "<code>https://proxy.example.com/callback</code>") {
		t.Error("the page does not name the redirect URI of admin.public_url")
	}
	if log := p.stderr.String(); strings.Count(log, "a wrong password at the admin page") != 1 || !strings.Contains(log, `"from":"192.0.2.7"`) {
		t.Error(log)
	}
}

// Where no account is the default, a look gets tokens for a few of those whose tokens have ended, until one is ready: not for hundreds.
func TestReadinessWarmsFew(t *testing.T) {
	t.Parallel()
	const accounts, life = 12, time.Second
	switches := simNoLimits
	switches.AccessTokenLifetime = simulator.Duration(life)
	w := newSimulated(t, switches, "")
	var names []string
	for i := range accounts {
		names = append(names, fmt.Sprintf("acme-%d: {app: main}", i))
	}
	w.accounts = strings.Join(names, ", ")
	w.configure(w.simURL, reloadable+noLimits)
	p, _ := w.serve()
	for i := range accounts {
		importing := w.start("accounts", "import", fmt.Sprintf("acme-%d", i))
		_, _ = io.WriteString(importing.stdin, w.sim.Authorize(fmt.Sprint("owner-", i)))
		importing.stdin.Close()
		if code, err := importing.wait(); err != nil || code != exitOK {
			t.Fatalf("import: exit code %d, %v: %s", code, err, &importing.stderr)
		}
	}
	switches.AccessTokenLifetime = simulator.Duration(time.Hour)
	if err := w.sim.Configure(switches); err != nil {
		t.Fatal(err)
	}
	time.Sleep(life) // until the last token has ended
	page, client := operatorURL(t, p), w.client(false)
	before := w.sim.Stats().Tokens.RefreshRequests
	for _, path := range []string{"/metrics", "/api/status", "/readyz"} {
		call(t, client, http.MethodGet, page+path)
	}
	eventually(t, "ready", func() bool {
		status, _ := call(t, client, http.MethodGet, page+"/readyz")
		return status == http.StatusOK
	})
	if got := w.sim.Stats().Tokens.RefreshRequests - before; got < 1 || got > maxWarm {
		t.Errorf("%d refreshes for a proxy that is ready with one", got)
	}
}
