package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"freeagent-proxy/tokens"
)

// Whoever fills the operator's listener with requests that never end does not take the programs' open files.
func TestOperatorsConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, noLimits)
	w.authorise(w.sim.Authorize("owner"))
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := prepare(w.folder, w.env, "sh", "-c", `ulimit -n 100; exec "$0" serve`, exe)
	if err := p.begin(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.finish(t))
	addresses, err := p.listening()
	if err != nil {
		t.Fatal(err)
	}
	for range 120 {
		dial(t, addresses[len(addresses)-1]).send("GET / HTTP/1.1\r\nHost: localhost\r\n")
	}
	if _, err := p.await(&p.stderr, "as many connections are open at admin.listen as may be"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 5 {
		if resp, _ := dial(t, addresses[0]).send(keepAlive).answer(http.MethodGet); resp.StatusCode != http.StatusOK {
			t.Errorf("a program got %s", resp.Status)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("programs were served after %s", took)
	}
	if strings.Contains(p.stderr.String(), "too many open files") {
		t.Error("there are no files left")
	}
}

// A request whose body never comes is answered, and holds nobody up who wants to stop the proxy.
func TestOperatorsBodiesAreNotAwaited(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, noLimits)
	p, _ := w.serve()
	address := strings.TrimPrefix(operatorURL(t, p), "http://")
	for _, framing := range []string{"Content-Length: 9", "Transfer-Encoding: chunked"} {
		began := time.Now()
		resp, _ := dial(t, address).send(lines("POST / HTTP/1.1", "Host: localhost", framing)).answer(http.MethodPost)
		if took := time.Since(began); resp.StatusCode != http.StatusMethodNotAllowed || !resp.Close || took > 3*bodyLinger {
			t.Errorf("%s: got %s after %s", framing, resp.Status, took)
		}
	}
	if code, err := p.stop(os.Interrupt); err != nil || code != exitOK {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// idleServer is a server that is not served, with an account whose token endpoint does not answer.
func idleServer(t *testing.T) *server {
	t.Helper()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	upstream, _ := parseURL("http://" + silent.Addr().String())
	cfg := demoConfig(upstream, t.TempDir(), "")
	cfg.Seed = Secret{}
	ctx := context.Background()
	s, err := newServer(ctx, cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		silent.Close() // what is asked of it fails
		s.close(ctx)
	})
	name, _ := cfg.DefaultAccount()
	long := time.Now().Add(-2 * time.Hour)
	grant := tokens.Grant{Account: name, AccessToken: "a", RefreshToken: "r", ObtainedAt: long, ExpiresAt: long.Add(time.Hour), RefreshObtained: long}
	if err := s.tokens.Put(ctx, grant); err != nil {
		t.Fatal(err)
	}
	return s
}

// However often it is asked whether an account is ready, one goroutine sees to its token.
func TestProbesDoNotPileUp(t *testing.T) {
	s := idleServer(t)
	before := runtime.NumGoroutine()
	for range 1000 {
		if s.notReady() == "" {
			t.Fatal("it says that it is ready")
		}
	}
	if n := runtime.NumGoroutine() - before; n > 50 {
		t.Errorf("%d more goroutines", n)
	}
}

// Nobody may take for ever to send the operator's listener a request, or to take its answer; but a code may be exchanged
// in peace.
func TestOperatorsConnectionsEnd(t *testing.T) {
	s := idleServer(t)
	for i, l := range s.listen {
		if l.Addr() != s.admin {
			continue
		}
		for _, d := range []time.Duration{s.http[i].ReadTimeout, s.http[i].WriteTimeout} {
			if d < time.Minute+2*provePatience || d > 2*time.Minute {
				t.Errorf("a connection may take %s", d)
			}
		}
	}
}
