package proxy_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/internal/turns"
	"freeagent-proxy/proxy"
)

// A kept answer has what was about FreeAgent's answer, and nothing of what was about its transfer, our cookies of it, or
// one request alone.
func TestKeptHeaders(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, always(text("HTTP/1.1 201 Created", "Content-Type: application/json", "Location: /v2/invoices/7", "X-Kept: a", "X-Kept: b",
		"Connection: X-Hop, keep-alive", "X-Hop: 1", "Keep-Alive: timeout=9", "Transfer-Encoding: chunked", "Trailer: X-Trailer",
		"Set-Cookie: session=1", "Strict-Transport-Security: max-age=1", "Proxy-Status: theirs", "Idempotency-Replayed: true",
		"RateLimit: theirs", "RateLimit-Policy: theirs", "Date: Thu, 01 Jan 1970 00:00:00 GMT", "X-Request-Id: theirs")+chunked("{", "}")))
	first := r.create("X-Request-Id: mine-1")
	again := r.create("X-Request-Id: mine-2")
	again.replayed(t, first)
	equal(t, "X-Kept", fmt.Sprint(again.header["X-Kept"]), "[a b]")
	equal(t, "Content-Length", again.header.Get("Content-Length"), "2")
	equal(t, "X-Request-Id", fmt.Sprint(again.header["X-Request-Id"]), "[mine-2]")
	equal(t, "FreeAgent's request id", again.header.Get("X-Freeagent-Request-Id"), "theirs")
	for _, name := range []string{"X-Hop", "Keep-Alive", "Trailer", "X-Trailer", "Set-Cookie", "Strict-Transport-Security", "Proxy-Status", "Transfer-Encoding"} {
		if lines := again.header[name]; lines != nil {
			t.Errorf("%s: %q", name, lines)
		}
	}
	for _, name := range []string{"Ratelimit", "Ratelimit-Policy", "Date"} {
		if value := again.header.Get(name); value == "theirs" || strings.Contains(value, "1970") || value == "" {
			t.Errorf("%s: %q", name, value)
		}
	}
	u.only()
}

// A client that waits for leave to send its body gets it under a key, too, also when its answer is kept; and none for a key that cannot be read.
func TestKeyedExpect(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, well)
	head := []string{"POST /v2/invoices HTTP/1.1", "Host: " + r.addr, "Expect: 100-continue", "Content-Length: 2"}
	for i := range 2 {
		c := r.dial().send(text(append(head, key)...))
		equal(t, "leave to send", c.begin("POST").StatusCode, 100)
		got := c.send("{}").answer("POST")
		got.passed(t, 200, fine)
		equal(t, "replayed", got.header.Get("Idempotency-Replayed") == "true", i == 1)
	}
	got := r.dial().send(text(append(head, "Idempotency-Key: a b")...)).answer("POST")
	got.refused(t, 400, "Idempotency-Key must be")
	u.only()
}

// Programs of HTTP/1.0 have keys, too.
func TestKeyedHTTP10(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, well)
	for i := range 2 {
		got := r.ask(text("POST /v2/invoices HTTP/1.0", key, "Content-Length: 2") + "{}")
		got.passed(t, 200, fine)
		equal(t, "replayed", got.header.Get("Idempotency-Replayed") == "true", i == 1)
	}
	u.only()
}

// A client that leaves while its create waits for its turn leaves the key free; the same again meanwhile hears that it runs.
func TestKeyedLeavesTheLine(t *testing.T) {
	t.Parallel()
	g := &gate{open: make(chan struct{})}
	r, u := withUpstream(t, g.answer, inTurn)
	first := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
	soon(t, "the first one upstream", func() bool { return len(u.all()) == 1 })
	second := r.dial().send(r.request("POST", "/v2/invoices", "{}", key, "X-Request-Id: second"))
	soon(t, "the second one has the key", func() bool { // before others come with it
		return slices.ContainsFunc(r.log.lines("idempotency key"), func(l logLine) bool { return l["request_id"] == "second" })
	})
	r.do("POST", "/v2/invoices", "{}", key, "Prefer: wait=0").refused(t, 409, isRunning)
	_ = second.Close()
	equal(t, "status of the second one, which has left", r.logged(2)["status"], 499.0)
	third := r.dial().send(r.request("POST", "/v2/invoices", "{}", key))
	g.open <- struct{}{}
	first.answer("POST").passed(t, 201, fine)
	g.open <- struct{}{}
	got := third.answer("POST")
	got.passed(t, 201, fine)
	equal(t, "replayed", got.header.Get("Idempotency-Replayed"), "")
	equal(t, "upstream", len(u.all()), 2)
}

// A keyed create does not go on alone when Redis is away in the moment in which it asks for its turn: nobody would know whom
// it meets. One without a key does.
func TestKeyedInsistsOnItsTurn(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{Addr: nobodyListens, MaxRetries: -1, ContextTimeoutEnabled: true, DialerRetries: 1})
	away := turns.NewRedis(turns.RedisConfig{Client: client})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = away.Close(ctx)
		_ = client.Close()
	})
	r, u := withUpstream(t, always(reply(201, fine)), inTurn, maxWait(time.Second), func(c *proxy.Config) { c.Turns = away })
	for range 2 {
		got := r.create()
		got.refused(t, 503, "its store is away; nothing was sent to FreeAgent, try again")
		equal(t, "Retry-After", got.header.Get("Retry-After"), "5")
	}
	u.nothing()
	r.do("POST", "/v2/invoices", newInvoice).passed(t, 201, fine)
	u.only()
}

// An answer that is kept can be read by whoever gets it again, whatever the first one asked for.
func TestReplayInAnyEncoding(t *testing.T) {
	t.Parallel()
	for name, urls := range map[string]bool{"rewrite": true, "passthrough": false} {
		r, sim := withSimulator(t, simulator.Config{}, clients(proxy.Client{Name: "billing", Keys: digestsOf(clientKey), Passthrough: !urls}))
		ask := func(encoding string) *answer {
			return r.do("POST", "/v2/_sim_echo", "{}", key, "X-Api-Key: "+clientKey, "Accept-Encoding: "+encoding)
		}
		first, again := ask("gzip"), ask("identity")
		equal(t, name+": again", again.header.Get("Idempotency-Replayed"), "true")
		for _, a := range []*answer{first, again} {
			equal(t, name+": status", a.status, 200)
			equal(t, name+": Content-Encoding", a.header.Get("Content-Encoding"), "")
			if !strings.HasPrefix(a.body, "{") {
				t.Errorf("%s: %.40q", name, a.body)
			}
		}
		equal(t, name+": requests", len(sim.Requests(0)), 1)
	}
}
