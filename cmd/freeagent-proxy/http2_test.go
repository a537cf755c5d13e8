package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// newHTTP2 is a client that begins with HTTP/2 in plain text. Its connections stop reading when deaf says so.
func newHTTP2(t *testing.T, deaf *atomic.Bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DisableCompression: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return &deafConn{Conn: conn, deaf: deaf}, err
		}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 2 * patience}
}

type deafConn struct {
	net.Conn
	deaf *atomic.Bool
}

func (c *deafConn) Read(p []byte) (int, error) {
	for c.deaf.Load() {
		time.Sleep(time.Millisecond)
	}
	return c.Conn.Read(p)
}

// h2c is a proxy and a client of it in HTTP/2.
type h2c struct {
	*world
	client *http.Client
	deaf   atomic.Bool
	proxy  *process
	url    string
}

// newH2C makes one, with the longest time without progress; "": that of most installations.
func newH2C(t *testing.T, timeout, settings string) *h2c {
	h := &h2c{world: newSimulated(t, simNoLimits, "")}
	if timeout != "" {
		timeout = ", timeout: " + timeout
	}
	h.configure(h.simURL+timeout, "listen: 127.0.0.1:0\nstore: {file: store}\n"+settings)
	h.authorise(h.sim.Authorize("owner"))
	h.client = newHTTP2(t, &h.deaf)
	return h
}

func (h *h2c) start() *h2c {
	h.t.Helper()
	h.proxy, h.url = h.serve()
	return h
}

// do makes a request, and reads the whole answer.
func (h *h2c) do(ctx context.Context, method, target string, body io.Reader, headers ...string) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.url+target, body)
	if err != nil {
		return nil, "", err
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp, string(text), err
}

// What a program gets by HTTP/2 is what it gets by HTTP/1.1.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	h := newH2C(t, "", noLimits).start()
	for _, c := range []struct {
		method, target, body string
		headers              []string
		status               int
		saw                  string // at FreeAgent, if anything
	}{
		{"GET", "/v2//contacts?a=1;b=2&c=%zz", "", nil, 200, "GET /v2/contacts?a=1;b=2&c=%zz"},
		{"POST", "/v2/contacts", contact, []string{jsonType, "Cookie: a=b"}, 201, saw("POST", "/v2/contacts", contact)},
		{"DELETE", "/v2/contacts/999", "{}", nil, 404, saw("DELETE", "/v2/contacts/999", "{}")},
		{"HEAD", "/v2/company", "", nil, 200, "HEAD /v2/company"},
		{"GET", "/v2/company", "", []string{"Sec-Fetch-Site: cross-site"}, 403, ""},
		{"GET", "/nonsense", "", nil, 404, ""},
		{"OPTIONS", "/v2/company", "", nil, 405, ""},
	} {
		before := len(h.arrivals())
		resp, body, err := h.do(t.Context(), c.method, c.target, strings.NewReader(c.body), c.headers...)
		if err != nil || resp.StatusCode != c.status || resp.ProtoMajor != 2 {
			t.Errorf("%s %s: got %v %.100q %v, want HTTP/2.0 %d", c.method, c.target, resp, body, err, c.status)
			continue
		}
		arrived := h.arrivals()[before:]
		switch {
		case c.saw == "" && len(arrived) == 0:
		case len(arrived) != 1 || sawRequest(arrived[0]) != c.saw:
			t.Errorf("%s %s: FreeAgent saw %v, want %s", c.method, c.target, arrived, c.saw)
		case arrived[0].Proto != "HTTP/1.1" || arrived[0].Header.Get("Cookie") != "":
			t.Errorf("%s %s: FreeAgent saw %+v", c.method, c.target, arrived[0])
		default:
			bearer(t, arrived[0].Header)
		}
	}
	// A space is no part of a request-target, though HTTP/2 can carry it: it would cut the request line that goes upstream.
	resp, body, err := h.do(t.Context(), "GET", "/v2/contacts?search=a HTTP/1.0", nil)
	if err != nil || resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "%20") {
		t.Errorf("a space: got %v %q %v, want 400 and what to do", resp, body, err)
	}
	// Too long a header is 431 or the end of the connection, as the client heeds the server's settings or not.
	before := len(h.arrivals())
	resp, _, err = h.do(t.Context(), "GET", "/v2/company", nil, longHeaders(8)...)
	if err == nil && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge || len(h.arrivals()) != before {
		t.Errorf("a long header: got %v %v", resp, err)
	}
}

// longHeaders are so many headers of 10 KB.
func longHeaders(n int) []string {
	var long []string
	for i := range n {
		long = append(long, fmt.Sprintf("X-Long-%d: %s", i, strings.Repeat("x", 10<<10)))
	}
	return long
}

// Bodies are bounded and must move.
func TestHTTP2Bodies(t *testing.T) {
	t.Parallel()
	h := newH2C(t, "1s", noLimits).start()
	half, rest := io.Pipe()
	defer rest.Close()
	go func() { _, _ = rest.Write([]byte("half")) }()
	if resp, body, err := h.do(t.Context(), http.MethodPost, "/v2/contacts", half); err != nil || resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("half a body: got %v %q %v, want 408", resp, body, err)
	}
	if got := len(h.arrivals()); got != 0 {
		t.Errorf("FreeAgent saw %d requests", got)
	}
	h = newH2C(t, "", noLimits).start() // 65 MiB may stop for a second, on a machine that is busy
	tooLarge := bytes.NewReader(make([]byte, 65<<20))
	if resp, body, err := h.do(t.Context(), http.MethodPost, "/v2/contacts", tooLarge); err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("65 MiB: got %v %q %v, want 413", resp, body, err)
	}
	if got := len(h.arrivals()); got != 0 {
		t.Errorf("FreeAgent saw %d requests", got)
	}
	whole := bytes.Repeat([]byte("x"), 8<<20)
	if resp, body, err := h.do(t.Context(), http.MethodPost, "/v2/_sim_echo", bytes.NewReader(whole)); err != nil {
		t.Errorf("8 MiB: got %v %.100q %v", resp, body, err)
	}
	if got := h.arrivals(); len(got) != 1 || got[0].BodyBytes != int64(len(whole)) {
		t.Errorf("FreeAgent saw %+v, want 8 MiB once", got)
	}
}

// An answer that nobody takes is cut off: where the client opens no window for it, and where it has stopped reading.
func TestHTTP2SlowReaders(t *testing.T) {
	t.Parallel()
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprintf("deaf %v", deaf), func(t *testing.T) {
			t.Parallel()
			h := newH2C(t, "2s", noLimits).start()
			resp, err := h.client.Get(h.url + "/v2/_sim_stream?bytes=1073741824")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			h.deaf.Store(deaf)
			if deaf {
				// Windows are opened as long as the body is read, until all that was received is.
				go func() { _, _ = io.Copy(io.Discard, resp.Body) }()
			}
			eventually(t, "FreeAgent's answer was cut off", func() bool { return h.sim.Stats().InFlight == 0 })
			h.deaf.Store(false)
			eventually(t, "the request ended in the log", func() bool { return strings.Contains(h.proxy.stderr.String(), `"path":"/v2/_sim_stream"`) })
			if resp, body, err := h.do(t.Context(), http.MethodGet, "/v2/company", nil); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("afterwards: got %v %q %v", resp, body, err)
			}
		})
	}
}

// Who leaves while it waits takes nothing from the budget.
func TestHTTP2Leaves(t *testing.T) {
	t.Parallel()
	h := newH2C(t, "", oneAMinute).start()
	if resp, _, err := h.do(t.Context(), http.MethodGet, "/v2/company", nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %v %v", resp, err)
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	left := make(chan error, 1)
	go func() {
		_, _, err := h.do(ctx, http.MethodPost, "/v2/contacts", strings.NewReader(contact))
		left <- err
	}()
	page := operatorURL(t, h.proxy)
	eventually(t, "the request that waits", func() bool {
		_, body, err := get(page + "/metrics")
		return err == nil && strings.Contains(string(body), "freeagent_proxy_queue_length{budget=\"api/acme\"} 1\n")
	})
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the client left", err)
	}
	if _, err := h.proxy.await(&h.proxy.stderr, `"status":499,.*client left while waiting`); err != nil {
		t.Error(err)
	}
	if got := len(h.arrivals()); got != 1 {
		t.Errorf("FreeAgent saw %d requests, want 1", got)
	}
}

// At SIGTERM a request that was sent is finished, also by HTTP/2.
func TestHTTP2Drains(t *testing.T) {
	t.Parallel()
	h := newH2C(t, "", noLimits)
	freeAgent := h.bar("/v2/contacts")
	h.start()
	result := make(chan string, 1)
	go func() {
		resp, body, err := h.do(context.Background(), http.MethodPost, "/v2/contacts", strings.NewReader(contact), jsonType)
		if err == nil {
			body = resp.Status
		}
		result <- fmt.Sprint(body, err)
	}()
	eventually(t, "the request at FreeAgent", func() bool { return len(h.arrivals()) == 1 })
	if err := h.proxy.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := h.proxy.await(&h.proxy.stderr, `"a write is at FreeAgent; its answer is waited for"`); err != nil {
		t.Error(err)
	}
	freeAgent.let()
	if code, err := h.proxy.wait(); err != nil || code != exitOK {
		t.Errorf("exit code %d, %v", code, err)
	}
	if got := <-result; got != "201 Created<nil>" {
		t.Errorf("got %s, want 201", got)
	}
}
