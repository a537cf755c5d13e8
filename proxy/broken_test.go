package proxy_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

const mayHaveActed = "it may have acted on this request, so look before sending it again"

// A read whose connection breaks goes again, twice at most, and each time that counts: Go's transport must not
// send it again by itself when the connection was a kept-alive one.
func TestBrokenReads(t *testing.T) {
	for _, warm := range []bool{true, false} {
		for _, c := range []struct{ method, body string }{{"GET", ""}, {"HEAD", ""}, {"GET", "body"}} {
			soon(t, "the first on a kept-alive connection, if it is to be", func() bool { // Go's transport does not promise to keep one
				return brokenRead(t, c.method, c.body, warm) == warm || t.Failed()
			})
		}
	}
}

// brokenRead reports whether the connection on which a request was sent first was a kept-alive one.
func brokenRead(t *testing.T, method, body string, warm bool) bool {
	t.Helper()
	name := fmt.Sprintf("%s %q, kept-alive %v", method, body, warm)
	r, u := withUpstream(t, func(q *received) bool { q.read(); return warm && q.nth == 1 && q.write(reply(200, fine)) })
	before := 0
	if warm {
		r.get("/v2/company").passed(t, 200, fine)
		before = 1
	}
	got := r.do(method, "/v2/company", body)
	equal(t, name+": status", got.status, 502)
	if strings.Contains(got.body, "may have acted") {
		t.Errorf("%s: %s", name, got.body)
	}
	all := u.all()[before:]
	equal(t, name+": upstream", len(all), 3)
	equal(t, name+": permits", r.taken(ample), before+3)
	equal(t, name+": attempts", r.logged(before + 1)["attempts"], 3.0)
	for _, q := range all {
		equal(t, name+": body", q.body, body)
	}
	return all[0].number > 1
}

// And an answer to the second or third one is the client's.
func TestBrokenReadRecovers(t *testing.T) {
	for hangUps := 1; hangUps <= 2; hangUps++ {
		r, u := withUpstream(t, func(q *received) bool {
			q.read()
			return q.nth > hangUps && q.write(reply(200, fine))
		})
		r.get("/v2/company").passed(t, 200, fine)
		equal(t, "upstream", len(u.all()), hangUps+1)
		equal(t, "permits", r.taken(ample), hangUps+1)
	}
}

// A write that has left is never sent again, whatever happens to its connection, and its client is told so.
func TestBrokenWrites(t *testing.T) {
	for _, warm := range []bool{true, false} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
			for _, body := range []string{"", `{"invoice":{}}`, strings.Repeat("x", 2*mib)} {
				name := fmt.Sprintf("%s of %d bytes, kept-alive %v", method, len(body), warm)
				r, u := withUpstream(t, func(q *received) bool { q.read(); return warm && q.nth == 1 && q.write(reply(200, fine)) })
				before := 0
				if warm {
					r.get("/v2/company").passed(t, 200, fine)
					before = 1
				}
				got := r.do(method, "/v2/invoices/1", body, "Idempotency-Key: 1", "X-Idempotency-Key: 1")
				got.refused(t, 502, mayHaveActed)
				equal(t, name+": closes", got.closes, false)
				equal(t, name+": upstream", len(u.all()), before+1)
				equal(t, name+": hash", u.all()[before].sha256, hashOf(body))
				equal(t, name+": permits", r.taken(ample), before+1)
				equal(t, name+": Retry-After", got.header.Get("Retry-After"), "") // some clients send again by it
			}
		}
	}
}

// A kept-alive connection that FreeAgent closed meanwhile is no reason to fail, nor to write twice.
func TestWriteAfterIdleClose(t *testing.T) {
	closed := make(chan struct{})
	r, u := withUpstream(t, func(q *received) bool {
		q.read()
		ok := q.write(reply(200, fine))
		if q.nth > 1 {
			return ok
		}
		_ = q.conn.CloseWrite()
		_, _ = io.Copy(io.Discard, q.conn) // ends when the proxy has noticed, and closed its half
		close(closed)
		return false
	})
	r.get("/v2/company").passed(t, 200, fine)
	<-closed
	r.do("POST", "/v2/invoices", "{}").passed(t, 200, fine)
	all := u.all()
	equal(t, "upstream", len(all), 2)
	equal(t, "body", all[1].body, "{}")
	equal(t, "permits", r.taken(ample), 2)
}

// nobodyListens is an address of this machine at which nobody listens: a port that was free a moment ago may be taken by now.
const nobodyListens = "127.0.0.1:1"

// Where nobody listens nothing was sent, and nothing is counted.
func TestNobodyListens(t *testing.T) {
	r := newRig(t, "http://"+nobodyListens)
	r.grant(accessToken, refreshToken, 1<<40)
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		got := r.do(method, "/v2/invoices", "{}")
		got.refused(t, 502, "FreeAgent could not be reached; nothing was sent")
		if !strings.Contains(got.header.Get("Proxy-Status"), "error=destination_unavailable") {
			t.Errorf("Proxy-Status %s", got.header.Get("Proxy-Status"))
		}
	}
	equal(t, "permits", r.taken(ample), 0)
}

// What is no HTTP is a connection that failed.
func TestGarbage(t *testing.T) {
	for name, answer := range map[string]string{
		"garbage":         "garbage\r\n\r\n",
		"no status":       "HTTP/1.1 abc\r\n\r\n",
		"HTTP/2":          "\x00\x00\x12\x04\x00\x00\x00\x00\x00",
		"TLS alert":       "\x15\x03\x01\x00\x02\x02\x46",
		"half a header":   "HTTP/1.1 200 OK\r\nContent-Le",
		"broken header":   "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
		"two lengths":     "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"endless header":  "HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 300<<10) + "\r\n\r\n",
		"many 1xx":        strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 20_000) + reply(200, fine),
		"unasked upgrade": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
		"bare upgrade":    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
	} {
		for _, method := range []string{"GET", "POST"} {
			r, u := withUpstream(t, func(q *received) bool { q.read(); q.write(answer); return false })
			got := r.do(method, "/v2/invoices", "")
			if got.refused(t, 502, "the connection to FreeAgent broke"); t.Failed() {
				t.Fatalf("%s, %s", name, method)
			}
			equal(t, name+", "+method+": may have acted", strings.Contains(got.body, mayHaveActed), method == "POST")
			if n := len(u.all()); method == "POST" && n != 1 || n > 3 {
				t.Errorf("%s, %s: sent %d times", name, method, n)
			}
		}
	}
}

// What FreeAgent sends back may echo the token; the log quotes none of it. (The rig looks for tokens in all that leaves.)
func TestGarbageIsNotQuoted(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 " + accessToken + "\r\n\r\n",
		accessToken + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\n" + accessToken + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: " + accessToken + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + accessToken + "\r\n\r\n",
	} {
		r, _ := withUpstream(t, func(q *received) bool { q.read(); q.write(answer); return false })
		r.do("POST", "/v2/invoices", "{}").refused(t, 502, mayHaveActed)
		equal(t, "reason", r.logged(1)["reason"], "connection_terminated: upstream: what came back is no answer that can be read")
	}
}

// An answer that is cut off reaches the client as one that is cut off, never as a whole one.
func TestCutOffAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"by length":  text("HTTP/1.1 200 OK", "Content-Length: 100") + "half",
		"in chunks":  text("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "4\r\nhalf\r\n",
		"in a chunk": text("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "64\r\nhalf",
		"bad chunk":  text("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + "4\r\nhalf\r\nxyz\r\n",
	} {
		r, u := withUpstream(t, func(q *received) bool { q.read(); q.write(answer); return false })
		c := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
		got := c.answer("POST")
		if got.status != 200 || got.err == nil || !strings.HasPrefix("half", got.body) {
			t.Errorf("%s: %d %q, %v", name, got.status, got.body, got.err)
		}
		equal(t, name+": rest", c.rest(), "")
		line := r.logged(1)
		equal(t, name+": reason", line["reason"], "upstream broke off its answer")
		equal(t, name+": status", line["status"], 200.0)
		u.only()
	}
}

// A client that goes away in the middle of an answer is in the log as such.
func TestClientBreaksOff(t *testing.T) {
	t.Parallel()
	piece := strings.Repeat("x", mib)
	r, _ := withUpstream(t, func(q *received) bool {
		q.read()
		q.write(text("HTTP/1.1 200 OK", "Content-Length: 1073741824"))
		for q.write(piece) {
		}
		return false
	})
	c := r.dial().send(r.request("GET", "/v2/attachments/1", ""))
	c.begin("GET")
	_ = c.Close()
	line := r.logged(1)
	equal(t, "reason", line["reason"], "client broke off the answer")
	equal(t, "answered by", line["answered_by"], "upstream")
}
