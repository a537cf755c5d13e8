package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/tokens"
)

// account is the one of the tests' configurations.
const account = "acme"

// noLimits keeps the limits out of the way.
const noLimits = `limits:
  api: [{requests: 100000, per: 1s}]
  refresh: [{requests: 100000, per: 1s}]
  egress: [{requests: 100000, per: 1s}]
  guard: 0s
  max_wait: 1m
`

// simNoLimits does so at the simulator.
var simNoLimits = simulator.Config{Enforcement: simulator.EnforceOff}

// world is a FreeAgent and a folder with a configuration for it, which processes share.
type world struct {
	t      *testing.T
	sim    *simulator.Simulator
	folder string
	env    []string
	simURL string

	accounts string // of the configuration, if not account alone

	clocks  []*clock // of the processes that serve, in turn; none: the machine's
	started int      // of those
}

// newWorld makes a world whose FreeAgent is at url. settings are appended to the configuration.
func newWorld(t *testing.T, sim *simulator.Simulator, url, settings string) *world {
	t.Helper()
	folder, err := os.MkdirTemp("", "fap") // t.TempDir's paths may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	w := &world{t: t, sim: sim, simURL: url, folder: folder, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + folder, "TMPDIR=" + folder, "FREEAGENT_CLIENT_SECRET=" + clientSecret,
	}}
	w.configure(url, "listen: [127.0.0.1:0, unix:proxy.sock]\nstore: {file: store}\n"+settings)
	return w
}

// configure writes the configuration.
func (w *world) configure(url, settings string) {
	w.t.Helper()
	config := fmt.Sprintf(`admin: {listen: 127.0.0.1:0}
upstream: {base_url: %s}
apps: {main: {client_id: tests, client_secret_env: FREEAGENT_CLIENT_SECRET}}
accounts: {%s}
%s`, url, cmp.Or(w.accounts, account+": {app: main}"), settings)
	if err := os.WriteFile(filepath.Join(w.folder, "config.yaml"), []byte(config), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// newSimulated makes a world with a simulator on a real listener.
func newSimulated(t *testing.T, switches simulator.Config, settings string) *world {
	t.Helper()
	sim := simulator.New(switches)
	running, err := sim.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { running.Close() })
	return newWorld(t, sim, running.URL(), settings)
}

// newShared makes a world whose processes share a Redis, and have wrong clocks.
func newShared(t *testing.T, switches simulator.Config, redisURL, settings string) *world {
	t.Helper()
	w := newSimulated(t, switches, "")
	w.env = append(w.env, "FREEAGENT_PROXY_KEY="+tokens.NewKey())
	w.configure(w.simURL, fmt.Sprintf(`listen: 127.0.0.1:0
store: {redis: {url: %q}}
encryption: {keys: [{id: tests, env: FREEAGENT_PROXY_KEY}]}
%s`, redisURL, settings))
	if canSkew {
		w.skew(wrongClocks...)
	}
	return w
}

func (w *world) start(args ...string) *process {
	w.t.Helper()
	return start(w.t, w.folder, w.env, args...)
}

// authorise imports a new grant.
func (w *world) authorise(refreshToken string) {
	w.t.Helper()
	p := w.start("accounts", "import", account)
	if _, err := p.stdin.Write([]byte(refreshToken)); err != nil {
		w.t.Fatal(err)
	}
	p.stdin.Close()
	if code, err := p.wait(); err != nil || code != exitOK {
		w.t.Fatalf("%s: exit code %d, %v; stderr: %s", p, code, err, &p.stderr)
	}
}

// serve starts a proxy and waits until it listens. It returns its URL.
func (w *world) serve() (p *process, url string) {
	w.t.Helper()
	env := w.env
	if c := w.clock(); c != nil {
		env = append(slices.Clone(env), c.env())
	}
	p = start(w.t, w.folder, env, "serve")
	addresses, err := p.listening()
	if err != nil {
		w.t.Fatal(err)
	}
	return p, "http://" + addresses[0]
}

// client makes an HTTP client with many connections, which speaks with the proxy's socket if told to:
// its path stays the same from process to process.
func (w *world) client(socket bool) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}
	if socket {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(w.folder, "proxy.sock"))
		}
	}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 2 * patience}
}

// arrivals are the API's requests that FreeAgent has seen, in their order.
func (w *world) arrivals() []simulator.Request {
	var api []simulator.Request
	for _, r := range w.sim.Requests(0) {
		if !strings.HasPrefix(r.Target, "/v2/token_endpoint") {
			api = append(api, r)
		}
	}
	return api
}
