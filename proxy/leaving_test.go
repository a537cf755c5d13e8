package proxy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

// one is a budget that is used up while another request has the only permit.
var one = []limiter.Window{{Requests: 1, Per: time.Second}}

// fill uses up a budget of one.
func (r *rig) fill() {
	r.t.Helper()
	equal(r.t, "first request", r.get("/v2/company").status, 200)
}

// halfClosers are requests of programs that close their half of the connection at once and
// will send nothing more: they wait for the answer.
var halfClosers = []string{
	text("GET /v2/company HTTP/1.0"),
	text("GET /v2/company HTTP/1.0", "Host: localhost"),
	text("GET /v2/company HTTP/1.0", "Connection: keep-alive"),
	text("GET /v2/company HTTP/1.1", "Host: localhost", "Connection: close"),
	text("POST /v2/company HTTP/1.0", "Content-Length: 2") + "{}",
	text("POST /v2/company HTTP/1.1", "Host: localhost", "Connection: close", "Transfer-Encoding: chunked") + chunked("{}"),
	"GET /v2/company HTTP/1.0\n\n",
	"GET /v2/company HTTP/1.1\nHost: localhost\nConnection: close\n\n",
}

// sawEnd waits for the proxy to know that the client of a request has closed the connection, or its half of it.
func (r *rig) sawEnd() {
	r.t.Helper()
	soon(r.t, "the proxy sees the connection end", func() bool { return r.ended.Load() > 0 })
}

// A client that half-closes is answered although it must queue for a permit.
func TestHalfClosedWhileQueueing(t *testing.T) {
	t.Parallel()
	together(halfClosers, func(request string) {
		r, u := withUpstream(t, well, api(one...))
		letGo := r.hold(proxy.Anonymous, one)
		c := r.dial().send(request).halfClose()
		r.oneWaits()
		waits := time.Now()
		r.sawEnd()
		u.nothing()
		time.Sleep(10 * time.Millisecond) // of waiting, which the log is to tell
		waited := time.Since(waits)
		letGo()
		c.answer("GET").passed(t, 200, fine)
		u.only()
		if line := r.logged(1); line["waited_ms"].(float64) < float64(waited.Milliseconds()) || line["status"] != 200.0 {
			t.Errorf("%q: logged %v", request, line)
		}
	})
}

// And although FreeAgent takes its time. Nothing waits here, so that goes for HTTP/1.1 without
// Connection: close, too (printf … | nc).
func TestHalfClosedWhileUpstreamIsSlow(t *testing.T) {
	t.Parallel()
	keepAlive := text("POST /v2/company HTTP/1.1", "Host: localhost", "Content-Length: 2") + "{}"
	together(append(halfClosers, keepAlive), func(request string) {
		leave := make(chan struct{})
		r, u := withUpstream(t, func(q *received) bool {
			q.read()
			q.wait(leave)
			return q.write(reply(200, fine))
		})
		c := r.dial().send(request).halfClose()
		r.sawEnd()
		close(leave)
		c.answer("GET").passed(t, 200, fine)
		u.only()
	})
}

// A half-closed client that does not need to wait is served, whenever the server happens to notice.
func TestHalfClosedAtOnce(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, well)
	for range 100 {
		c := r.dial().send(text("GET /v2/company HTTP/1.1", "Host: localhost")).halfClose()
		c.answer("GET").passed(t, 200, fine)
	}
	equal(t, "upstream", len(u.all()), 100)
}

// Nor does a 401 that is cured make it wait for its turn.
func TestHalfClosedIsCured(t *testing.T) {
	t.Parallel()
	half := make(chan struct{})
	r, u := withUpstream(t, func(q *received) bool {
		q.read()
		switch {
		case q.target == "/v2/token_endpoint":
			return q.write(renewed)
		case q.header.Get("Authorization") == "Bearer next":
			return q.write(reply(200, fine))
		}
		q.wait(half)
		return q.write(reply(401, "no"))
	})
	c := r.dial().send(r.request("POST", "/v2/invoices", "{}")).halfClose()
	r.sawEnd()
	close(half)
	c.answer("POST").passed(t, 200, fine)
	equal(t, "upstream", len(u.all()), 3)
}

// A client that leaves while it waits takes no permit, and is logged as one that left. If it has only
// closed its half it gets an answer that it cannot take for FreeAgent's.
func TestLeavesWhileWaiting(t *testing.T) {
	t.Parallel()
	for _, half := range []bool{false, true} {
		windows := []limiter.Window{{Requests: 1, Per: time.Minute}}
		r, u := withUpstream(t, well, api(windows...), maxWait(2*time.Minute))
		r.fill()
		c := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
		r.oneWaits()
		if half {
			c.halfClose().answer("POST").refused(t, 503, "FreeAgent did not act on it")
		} else {
			_ = c.Close()
		}
		line := r.logged(2)
		equal(t, "status", line["status"], 499.0)
		equal(t, "attempts", line["attempts"], 0.0)
		equal(t, "answered by", line["answered_by"], "proxy")
		equal(t, "reason", line["reason"], "connection_terminated: client left while waiting")
		equal(t, "waiting", r.limiter.Waiting("api/"+account), 0)
		equal(t, "permits taken", r.taken(windows), 1)
		equal(t, "upstream", len(u.all()), 1)
	}
}

// Nobody's request is sent when its token comes; the token comes all the same.
func TestLeavesWhileTheTokenIsRefreshed(t *testing.T) {
	t.Parallel()
	asked, refresh := make(chan struct{}), make(chan struct{})
	r, u := withUpstream(t, func(q *received) bool {
		q.read()
		if q.target != "/v2/token_endpoint" {
			return q.write(reply(200, fine))
		}
		close(asked)
		q.wait(refresh)
		return q.write(renewed)
	})
	r.grant(accessToken, refreshToken, -time.Second)
	c := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
	<-asked
	_ = c.Close()
	r.sawEnd()
	close(refresh)
	line := r.logged(1)
	equal(t, "status", line["status"], 499.0)
	u.only()
	r.get("/v2/company").passed(t, 200, fine)
	equal(t, "Authorization", u.all()[1].header.Get("Authorization"), "Bearer next")
}

// A client that leaves after its write was passed on leaves a write that is finished, and one line.
func TestLeavesAfterSending(t *testing.T) {
	t.Parallel()
	arrived, leave := make(chan struct{}), make(chan struct{})
	r, u := withUpstream(t, func(q *received) bool {
		q.read()
		close(arrived)
		q.wait(leave)
		return q.write(reply(201, fine))
	})
	c := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
	<-arrived
	_ = c.Close()
	close(leave)
	line := r.logged(1)
	equal(t, "status", line["status"], 201.0)
	equal(t, "upstream", u.only().body, "{}")
}

// HTTP/1.0 with keep-alive keeps the connection when the answer's end can be told.
func TestHTTP10(t *testing.T) {
	r, _ := withUpstream(t, well)
	c := r.dial()
	for range 3 {
		got := c.send(text("GET /v2/company HTTP/1.0", "Connection: Keep-Alive")).answer("GET")
		got.passed(t, 200, fine)
		equal(t, "closes", got.closes, false)
	}
	got := c.send(text("GET /v2/company HTTP/1.0")).answer("GET")
	got.passed(t, 200, fine)
	equal(t, "closes", got.closes, true)
	equal(t, "rest", c.rest(), "")
}

// A chunked answer reaches an HTTP/1.0 client without chunks, ended by the connection.
func TestHTTP10GetsNoChunks(t *testing.T) {
	r, _ := withUpstream(t, always(text("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")+chunked(fine, fine)))
	for _, request := range []string{text("GET /v2/company HTTP/1.0"), text("GET /v2/company HTTP/1.0", "Connection: keep-alive")} {
		raw := r.dial().send(request).rest()
		header, body, _ := strings.Cut(raw, "\r\n\r\n")
		equal(t, "body", body, fine+fine)
		if strings.Contains(strings.ToLower(header), "transfer-encoding") || !strings.HasPrefix(header, "HTTP/1.0 200 OK\r\n") {
			t.Errorf("%q", header)
		}
	}
}

// Requests that were sent ahead are answered in order, each with its own.
func TestPipelining(t *testing.T) {
	r, _ := withUpstream(t, func(q *received) bool {
		q.read()
		return q.write(reply(200, q.target+" "+q.body))
	})
	c := r.dial()
	var all strings.Builder
	for i := range 10 {
		all.WriteString(r.request("POST", fmt.Sprintf("/v2/invoices/%d", i), fmt.Sprintf("body %d", i)))
	}
	c.send(all.String()).halfClose()
	for i := range 10 {
		c.answer("POST").passed(t, 200, fmt.Sprintf("/v2/invoices/%d body %[1]d", i))
	}
	equal(t, "rest", c.rest(), "")
}
