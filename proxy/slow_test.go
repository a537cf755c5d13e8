package proxy_test

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/limiter"
)

// silence is how long FreeAgent may be silent in tests: longer than a busy machine takes for any one step before it.
const silence = 2 * time.Second

// FreeAgent's silence has an end. A read is not sent again after it: its client has waited long enough.
func TestUpstreamIsSilent(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "POST"} {
		r, u := withUpstream(t, func(q *received) bool { q.read(); q.wait(nil); return false }, timeout(silence))
		got := r.do(method, "/v2/invoices", "")
		got.refused(t, 504, "FreeAgent did not answer in time")
		equal(t, method+": may have acted", strings.Contains(got.body, mayHaveActed), method == "POST")
		equal(t, "error", strings.Contains(got.header.Get("Proxy-Status"), "error=http_response_timeout"), true)
		u.only()
		equal(t, "permits", r.taken(ample), 1)
		if took := r.logged(1)["duration_ms"].(float64); took < 2000 || took > 20_000 {
			t.Errorf("took %v ms", took)
		}
	}
}

// So has its silence in the middle of an answer.
func TestAnswerStalls(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
		r, _ := withUpstream(t, func(q *received) bool {
			q.read()
			q.write(text("HTTP/1.1 200 OK", header), "4\r\nhalf\r\n")
			q.wait(nil)
			return false
		}, timeout(silence))
		c := r.dial().send(r.request("GET", "/v2/company", ""))
		got := c.answer("GET")
		if got.status != 200 || got.err == nil {
			t.Errorf("%s: %d %q %v", header, got.status, got.body, got.err)
		}
		equal(t, "rest", c.rest(), "")
		equal(t, "reason", r.logged(1)["reason"], "upstream broke off its answer")
	}
}

// An answer that moves may take longer than the timeout in all, and comes as it moves.
func TestSlowAnswerIsNotCut(t *testing.T) {
	t.Parallel()
	const piece = "0123456789"
	type framing struct{ header, piece, end string }
	together([]framing{
		{"Content-Length: 60", piece, ""},
		{"Transfer-Encoding: chunked", "a\r\n" + piece + "\r\n", "0\r\n\r\n"},
		{"Connection: close", piece, ""},
	}, func(c framing) {
		got := make(chan struct{})
		r, _ := withUpstream(t, func(q *received) bool {
			q.read()
			q.write(text("HTTP/1.1 200 OK", c.header), c.piece)
			q.wait(got) // the client has the first piece before there is a second one
			for range 5 {
				time.Sleep(silence / 4)
				q.write(c.piece)
			}
			return q.write(c.end) && c.header != "Connection: close"
		}, timeout(silence))
		resp := r.dial().send(r.request("GET", "/v2/company", "")).begin("GET")
		first := make([]byte, len(piece))
		_, err := io.ReadFull(resp.Body, first)
		close(got)
		equal(t, c.header+": first error", err, nil)
		rest, err := io.ReadAll(resp.Body)
		equal(t, c.header+": body", string(first)+string(rest), strings.Repeat(piece, 6))
		equal(t, c.header+": error", err, nil)
	})
}

// A body may take longer on its way there, too.
func TestSlowUploadIsNotCut(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("0123456789abcdef", 24<<16) // 24 MiB
	r, u := withUpstream(t, func(q *received) bool {
		_ = q.conn.SetReadBuffer(64 << 10)
		q.conn.in = bufio.NewReaderSize(&slowReader{io.MultiReader(strings.NewReader(q.buffered()), q.conn), 20 * mib}, 64<<10)
		q.read()
		return q.write(reply(201, fine)) && false
	}, timeout(3*time.Second))
	r.do("POST", "/v2/attachments", body).passed(t, 201, fine)
	equal(t, "hash", u.only().sha256, hashOf(body))
	if took := r.logged(1)["duration_ms"].(float64); took < 3000 {
		t.Errorf("took %v ms: not long enough to prove anything", took)
	}
}

// slowReader reads 5 MiB a second for so many bytes.
type slowReader struct {
	io.Reader
	slow int
}

func (r *slowReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if r.slow > 0 {
		time.Sleep(time.Duration(n) * time.Second / (5 * mib))
	}
	r.slow -= n
	return n, err
}

// An upload that nobody takes has an end, too.
func TestUploadStalls(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, func(q *received) bool { q.wait(nil); return false }, timeout(silence))
	got := r.do("POST", "/v2/attachments", strings.Repeat("x", 20*mib))
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
			time.Sleep(silence + silence/2)
			return q.write(renewed)
		case q.header.Get("Authorization") == "Bearer next":
			return q.write(reply(200, fine))
		}
		return q.write(reply(401, "no"))
	}, timeout(silence))
	r.do("POST", "/v2/invoices", "{}").passed(t, 200, fine)
	equal(t, "upstream", len(u.all()), 3)
}

// However long a replay waits for its turn, the client has all its time to take the answer: also one without a body, which nothing
// but its header is written of.
func TestAnswerAfterLongWait(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, func(q *received) bool {
		q.read()
		switch {
		case q.target == "/v2/token_endpoint":
			return q.write(renewed)
		case q.header.Get("Authorization") == "Bearer next":
			return q.write(text("HTTP/1.1 204 No Content"))
		}
		return q.write(reply(401, "no"))
	}, timeout(silence), api(limiter.Window{Requests: 1, Per: 2 * silence}))
	equal(t, "status", r.dial().send(r.request("DELETE", "/v2/invoices/1", "")).answer("DELETE").status, 204)
	equal(t, "upstream", len(u.all()), 3)
}

// A request is counted soon after it was sent, not when its answer comes at last: another one may have the turn by then. So it is
// time and again, with what has served requests before.
func TestSlowAnswerKeepsNoTurn(t *testing.T) {
	t.Parallel()
	arrived, leave := make(chan struct{}, 4), make(chan struct{})
	r, _ := withUpstream(t, func(q *received) bool {
		q.read()
		if q.target == "/v2/slow" {
			arrived <- struct{}{}
			q.wait(leave)
		}
		return q.write(reply(200, fine))
	}, api(limiter.Window{Requests: 1, Per: 100 * time.Millisecond}), maxWait(5*time.Second))
	for range 4 {
		slow := r.dial().send(r.request("GET", "/v2/slow", ""))
		<-arrived
		r.do("GET", "/v2/company", "").passed(t, 200, fine)
		leave <- struct{}{}
		slow.answer("GET").passed(t, 200, fine)
	}
}

// FreeAgent may answer before it has read a body; what it says is the client's.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 20*mib)
	r, u := withUpstream(t, func(q *received) bool { // it reads no more
		q.write(reply(413, fine, "Connection: close"))
		q.wait(nil)
		return false
	})
	got := r.do("POST", "/v2/attachments", body)
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
