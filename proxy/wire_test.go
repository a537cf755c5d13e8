package proxy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// client is a program at a socket, that sends exact bytes.
type client struct {
	t *testing.T
	*net.TCPConn
	in *bufio.Reader
}

// patience is how long a client waits for anything at all.
const patience = 40 * time.Second

func (r *rig) dial() *client {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &client{t: r.t, TCPConn: conn.(*net.TCPConn), in: bufio.NewReader(conn)}
}

// send writes; a proxy that hangs up meanwhile is seen when its answer is read.
func (c *client) send(text ...string) *client {
	c.t.Helper()
	_, err := io.WriteString(c.TCPConn, strings.Join(text, ""))
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Fatal(err)
	}
	return c
}

// halfClose says that no more will be sent.
func (c *client) halfClose() *client {
	_ = c.CloseWrite()
	return c
}

// answer is what a client got.
type answer struct {
	status int
	proto  string
	header http.Header
	body   string
	closes bool  // Connection: close, or HTTP/1.0 without keep-alive
	err    error // the body was cut off
}

// answer reads one answer to a request of that method.
func (c *client) answer(method string) *answer {
	c.t.Helper()
	resp := c.begin(method)
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return &answer{resp.StatusCode, resp.Proto, resp.Header, string(body), resp.Close, err}
}

// begin reads an answer's header.
func (c *client) begin(method string) *http.Response {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("read answer: %v", err)
	}
	return resp
}

// rest reads to the end of the connection. A reset is an end, too.
func (c *client) rest() string {
	c.t.Helper()
	var rest bytes.Buffer
	if _, err := rest.ReadFrom(c.in); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Fatalf("read to the end: %v, after %q", err, rest.String())
	}
	return rest.String()
}

// ask sends a request as it stands on a new connection and reads one answer.
func (r *rig) ask(request string) *answer {
	r.t.Helper()
	method, _, _ := strings.Cut(request, " ")
	return r.dial().send(request).answer(method)
}

// do asks in HTTP/1.1 with these header lines, and a Content-Length if there is a body.
func (r *rig) do(method, target, body string, headers ...string) *answer {
	r.t.Helper()
	return r.ask(r.request(method, target, body, headers...))
}

func (r *rig) get(target string, headers ...string) *answer {
	r.t.Helper()
	return r.do("GET", target, "", headers...)
}

func (r *rig) request(method, target, body string, headers ...string) string {
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: " + r.addr}, headers...)
	if body != "" {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return text(lines...) + body
}

// text joins lines as HTTP does, and ends a header with an empty one.
func text(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n\r\n" }

// chunked is a body in chunks.
func chunked(chunks ...string) string {
	var b strings.Builder
	for _, chunk := range append(chunks, "") {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(chunk), chunk)
	}
	return b.String()
}

// refused expects an answer of the proxy's own.
func (a *answer) refused(t *testing.T, status int, sentence string) {
	t.Helper()
	equal(t, "status", a.status, status)
	if !strings.Contains(a.body, sentence) {
		t.Errorf("body %q, want %q in it", a.body, sentence)
	}
	if got := a.header.Get("Proxy-Status"); !strings.HasPrefix(got, "freeagent-proxy; error=") {
		t.Errorf("Proxy-Status %q", got)
	}
	if a.header.Get("X-Request-Id") == "" {
		t.Error("no X-Request-Id")
	}
}

// passed expects an upstream's answer.
func (a *answer) passed(t *testing.T, status int, body string) {
	t.Helper()
	if a.status != status || a.body != body || a.err != nil {
		t.Errorf("got %d %q (%v), want %d %q", a.status, a.body, a.err, status, body)
	}
	if got := a.header.Get("Proxy-Status"); got != "" {
		t.Errorf("Proxy-Status %q on an answer that is not the proxy's", got)
	}
}
