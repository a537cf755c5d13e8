package proxy_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// A client that sends all of its request before it reads gets to know why it was refused, however long the body is.
func TestRefusedBodyIsHeardOut(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, well)
	type request struct {
		head   string
		body   string
		status int
	}
	long, tooLong := strings.Repeat("x", 12*mib), strings.Repeat("x", 64*mib+1)
	const host = "Host: localhost"
	length := func(body string) string { return fmt.Sprintf("Content-Length: %d", len(body)) }
	together([]request{
		{text("POST /nowhere HTTP/1.1", host, length(long)), long, 404},
		{text("POST /nowhere HTTP/1.0", length(long)), long, 404},
		{text("POST /nowhere HTTP/1.1", host, "Transfer-Encoding: chunked"), chunked(long), 404},
		{text("FETCH /v2/x HTTP/1.1", host, length(long)), long, 405},
		{text("POST /v2/x HTTP/1.1", "Host: evil.example", length(long)), long, 421},
		{text("POST /v2/x HTTP/1.1", host, "Idempotency-Key: a b", length(long)), long, 400},
		{text("POST /v2/token_endpoint HTTP/1.1", host, "Transfer-Encoding: chunked"), chunked(long), 413},
		{text("POST /v2/x HTTP/1.1", host, length(tooLong)), tooLong, 413},
		{text("POST /v2/x HTTP/1.1", host, "Transfer-Encoding: chunked"), chunked(tooLong), 413},
	}, func(q request) {
		c := r.dial()
		for _, piece := range []string{q.head, q.body[:mib], q.body[mib:]} {
			if _, err := io.WriteString(c.TCPConn, piece); err != nil {
				t.Errorf("%q: the request was cut off: %v", q.head, err)
				return
			}
			time.Sleep(600 * time.Millisecond) // longer than net/http waits before it closes
		}
		got := c.answer("POST")
		got.refused(t, q.status, "")
		equal(t, q.head+": closes", got.closes, true)
	})
	u.nothing()
}

// Nobody waits for the rest of a refused body when the proxy shuts down.
func TestDrainHearsNobodyOut(t *testing.T) {
	t.Parallel()
	r, _ := withUpstream(t, well)
	c := r.dial().send(text("POST /nowhere HTTP/1.1", "Host: localhost", "Content-Length: 9000000"))
	c.answer("POST").refused(t, 404, "")
	r.logged(1)
	began := time.Now()
	r.proxy.Drain()
	equal(t, "rest", c.rest(), "")
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("closed after %v", took)
	}
}
