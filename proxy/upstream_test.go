package proxy_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"
)

// upstream is FreeAgent played by a test, for what the simulator is too well-behaved to do.
type upstream struct {
	t    *testing.T
	url  string
	over chan struct{} // closed when the test is over
	mu   sync.Mutex
	seen []*received
	open map[net.Conn]bool
}

// received is a request as it arrived.
type received struct {
	conn   *upstreamConn
	over   <-chan struct{}
	nth    int    // of all requests, from 1
	number int    // of its connection, from 1
	head   string // request line and header lines, byte for byte
	method string
	target string
	header http.Header
	length int64  // of the body, once it was read
	sha256 string // of the body
	body   string // its first MB
}

// upstreamConn is a connection of the proxy's to the upstream.
type upstreamConn struct {
	*net.TCPConn
	in *bufio.Reader
}

// answerer answers a request, whose body it must read; false: the connection is closed.
type answerer func(q *received) (keep bool)

func newUpstream(t *testing.T, answer answerer) *upstream {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{t: t, url: "http://" + listener.Addr().String(), over: make(chan struct{}), open: make(map[net.Conn]bool)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			u.open[conn] = true
			u.mu.Unlock()
			running.Go(func() { u.serve(conn.(*net.TCPConn), answer) })
		}
	})
	t.Cleanup(func() {
		close(u.over)
		_ = listener.Close()
		u.mu.Lock()
		for conn := range u.open {
			_ = conn.Close()
		}
		u.mu.Unlock()
		running.Wait()
	})
	return u
}

func (u *upstream) serve(conn *net.TCPConn, answer answerer) {
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.open, conn)
		_ = conn.Close()
	}()
	c := &upstreamConn{conn, bufio.NewReader(conn)}
	for number := 1; ; number++ {
		q, err := c.receive()
		if err != nil {
			return
		}
		u.mu.Lock()
		q.number, q.nth, q.over = number, len(u.seen)+1, u.over
		u.seen = append(u.seen, q)
		u.mu.Unlock()
		if !answer(q) {
			return
		}
	}
}

// receive reads a request up to its body.
func (c *upstreamConn) receive() (*received, error) {
	var head strings.Builder
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = c.in.ReadString('\n'); err != nil {
			return nil, err
		}
		head.WriteString(line)
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head.String())))
	if err != nil {
		return nil, fmt.Errorf("the proxy sent %q: %w", head.String(), err)
	}
	return &received{conn: c, head: head.String(), method: r.Method, target: r.RequestURI, header: r.Header}, nil
}

// read takes in the request's body.
func (q *received) read() {
	var body io.Reader = strings.NewReader("")
	var length int64
	for line := range strings.Lines(strings.ToLower(q.head)) {
		if _, err := fmt.Sscanf(line, "content-length: %d", &length); err == nil {
			body = io.LimitReader(q.conn.in, length)
		}
		if strings.HasPrefix(line, "transfer-encoding: chunked") {
			body = httputil.NewChunkedReader(q.conn.in)
		}
	}
	hash, keep := sha256.New(), &strings.Builder{}
	start, _ := io.Copy(io.MultiWriter(hash, keep), io.LimitReader(body, 1<<20))
	more, _ := io.Copy(hash, body)
	q.length, q.sha256, q.body = start+more, hex.EncodeToString(hash.Sum(nil)), keep.String()
}

// buffered takes what has already been read of the body.
func (q *received) buffered() string {
	start, _ := q.conn.in.Peek(q.conn.in.Buffered())
	return string(start)
}

// wait returns when the test goes on, or is over.
func (q *received) wait(on <-chan struct{}) {
	select {
	case <-on:
	case <-q.over:
	}
}

// write answers; a proxy that has hung up does not mind.
func (q *received) write(text ...string) bool {
	_, err := io.WriteString(q.conn, strings.Join(text, ""))
	return err == nil
}

// all returns what was received so far.
func (u *upstream) all() []*received {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*received(nil), u.seen...)
}

// only expects exactly one request to have arrived.
func (u *upstream) only() *received {
	u.t.Helper()
	all := u.all()
	if len(all) != 1 {
		u.t.Fatalf("%d requests upstream, want 1", len(all))
	}
	return all[0]
}

// nothing expects that no request has arrived.
func (u *upstream) nothing() {
	u.t.Helper()
	if all := u.all(); len(all) != 0 {
		u.t.Errorf("%d requests upstream, want none: %q", len(all), all[0].head)
	}
}

// has reports whether a header line arrived, as it stands.
func (q *received) has(line string) bool { return strings.Contains(q.head, "\r\n"+line+"\r\n") }

// reply is an answer with a Content-Length.
func reply(status int, body string, headers ...string) string {
	lines := append([]string{fmt.Sprintf("HTTP/1.1 %d %s", status, http.StatusText(status))}, headers...)
	return text(append(lines, fmt.Sprintf("Content-Length: %d", len(body)))...) + body
}

const fine = `{"company":{"name":"Acme"}}`

// always gives every request the same answer, of which HEAD gets the header.
func always(text string) answerer {
	return func(q *received) bool {
		q.read()
		if q.method == "HEAD" {
			header, _, _ := strings.Cut(text, "\r\n\r\n")
			return q.write(header, "\r\n\r\n")
		}
		return q.write(text)
	}
}

// well answers every request 200.
var well = always(reply(200, fine, "Content-Type: application/json; charset=utf-8"))

// renewed is the token endpoint's answer: from then on it is "next" that serves.
var renewed = reply(200, `{"access_token":"next","token_type":"bearer","expires_in":3600,"refresh_token":"next-refresh"}`, "Content-Type: application/json")

func hashOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}
