package proxy_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/limiter"
)

// framings of a body of which only the beginning comes.
var halves = map[string]string{
	"Content-Length: 100":        "half",
	"Content-Length: 20000000":   strings.Repeat("half", 1<<19),
	"Transfer-Encoding: chunked": "4\r\nhalf\r\n",
}

// A body that stops coming holds nothing for ever, and nothing of it is sent.
func TestBodyStopsComing(t *testing.T) {
	t.Parallel()
	for framing, half := range halves {
		r, u := withUpstream(t, well, timeout(300*time.Millisecond))
		c := r.dial().send(text("POST /v2/invoices HTTP/1.1", "Host: "+r.addr, framing), half)
		got := c.answer("POST")
		if got.refused(t, 408, "nothing was sent to FreeAgent"); t.Failed() {
			t.Fatal(framing)
		}
		equal(t, framing+": closes", got.closes, true)
		equal(t, framing+": rest", c.rest(), "")
		equal(t, framing+": permits", r.taken(ample), 0)
		u.nothing()
	}
}

// A body that moves may take longer than the timeout, and leaves no deadline behind for the
// next request of its connection, or for a wait.
func TestSlowBodyIsNotCut(t *testing.T) {
	t.Parallel()
	const idle = 2 * time.Second
	r, u := withUpstream(t, func(q *received) bool {
		q.read()
		time.Sleep(idle / 4)
		return q.write(reply(201, fine))
	}, timeout(idle))
	c := r.dial().send(text("POST /v2/invoices HTTP/1.1", "Host: "+r.addr, "Content-Length: 12"))
	for _, piece := range strings.Split("so,me,th,in,ga,bc", ",") { // an idle and a half in all
		time.Sleep(idle / 4)
		c.send(piece)
	}
	c.answer("POST").passed(t, 201, fine)
	equal(t, "body", u.only().body, "somethingabc")
	time.Sleep(idle + idle/4)
	c.send(r.request("POST", "/v2/invoices", "{}")).answer("POST").passed(t, 201, fine)
}

// Shutting down does not wait for bodies: nothing of them was sent.
func TestDrainRefusesUploads(t *testing.T) {
	t.Parallel()
	for framing, half := range halves {
		r, u := withUpstream(t, well)
		c := r.dial().send(text("POST /v2/invoices HTTP/1.1", "Host: "+r.addr, "Expect: 100-continue", framing))
		equal(t, framing+": asks for the body", c.begin("POST").StatusCode, 100)
		c.send(half)
		r.proxy.Drain()
		got := c.answer("POST")
		if got.refused(t, 503, "shutting down"); t.Failed() {
			t.Fatal(framing)
		}
		equal(t, framing+": Retry-After", got.header.Get("Retry-After"), "5")
		equal(t, framing+": closes", got.closes, true)

		r.do("POST", "/v2/invoices", "{}").refused(t, 503, "shutting down")
		u.nothing()
		r.get("/v2/company").passed(t, 200, fine) // it is the limiter that ends these
	}
}

// A client that takes nothing of its answer does not keep a connection to FreeAgent for ever, nor its own: net/http
// clears a connection's deadline after each answer.
func TestClientStopsReading(t *testing.T) {
	t.Parallel()
	for _, before := range []int{0, 1} { // answers on the same connection
		left := make(chan struct{})
		r, _ := withUpstream(t, func(q *received) bool {
			if q.target == "/v2/company" {
				return q.write(reply(200, fine))
			}
			q.write(text("HTTP/1.1 200 OK", "Content-Length: 1073741824"))
			for piece := strings.Repeat("x", mib); q.write(piece); {
			}
			close(left)
			return false
		}, timeout(silence))
		c := r.dial()
		for range before {
			c.send(r.request("GET", "/v2/company", "")).answer("GET").passed(t, 200, fine)
		}
		begun := c.send(r.request("GET", "/v2/attachments/1", "")).begin("GET")
		select {
		case <-left:
		case <-time.After(patience):
			t.Fatal("FreeAgent is still sending")
		}
		r.logged(before + 1)
		if n, err := io.Copy(io.Discard, begun.Body); err == nil {
			t.Errorf("an answer of 1 GiB looks whole after %d bytes", n)
		}
	}
}

// A refusal does not wait for the rest of a body, which does not hold its connection for ever either.
func TestRefusedBodyStopsComing(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, well)
	type refusal struct {
		request, half string
		status        int
	}
	var cases []refusal
	for framing, half := range halves {
		cases = append(cases,
			refusal{text("POST /nowhere HTTP/1.1", "Host: localhost", framing), half, 404},
			refusal{text("POST /nowhere HTTP/1.1", "Host: localhost", framing, "Expect: 100-continue"), "", 404},
			refusal{text("PUT /v2/company HTTP/1.1", "Host: evil.example", framing), half, 421},
			refusal{text("POST /v2/company HTTP/1.1", "Host: localhost", "Origin: null", framing), "", 403},
			refusal{text("POST /v2/company HTTP/1.1", "Host: localhost", "X-FreeAgent-Account: nobody", framing), half, 404})
	}
	cases = append(cases,
		refusal{text("POST /nope HTTP/1.1", "Host: localhost", "Content-Length: 10"), "abc", 404},
		refusal{text("POST /nope HTTP/1.0", "Connection: keep-alive", "Content-Length: 10"), "abc", 404},
		refusal{text("GET /nope HTTP/1.1", "Host: localhost", "Content-Length: 10"), "", 404})
	together(cases, func(c refusal) {
		client, began := r.dial().send(c.request, c.half), time.Now()
		got := client.answer("POST")
		if took := time.Since(began); took > 10*time.Second { // what it must not wait for never comes
			t.Errorf("%q: answered after %v", c.request, took)
		}
		got.refused(t, c.status, "")
		equal(t, c.request+": closes", got.closes, true)
		equal(t, c.request+": rest", client.rest(), "")
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%q: closed after %v", c.request, took)
		}
	})
	u.nothing()
}

// A refusal without a body, and one whose body was read, leave the connection open.
func TestRefusalKeepsConnection(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, always(reply(200, fine)), api(limiter.Window{Requests: 1, Per: time.Hour}))
	c := r.dial()
	c.send(r.request("GET", "/v2/company", "")).answer("GET").passed(t, 200, fine)
	for _, framing := range []string{"Content-Length: 8", "Transfer-Encoding: chunked"} {
		body := "8 bytes."
		if strings.HasPrefix(framing, "Transfer") {
			body = chunked(body)
		}
		for _, request := range []string{
			text("GET /nope HTTP/1.1", "Host: localhost"),
			text("POST /nope HTTP/1.1", "Host: localhost", "Content-Length: 0"),
			text("POST /v2/invoices HTTP/1.1", "Host: localhost", "Prefer: wait=0", framing) + body,
		} {
			got := c.send(request).answer("POST")
			if got.status != 404 && got.status != 429 {
				t.Errorf("%q: status %d", request, got.status)
			}
			equal(t, request+": closes", got.closes, false)
		}
	}
	u.only()
}

// A client that reads slowly gets all of it, longer than the timeout.
func TestSlowReaderIsNotCut(t *testing.T) {
	t.Parallel()
	const size = 24 * mib
	r, _ := withUpstream(t, always(reply(200, strings.Repeat("x", size))), timeout(4*time.Second))
	c := r.dial()
	_ = c.SetReadBuffer(64 << 10)
	began := time.Now()
	n, err := io.Copy(io.Discard, &slowReader{c.send(r.request("GET", "/v2/attachments/1", "")).begin("GET").Body, size})
	if n != size || err != nil {
		t.Errorf("%d bytes, %v; want %d", n, err, size)
	}
	if took := time.Since(began); took < 4500*time.Millisecond {
		t.Errorf("took %v: not long enough to prove anything", took)
	}
}
