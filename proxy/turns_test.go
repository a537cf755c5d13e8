package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/internal/turns"
	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

// inTurn lets creates of invoices and of estimates happen one at a time, as `serve` does.
func inTurn(c *proxy.Config) {
	c.OneAtATime = []string{"POST /v2/invoices", "POST /v2/estimates"}
	c.Turns = turns.NewLocal()
}

// gate is an upstream that answers the writes that come one after the other as it is told to.
type gate struct {
	mu           sync.Mutex
	inside, most int
	open         chan struct{} // one for each
}

func (g *gate) answer(q *received) bool {
	q.read()
	g.passed(1)
	q.wait(g.open)
	g.passed(-1)
	return q.write(reply(201, fine))
}

func (g *gate) passed(by int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside += by
	g.most = max(g.most, g.inside)
}

// atOnce is how many writes were inside at most.
func (g *gate) atOnce() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.most
}

// Whatever the path looks like, there is one create at a time at FreeAgent.
func TestOneAtATime(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	r, u := withUpstream(t, g.answer, inTurn)
	targets := []string{
		"/v2/invoices", "/v2/invoices/", "//v2//invoices", "/v2/invoices?a=b", "/v2/invoices.json", "/v2/invoices.xml",
		"/v2/%69nvoices", "/v2/%2Finvoices", "/accounts/acme/v2/invoices",
	}
	var asking sync.WaitGroup
	for _, target := range targets {
		c := r.dial().send(r.request("POST", target, "{}"))
		asking.Go(func() { c.answer("POST").passed(t, 201, fine) })
	}
	for n := range targets {
		soon(t, "another create upstream", func() bool { return len(u.all()) == n+1 })
		g.open <- struct{}{}
	}
	asking.Wait()
	equal(t, "at once", g.atOnce(), 1)
}

// All else goes beside it: other methods, other paths, other entries of the list.
func TestOthersNeedNoTurn(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	r, u := withUpstream(t, g.answer, inTurn)
	requests := []string{
		"POST /v2/invoices", "POST /v2/estimates", "GET /v2/invoices", "PUT /v2/invoices", "POST /v2/invoices/1", "POST /v2/invoices/1/duplicate",
		"POST /v2/INVOICES", "POST /v2/invoices.pdf", "POST /v2/bills",
	}
	var asking sync.WaitGroup
	for _, request := range requests {
		method, target, _ := strings.Cut(request, " ")
		c := r.dial().send(r.request(method, target, "{}"))
		asking.Go(func() { c.answer(method).passed(t, 201, fine) })
	}
	soon(t, "all upstream", func() bool { return len(u.all()) == len(requests) })
	close(g.open)
	asking.Wait()
}

// A practice's clients are companies of their own; other accounts have one, whatever they say.
func TestTurnsByCompany(t *testing.T) {
	for _, isPractice := range []bool{true, false} {
		g := &gate{open: make(chan struct{})}
		r, u := withUpstream(t, g.answer, inTurn, func(c *proxy.Config) { c.Accounts[0].Practice = isPractice })
		var asking sync.WaitGroup
		for _, subdomain := range []string{"one", "two", "ONE"} {
			c := r.dial().send(r.request("POST", "/v2/invoices", "{}", "X-Subdomain: "+subdomain))
			asking.Go(func() { c.answer("POST").passed(t, 201, fine) })
		}
		if isPractice {
			soon(t, "both companies' creates upstream", func() bool { return g.atOnce() == 2 })
		}
		for range 3 {
			g.open <- struct{}{}
		}
		asking.Wait()
		equal(t, "upstream", len(u.all()), 3)
		want := 1
		if isPractice {
			want = 2
		}
		equal(t, fmt.Sprint("at once, practice ", isPractice), g.atOnce(), want)
	}
}

// Who would wait too long is told so, in a way that names the setting; and waits no longer than it may.
func TestTurnWaitIsBounded(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	windows := []limiter.Window{{Requests: 5, Per: time.Minute}}
	r, u := withUpstream(t, g.answer, inTurn, maxWait(300*time.Millisecond), api(windows...))
	first := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
	soon(t, "the first one upstream", func() bool { return len(u.all()) == 1 })
	for _, prefer := range []string{"Prefer: wait=0", "Prefer: wait=60"} {
		got := r.do("POST", "/v2/invoices", "{}", prefer)
		got.refused(t, 429, "writes.one_at_a_time")
		equal(t, "Retry-After", got.header.Get("Retry-After"), "1")
		if status := got.header.Get("Proxy-Status"); !strings.Contains(status, "writes.one_at_a_time") {
			t.Errorf("Proxy-Status: %s", status)
		}
	}
	line := r.logged(2)
	equal(t, "attempts", line["attempts"], 0.0)
	if waited := line["waited_ms"].(float64); waited < 290 {
		t.Errorf("waited_ms: %v", waited)
	}
	equal(t, "permits: a turn is had before", r.taken(windows), 1)
	g.open <- struct{}{}
	first.answer("POST").passed(t, 201, fine)
}

// A client that leaves while it waits for its turn sends nothing, and holds up nobody.
func TestLeavesTheLine(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	r, u := withUpstream(t, g.answer, inTurn)
	first := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
	soon(t, "the first one upstream", func() bool { return len(u.all()) == 1 })
	second := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
	_ = second.Close()
	line := r.logged(1)
	equal(t, "status", line["status"], 499.0)
	equal(t, "attempts", line["attempts"], 0.0)
	g.open <- struct{}{}
	first.answer("POST").passed(t, 201, fine)
	third := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
	g.open <- struct{}{}
	third.answer("POST").passed(t, 201, fine)
	equal(t, "upstream", len(u.all()), 2)
}

// The turn is kept while a request is sent again, and given back whatever becomes of it.
func TestTurnAfterFailures(t *testing.T) {
	r, u := withUpstream(t, func(q *received) bool {
		q.read()
		switch q.nth {
		case 1:
			return q.write(reply(429, "You must not exceed", "Retry-After: 1"))
		case 2:
			return q.write(reply(201, "first"))
		case 3:
			return false
		}
		return q.write(reply(201, "third"))
	}, inTurn)
	first := r.dial().send(r.request("POST", "/v2/invoices", "first"))
	soon(t, "the first one upstream", func() bool { return len(u.all()) == 1 })
	second := r.dial().send(r.request("POST", "/v2/invoices", "second"))
	first.answer("POST").passed(t, 201, "first")
	second.answer("POST").refused(t, 502, mayHaveActed)
	r.do("POST", "/v2/invoices", "third").passed(t, 201, "third")
	for i, want := range []string{"first", "first", "second", "third"} {
		equal(t, fmt.Sprint("upstream ", i), u.all()[i].body, want)
	}
}

// At the end those who wait are told so.
func TestTurnsAreClosed(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	local := turns.NewLocal()
	r, u := withUpstream(t, g.answer, inTurn, func(c *proxy.Config) { c.Turns = local })
	first := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
	soon(t, "the first one upstream", func() bool { return len(u.all()) == 1 })
	second := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
	closed := make(chan error, 1)
	go func() { closed <- local.Close(context.Background()) }()
	second.answer("POST").refused(t, 503, "the proxy is shutting down; nothing was sent")
	g.open <- struct{}{}
	first.answer("POST").passed(t, 201, fine)
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// FreeAgent's race, and what is left of it: nothing, if creates do not meet.
func TestNumberingRace(t *testing.T) {
	for _, serial := range []bool{true, false} {
		r, sim := withSimulator(t, simulator.Config{
			NumberingDelay: simulator.Duration(2 * time.Millisecond), DuplicateReferences: true, UnknownReferences: true,
		}, func(c *proxy.Config) {
			if serial {
				inTurn(c)
			}
			c.MaxWait = time.Minute
		})
		var creating sync.WaitGroup
		for n := range 200 {
			creating.Go(func() {
				got := r.do("POST", "/v2/invoices", invoice(n), "Content-Type: application/json")
				equal(t, "status", got.status, 201)
			})
		}
		creating.Wait()
		stats := sim.Stats().Writes
		equal(t, "invoices", stats.Acted, 200)
		if raced := stats.DuplicateReferences > 0; raced == serial {
			t.Errorf("one at a time %v: %d duplicate references", serial, stats.DuplicateReferences)
		}
	}
}

func invoice(n int) string {
	return fmt.Sprintf(`{"invoice":{"contact":"https://api.freeagent.com/v2/contacts/1","dated_on":"2026-01-01","payment_terms_in_days":%d}}`, n)
}
