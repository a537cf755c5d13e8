package proxy_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/internal/outcomes"
	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/proxy"
)

const (
	key        = "Idempotency-Key: order-1001"
	newInvoice = `{"invoice":{"contact":"http://freeagent.internal/v2/contacts/1"}}`
	mayBeDone  = "FreeAgent may have acted on it"
	isRunning  = "is still running"
)

// create sends a keyed create. Its retry is the same bytes.
func (r *rig) create(headers ...string) *answer {
	r.t.Helper()
	return r.do("POST", "/v2/invoices", newInvoice, append([]string{key, "Content-Type: application/json"}, headers...)...)
}

// replayed expects the kept answer of one that was passed.
func (a *answer) replayed(t *testing.T, first *answer) {
	t.Helper()
	a.passed(t, first.status, first.body)
	equal(t, "Idempotency-Replayed", a.header.Get("Idempotency-Replayed"), "true")
	for _, name := range []string{"Content-Type", "Content-Encoding", "Location", "Link", "Etag", "X-Freeagent-Request-Id", "X-A"} {
		equal(t, name, fmt.Sprint(a.header[name]), fmt.Sprint(first.header[name]))
	}
	for _, name := range []string{"Date", "Ratelimit", "X-Request-Id"} {
		if len(a.header[name]) != 1 {
			t.Errorf("%s: %q", name, a.header[name])
		}
	}
}

// What FreeAgent answers for good is kept and given again; after all else the record says what may be done.
func TestKeyedAnswers(t *testing.T) {
	json := "Content-Type: application/json; charset=utf-8"
	long := strings.Repeat("x", outcomes.MaxBody+1)
	for name, c := range map[string]struct {
		reply string
		then  int // what the same request gets; 0: the first answer, again
		says  string
		sent  int // how often it then has left
	}{
		"201":            {reply(201, `{"invoice":{}}`, json, "X-A: 1", "X-A: 2", "X-Request-Id: theirs"), 0, "", 1},
		"201 in chunks":  {text("HTTP/1.1 201 Created", json, "Transfer-Encoding: chunked") + chunked(`{"a":`, `1}`), 0, "", 1},
		"200 empty":      {reply(200, ""), 0, "", 1},
		"204":            {text("HTTP/1.1 204 No Content"), 0, "", 1},
		"303":            {reply(303, "", "Location: /elsewhere"), 0, "", 1},
		"400":            {reply(400, `{"errors":[]}`, json), 0, "", 1},
		"404":            {reply(404, `{"errors":[]}`, json), 0, "", 1},
		"409":            {reply(409, `conflict`), 0, "", 1},
		"422":            {reply(422, `{"errors":[]}`, json), 0, "", 1},
		"as long as may": {reply(201, long[1:]), 0, "", 1},
		"too long":       {reply(201, long, "Location: http://elsewhere/v2/invoices/7"), 409, "status 201, but the answer was too long to keep or broke off; it will not be sent again; what it made is at http://elsewhere/v2/invoices/7", 1},
		"429":            {reply(429, "You must not exceed 120 requests per 60 seconds", "Retry-After: 60"), 429, "", 1}, // the budget pauses
		"500":            {reply(500, "<html>"), 409, mayBeDone, 1},
		"502":            {reply(502, "<html>"), 409, mayBeDone, 1},
		"503":            {reply(503, "<html>", "Retry-After: 1"), 409, mayBeDone, 1},
		"504":            {reply(504, "<html>"), 409, mayBeDone, 1},
		"599":            {reply(599, ""), 409, mayBeDone, 1},
		"switched":       {text("HTTP/1.1 101 Switching Protocols", "Upgrade: x", "Connection: Upgrade"), 409, mayBeDone, 1},
		"garbage":        {"garbage\r\n\r\n", 409, mayBeDone, 1},
		"nothing":        {"", 409, mayBeDone, 1},
		"reset":          {text("HTTP/1.1 201 Created", "Content-Length: 100", "Location: /v2/invoices/7") + "{", 409, "status 201, but the answer was too long to keep or broke off; it will not be sent again; what it made is at /v2/invoices/7", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, u := withUpstream(t, func(q *received) bool { q.read(); q.write(c.reply); return false }, maxWait(0))
			first := r.create()
			for range 2 {
				again := r.create()
				if c.then == 0 {
					again.replayed(t, first)
				} else {
					again.refused(t, c.then, c.says)
				}
			}
			equal(t, "upstream", len(u.all()), c.sent)
			if c.then != 429 {
				equal(t, "permits", r.taken(ample), c.sent)
				r.do("POST", "/v2/invoices", newInvoice+" ", key).refused(t, 422, "was used for another request")
				r.do("POST", "/v2/invoices?a", newInvoice, key).refused(t, 422, "was used for another request")
				r.do("POST", "/v2/bills", newInvoice, key).refused(t, 422, "was used for another request")
			}
			equal(t, "upstream", len(u.all()), c.sent)
			for _, q := range u.all() {
				if q.header.Get("Idempotency-Key") != "" {
					t.Errorf("the key went upstream: %q", q.head)
				}
			}
		})
	}
}

// A replay says in the log that it was one, and is answered by us.
func TestReplayIsLogged(t *testing.T) {
	t.Parallel()
	r, _ := withUpstream(t, well)
	first := r.create()
	equal(t, "Idempotency-Replayed", first.header.Get("Idempotency-Replayed"), "")
	r.create().replayed(t, first)
	line := r.logged(2)
	if line["answered_by"] != "proxy" || line["attempts"] != 0.0 || !strings.Contains(line["reason"].(string), "idempotency key") {
		t.Errorf("logged %v", line)
	}
}

// FreeAgent cannot say that an answer was replayed.
func TestReplayedIsOursToSay(t *testing.T) {
	t.Parallel()
	r, _ := withUpstream(t, always(reply(201, "{}", "Idempotency-Replayed: true")))
	equal(t, "Idempotency-Replayed", r.create().header.Get("Idempotency-Replayed"), "")
}

// Keys are read in both forms that programs write; others are refused before anything is sent.
func TestKeyForms(t *testing.T) {
	t.Parallel()
	for value, bad := range map[string]bool{
		`abc`: false, `"abc"`: false, `"a\"b\\c"`: false, `a"b`: false, `a,b;c=d`: false,
		strings.Repeat("k", 255): false, `"` + strings.Repeat("k", 255) + `"`: false,
		"": true, `""`: true, `"`: true, `"abc`: true, `"abc"d`: true, `"a\b"`: true, "a b": true, "\"a b\"": true, "a\tb": true, "é": true,
		strings.Repeat("k", 256): true,
	} {
		r, u := withUpstream(t, well)
		got := r.do("POST", "/v2/invoices", "{}", "Idempotency-Key: "+value)
		if bad {
			got.refused(t, 400, "1 to 255 visible ASCII characters; nothing was sent")
			u.nothing()
			r.do("PUT", "/v2/invoices/1", "{}", "Idempotency-Key: "+value).passed(t, 200, fine)
		} else {
			got.passed(t, 200, fine)
		}
	}
	r, u := withUpstream(t, well)
	r.do("POST", "/v2/invoices", "{}", "Idempotency-Key: a", "Idempotency-Key: a").refused(t, 400, "one value")
	u.nothing()
	first := r.do("POST", "/v2/invoices", "{}", `Idempotency-Key: "a\\b"`)
	r.do("POST", "/v2/invoices", "{}", `Idempotency-Key:  a\b `).replayed(t, first)
	u.only()
}

// Only POSTs have keys.
func TestOtherMethodsIgnoreKeys(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH"} {
		r, u := withUpstream(t, well)
		for range 2 {
			equal(t, method, r.do(method, "/v2/invoices/1", "", key).status, 200)
		}
		equal(t, method+" upstream", len(u.all()), 2)
	}
}

// A key is one client's, in one account and one company.
func TestKeysAreApart(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, well, clients(
		proxy.Client{Name: "billing", Keys: digestsOf("billing-key")},
		proxy.Client{Name: "nightly", Keys: digestsOf("nightly-key")},
	))
	for i, headers := range [][]string{
		{"X-Api-Key: billing-key"}, {"X-Api-Key: nightly-key"}, {"X-Api-Key: billing-key", "X-Subdomain: one"}, {"X-Api-Key: billing-key", "X-Subdomain: two"},
	} {
		equal(t, "Idempotency-Replayed", r.create(headers...).header.Get("Idempotency-Replayed"), "")
		equal(t, "upstream", len(u.all()), i+1)
		equal(t, "Idempotency-Replayed", r.create(headers...).header.Get("Idempotency-Replayed"), "true")
	}
	equal(t, "upstream", len(u.all()), 4)
}

// Of many that come at a time one is sent; the others hear that it runs, and then get its answer.
func TestKeyedCrowd(t *testing.T) {
	t.Parallel()
	leave := make(chan struct{})
	r, u := withUpstream(t, func(q *received) bool { q.read(); q.wait(leave); return q.write(reply(201, fine)) })
	var created, running atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			switch got := r.create(); got.status {
			case 201:
				created.Add(1)
			case 409:
				got.refused(t, 409, isRunning)
				equal(t, "Retry-After", got.header.Get("Retry-After"), "2")
				if running.Add(1) == 19 {
					close(leave)
				}
			}
		})
	}
	all.Wait()
	equal(t, "created", created.Load(), 1)
	equal(t, "told that it runs", running.Load(), 19)
	equal(t, "status", r.create().status, 201)
	u.only()
}

// A client that leaves, whenever, finds the answer when it comes again.
func TestKeyedClientLeaves(t *testing.T) {
	t.Parallel()
	body := strings.Repeat(`{"x":1}`, 20_000)
	for name, half := range map[string]string{"before the answer": "", "within the answer": text("HTTP/1.1 201 Created", fmt.Sprint("Content-Length: ", len(body))) + body[:100]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun, leave := make(chan struct{}), make(chan struct{})
			r, u := withUpstream(t, func(q *received) bool {
				q.read()
				q.write(half)
				close(begun)
				q.wait(leave)
				if half == "" {
					return q.write(reply(201, body))
				}
				return q.write(body[100:])
			})
			c := r.dial().send(r.request("POST", "/v2/invoices", newInvoice, key))
			<-begun
			_ = c.SetLinger(0)
			_ = c.Close()
			r.sawEnd()
			r.do("POST", "/v2/invoices", newInvoice, key).refused(t, 409, isRunning)
			close(leave)
			var got *answer
			soon(t, "the answer is kept", func() bool { got = r.do("POST", "/v2/invoices", newInvoice, key); return got.status == 201 })
			got.passed(t, 201, body)
			u.only()
		})
	}
}

// What is refused before it was sent leaves the key free, and so does what FreeAgent certainly did not act on.
func TestKeyStaysFree(t *testing.T) {
	t.Parallel()
	t.Run("over budget", func(t *testing.T) {
		t.Parallel()
		r, u := withUpstream(t, well, api(one...), maxWait(0))
		letGo := r.hold(proxy.Anonymous, one)
		r.create().refused(t, 429, "You must not exceed")
		letGo()
		r.create().passed(t, 200, fine)
		u.only()
	})
	t.Run("left while waiting", func(t *testing.T) {
		t.Parallel()
		r, u := withUpstream(t, well, api(one...))
		letGo := r.hold(proxy.Anonymous, one)
		c := r.dial().send(r.request("POST", "/v2/invoices", newInvoice, key))
		r.oneWaits()
		r.do("POST", "/v2/invoices", newInvoice, key).refused(t, 409, isRunning)
		_ = c.Close()
		equal(t, "status of who left", r.logged(2)["status"], 499.0)
		letGo()
		r.do("POST", "/v2/invoices", newInvoice, key).passed(t, 200, fine)
		u.only()
	})
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "http://"+nobodyListens)
		r.grant(accessToken, refreshToken, time.Hour)
		for range 2 {
			r.create().refused(t, 502, "nothing was sent")
		}
	})
	t.Run("paused by 429", func(t *testing.T) {
		t.Parallel()
		r, u := withUpstream(t, func(q *received) bool {
			q.read()
			if q.nth == 1 {
				return q.write(reply(429, "slow", "Retry-After: 1"))
			}
			return q.write(reply(201, fine))
		}, maxWait(0))
		equal(t, "first", r.create().status, 429)
		soon(t, "the pause ends", func() bool { return r.create().status == 201 })
		equal(t, "upstream", len(u.all()), 2)
	})
	t.Run("no grant", func(t *testing.T) {
		t.Parallel()
		r, _ := withoutGrant(t, simulator.Config{})
		for range 2 {
			r.create().refused(t, 503, "never authorised")
		}
	})
}

// A 401 in between is cured under the same record.
func TestKeyed401IsCured(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, func(q *received) bool {
		q.read()
		switch {
		case q.target == "/v2/token_endpoint":
			return q.write(renewed)
		case q.header.Get("Authorization") == "Bearer next":
			return q.write(reply(201, fine))
		}
		return q.write(reply(401, "no"))
	})
	first := r.create()
	first.passed(t, 201, fine)
	r.create().replayed(t, first)
	equal(t, "upstream", len(u.all()), 3)
}

// A timeout is not the end of the key: it is unknown.
func TestKeyedTimeout(t *testing.T) {
	t.Parallel()
	for name, begins := range map[string]string{"before the answer": "", "within it": text("HTTP/1.1 201 Created", "Content-Length: 10", "Location: /v2/invoices/1") + "{"} {
		r, u := withUpstream(t, func(q *received) bool { q.read(); q.write(begins); q.wait(nil); return false }, timeout(silence))
		r.create().refused(t, 504, mayHaveActed)
		says := mayBeDone
		if begins != "" {
			says = "/v2/invoices/1"
		}
		if again := r.create(); again.status != 409 || !strings.Contains(again.body, says) || again.header.Get("Retry-After") != "" {
			t.Errorf("%s: %d %s", name, again.status, again.body)
		}
		u.only()
	}
}

// A replay leads its client to the name by which it came, whichever the first one used.
func TestReplayByAnotherName(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"", "gzip"} {
		r, sim := withSimulator(t, simulator.Config{})
		names := []string{r.addr, "freeagent.internal"}
		var answers []*answer
		for _, host := range names {
			body := `{"contact":{"organisation_name":"x"}}`
			answers = append(answers, r.ask(text("POST /v2/contacts HTTP/1.1", "Host: "+host, key, "Content-Type: application/json",
				"Accept-Encoding: "+encoding, fmt.Sprint("Content-Length: ", len(body)))+body))
		}
		equal(t, "acted", sim.Stats().Writes.Acted, 1)
		equal(t, "Idempotency-Replayed", answers[1].header.Get("Idempotency-Replayed"), "true")
		for i, a := range answers {
			equal(t, "status", a.status, 201)
			if want := "http://" + names[i] + "/v2/contacts/"; !strings.HasPrefix(a.header.Get("Location"), want) {
				t.Errorf("Location %q, want %q…", a.header.Get("Location"), want)
			}
			if encoding == "" && !strings.Contains(a.body, `"http://`+names[i]+"/v2/contacts/") {
				t.Errorf("body %s, want URLs of %s", a.body, names[i])
			}
		}
	}
}

// A create in many chunks, or too long for memory, has the fingerprint of its bytes.
func TestKeyedBodies(t *testing.T) {
	t.Parallel()
	big := `{"a":"` + strings.Repeat("x", 3*mib) + `"}`
	r, u := withUpstream(t, well)
	first := r.do("POST", "/v2/attachments", big, key, "Content-Type: application/json")
	first.passed(t, 200, fine)
	r.ask(text("POST /v2/attachments HTTP/1.1", "Host: "+r.addr, key, "Content-Type: application/json", "Transfer-Encoding: chunked")+
		chunked(big[:10], big[10:2*mib], big[2*mib:])).replayed(t, first)
	r.do("POST", "/v2/attachments", big[:len(big)-3]+`y"}`, key, "Content-Type: application/json").refused(t, 422, "another request")
	r.do("POST", "/v2/attachments", "", key).refused(t, 422, "another request")
	equal(t, "hash", u.only().sha256, hashOf(big))
}
