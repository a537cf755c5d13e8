package proxy_test

import (
	"strings"
	"testing"
	"time"
)

// FreeAgent's silence has an end. A read is not sent again after it: its client has waited long enough.
func TestUpstreamIsSilent(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "POST"} {
		leave := make(chan struct{})
		r, u := withUpstream(t, func(q *received) bool { q.read(); <-leave; return false }, timeout(300*time.Millisecond))
		got := r.do(method, "/v2/invoices", "")
		close(leave)
		got.refused(t, 504, "FreeAgent did not answer in time")
		equal(t, method+": may have acted", strings.Contains(got.body, mayHaveActed), method == "POST")
		equal(t, "error", strings.Contains(got.header.Get("Proxy-Status"), "error=http_response_timeout"), true)
		u.only()
		equal(t, "permits", r.taken(ample), 1)
		if took := r.logged(1)["duration_ms"].(float64); took < 300 || took > 10_000 {
			t.Errorf("took %v ms", took)
		}
	}
}

// So has its silence in the middle of an answer.
func TestAnswerStalls(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
		leave := make(chan struct{})
		r, _ := withUpstream(t, func(q *received) bool {
			q.read()
			q.write(text("HTTP/1.1 200 OK", header), "4\r\nhalf\r\n")
			<-leave
			return false
		}, timeout(300*time.Millisecond))
		c := r.dial().send(r.request("GET", "/v2/company", ""))
		got := c.answer("GET")
		close(leave)
		if got.status != 200 || got.err == nil {
			t.Errorf("%s: %d %q %v", header, got.status, got.body, got.err)
		}
		equal(t, "rest", c.rest(), "")
		equal(t, "reason", r.logged(1)["reason"], "upstream broke off its answer")
	}
}

// An answer that moves may take longer than the timeout in all.
func TestSlowAnswerIsNotCut(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"Content-Length: 60", "Transfer-Encoding: chunked"} {
		r, _ := withUpstream(t, func(q *received) bool {
			q.read()
			q.write(text("HTTP/1.1 200 OK", header))
			for range 6 {
				time.Sleep(400 * time.Millisecond)
				if header == "Content-Length: 60" {
					q.write("0123456789")
				} else {
					q.write("a\r\n0123456789\r\n")
				}
			}
			return q.write(strings.TrimPrefix(header, "Content-Length: 60"), "0\r\n\r\n") && false
		}, timeout(1200*time.Millisecond))
		r.get("/v2/company").passed(t, 200, strings.Repeat("0123456789", 6))
	}
}

// So may a body on its way there.
func TestSlowUploadIsNotCut(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, func(q *received) bool {
		_ = q.conn.SetReadBuffer(64 << 10)
		for range 30 { // in the kernel's buffers there is room for the rest
			_, _ = q.conn.in.Discard(128 << 10)
			time.Sleep(100 * time.Millisecond)
		}
		q.read()
		return q.write(reply(201, fine)) && false
	}, timeout(1200*time.Millisecond))
	body := strings.Repeat("0123456789abcdef", 1<<20)
	go func() {}()
	c := r.dial().send(r.request("POST", "/v2/attachments", body))
	equal(t, "status", c.answer("POST").status, 201)
	u.only()
}

// An upload that nobody takes has an end, too.
func TestUploadStalls(t *testing.T) {
	t.Parallel()
	leave := make(chan struct{})
	r, u := withUpstream(t, func(q *received) bool { <-leave; return false }, timeout(500*time.Millisecond))
	got := r.do("POST", "/v2/attachments", strings.Repeat("x", 20*mib))
	close(leave)
	got.refused(t, 504, mayHaveActed)
	u.only()
}

// While a token is renewed the rejected answer's connection is not what times out.
func TestSlowRenewalIsNotCut(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, func(q *received) bool {
		q.read()
		switch {
		case q.target == "/v2/token_endpoint":
			time.Sleep(1500 * time.Millisecond)
			return q.write(reply(200, `{"access_token":"next","expires_in":3600,"refresh_token":"two"}`, "Content-Type: application/json"))
		case q.header.Get("Authorization") == "Bearer next":
			return q.write(reply(200, fine))
		}
		return q.write(reply(401, "no"))
	}, timeout(500*time.Millisecond))
	r.do("POST", "/v2/invoices", "{}").passed(t, 200, fine)
	equal(t, "upstream", len(u.all()), 3)
}

// FreeAgent may answer before it has read a body; what it says is the client's.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 20*mib)
	leave := make(chan struct{})
	r, u := withUpstream(t, func(q *received) bool { // it reads no more
		q.write(reply(413, fine, "Connection: close"))
		<-leave
		return false
	})
	got := r.do("POST", "/v2/attachments", body)
	close(leave)
	got.passed(t, 413, fine)
	u.only()

	r, u = withUpstream(t, func(q *received) bool { // it reads on
		q.write(reply(413, fine, "Connection: close"))
		q.read()
		return false
	})
	r.do("POST", "/v2/attachments", body).passed(t, 413, fine)
	u.only()

	r, u = withUpstream(t, func(q *received) bool { // it hangs up: the answer may be lost, but not the client
		q.write(reply(413, fine, "Connection: close"))
		return false
	})
	if got := r.do("POST", "/v2/attachments", body); got.status != 413 && !strings.Contains(got.body, mayHaveActed) {
		t.Errorf("%d %s", got.status, got.body)
	}
	u.only()
}
