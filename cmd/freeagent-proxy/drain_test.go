package main

import (
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"freeagent-proxy/tokens"
)

// oneAMinute leaves room for one request a minute, and lets others wait for it.
const oneAMinute = `limits:
  api: [{requests: 1, per: 1m}]
  guard: 0s
  max_wait: 10m
`

// answered is what a client got.
type answered struct {
	status int
	header http.Header
	body   string
	err    error
}

// drain is a proxy with one request at FreeAgent, which does not answer before it is told to, and one that waits for its turn.
type drain struct {
	*world
	answer  func() // lets FreeAgent answer
	client  *http.Client
	proxy   *process
	url     string
	slow    <-chan answered
	waiting <-chan answered
}

func newDrain(t *testing.T) *drain {
	w := newSimulated(t, simNoLimits, oneAMinute)
	w.authorise(w.sim.Authorize("owner"))
	d := &drain{world: w, client: w.client(false), answer: w.bar("/v2/invoices").let}
	d.proxy, d.url = w.serve()
	d.slow = d.ask("/v2/invoices", "")
	eventually(t, "the slow request at FreeAgent", func() bool { return len(w.arrivals()) == 1 })
	d.waiting = d.ask("/v2/company", "")
	// One who does not want to wait is told when to come back: behind those who do.
	eventually(t, "the request that waits", func() bool {
		refused := <-d.ask("/v2/company", "wait=0")
		after, _ := strconv.Atoi(refused.header.Get("Retry-After"))
		return after > 90
	})
	return d
}

// ask makes a request in the background.
func (d *drain) ask(target, prefer string) <-chan answered {
	result := make(chan answered, 1)
	go func() {
		req, err := http.NewRequest(http.MethodGet, d.url+target, nil)
		if err != nil {
			result <- answered{err: err}
			return
		}
		req.Header.Set("Prefer", prefer)
		resp, err := d.client.Do(req)
		if err != nil {
			result <- answered{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		result <- answered{resp.StatusCode, resp.Header, string(body), err}
	}()
	return result
}

// At SIGTERM what was sent to FreeAgent is finished, and what waits is told to come back.
func TestSIGTERM(t *testing.T) {
	d := newDrain(t)
	if err := d.proxy.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waiting := <-d.waiting
	select {
	case slow := <-d.slow:
		t.Errorf("what was sent was answered before FreeAgent did: %+v", slow)
	case <-d.proxy.ended:
		t.Error("the proxy ended before FreeAgent answered")
	case <-time.After(200 * time.Millisecond):
	}
	d.answer()
	if slow := <-d.slow; slow.err != nil || slow.status != http.StatusOK {
		t.Errorf("what was sent: %+v; want FreeAgent's answer", slow)
	}
	if code, err := d.proxy.wait(); err != nil || code != exitOK {
		t.Errorf("exit code %d, %v; want 0; stderr: %s", code, err, &d.proxy.stderr)
	}
	if waiting.err != nil || waiting.status != http.StatusServiceUnavailable {
		t.Errorf("what waits: %+v; want 503 at once", waiting)
	}
	if after, err := strconv.Atoi(waiting.header.Get("Retry-After")); err != nil || after < 1 {
		t.Errorf("what waits: Retry-After %q, want seconds", waiting.header.Get("Retry-After"))
	}
	if got, want := waiting.body, "the proxy is shutting down; nothing was sent to FreeAgent"; !strings.Contains(got, want) {
		t.Errorf("what waits: got %q, want %q", got, want)
	}
	if got, want := d.proxy.stderr.String(), "stopped; nothing was left behind"; !strings.Contains(got, want) {
		t.Errorf("the log does not say %q: %s", want, got)
	}
	if got := len(d.arrivals()); got != 1 {
		t.Errorf("%d requests reached FreeAgent, want 1", got)
	}

	// The next process knows that the minute's request was sent.
	d.proxy, d.url = d.serve()
	if refused := <-d.ask("/v2/company", "wait=0"); refused.status != http.StatusTooManyRequests {
		t.Errorf("after a restart: %+v; want 429", refused)
	}
}

// While what was sent to FreeAgent is waited for, the operator's listener goes on answering, and /readyz says why no more is sent here.
func TestOperatorSeesTheDrain(t *testing.T) {
	t.Parallel()
	d := newDrain(t)
	addresses, err := d.proxy.listening()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.proxy.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if waiting := <-d.waiting; waiting.status != http.StatusServiceUnavailable {
		t.Errorf("what waits: %+v; want 503", waiting)
	}
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/readyz": {503, "shutting down"}, "/healthz": {200, "alive"}, "/metrics": {200, "freeagent_proxy_ready 0"},
		"/api/status": {200, `"ready":false`}, "/": {200, "shutting down"},
	} {
		resp, err := d.client.Get("http://" + addresses[len(addresses)-1] + path)
		if err != nil {
			t.Errorf("GET %s: %v", path, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want.status || !strings.Contains(string(body), want.body) {
			t.Errorf("GET %s: %d %s; want %d and %q", path, resp.StatusCode, body, want.status, want.body)
		}
	}
	select {
	case slow := <-d.slow:
		t.Errorf("what was sent was answered before the operator looked: %+v", slow)
	default:
	}
	d.answer()
	if slow := <-d.slow; slow.err != nil || slow.status != http.StatusOK {
		t.Errorf("what was sent: %+v; want FreeAgent's answer", slow)
	}
	if code, err := d.proxy.wait(); err != nil || code != exitOK {
		t.Errorf("exit code %d, %v; want 0; stderr: %s", code, err, &d.proxy.stderr)
	}
}

// SIGHUP disturbs nothing that is under way, not even shutting down.
func TestSIGHUP(t *testing.T) {
	d := newDrain(t)
	hangUp := func() {
		if err := d.proxy.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hangUp()
	if _, err := d.proxy.await(&d.proxy.stderr, `"level":"info".*"msg":"configuration reloaded","changed":"nothing"`); err != nil {
		t.Fatal(err)
	}
	if err := d.proxy.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if waiting := <-d.waiting; waiting.status != http.StatusServiceUnavailable {
		t.Errorf("what waits: %+v; want 503", waiting)
	}
	hangUp()
	if _, err := d.proxy.await(&d.proxy.stderr, `"shutting down; the configuration is not read anew"`); err != nil {
		t.Error(err)
	}
	d.answer()
	if slow := <-d.slow; slow.err != nil || slow.status != http.StatusOK {
		t.Errorf("what was sent: %+v; want FreeAgent's answer", slow)
	}
	if code, err := d.proxy.wait(); err != nil || code != exitOK {
		t.Errorf("exit code %d, %v; want 0; stderr: %s", code, err, &d.proxy.stderr)
	}
}

// A second signal does not wait.
func TestSecondSIGTERM(t *testing.T) {
	d := newDrain(t)
	if err := d.proxy.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if waiting := <-d.waiting; waiting.status != http.StatusServiceUnavailable {
		t.Errorf("what waits: %+v; want 503", waiting)
	}
	if code, err := d.proxy.stop(syscall.SIGTERM); err != nil || code != exitFailed {
		t.Errorf("exit code %d, %v; want %d", code, err, exitFailed)
	}
	if slow := <-d.slow; slow.err == nil {
		t.Errorf("what was sent: %+v; want a broken connection", slow)
	}
}

// A command that finds the store in the hands of a process that takes no more work says what that may be.
func TestCommandMeetsShutdown(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, "")
	w.configure(w.simURL, reloadable+noLimits)
	store, err := tokens.OpenFile(tokens.FileConfig{Dir: filepath.Join(w.folder, "store")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p := w.start("accounts", "remove", account)
	if code, err := p.wait(); err != nil || code != exitFailed {
		t.Errorf("exit code %d, %v; want 1", code, err)
	}
	if got, want := p.stderr.String(), "it may be shutting down: try again when it has ended"; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
