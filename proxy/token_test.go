package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/proxy"
)

// requestsTo returns what arrived at the simulator's API, without its token endpoint.
func requestsTo(sim *simulator.Simulator) []simulator.Request {
	var list []simulator.Request
	for _, q := range sim.Requests(0) {
		if q.Target != "/v2/token_endpoint" {
			list = append(list, q)
		}
	}
	return list
}

// A revoked token is renewed, and nobody notices.
func TestCuresA401(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE"} {
		r, sim := withSimulator(t, simulator.Config{})
		sim.RevokeAccess("")
		body := ""
		if method != "GET" && method != "HEAD" {
			body = `{"contact":{"organisation_name":"Acme"}}`
		}
		got := r.do(method, "/v2/contacts", body)
		if got.status == 401 || got.status >= 500 {
			t.Errorf("%s: %d %s", method, got.status, got.body)
		}
		all := requestsTo(sim)
		if len(all) != 2 || all[0].Status != 401 || all[1].BodySHA256 != all[0].BodySHA256 ||
			all[1].Header.Get("Authorization") == all[0].Header.Get("Authorization") {
			t.Errorf("%s: arrived as %+v", method, all)
		}
		equal(t, method+": refreshes", sim.Stats().Tokens.RefreshRequests, 1)
		equal(t, method+": attempts", r.logged(1)["attempts"], 2.0)
	}
}

// A hundred requests whose token was revoked cost one refresh, and lose no byte.
func TestRevokedUnderLoad(t *testing.T) {
	t.Parallel()
	r, sim := withSimulator(t, simulator.Config{})
	sim.RevokeAccess("")
	var asking sync.WaitGroup
	for i := range 100 {
		asking.Go(func() {
			method, body := "GET", ""
			if i%2 == 0 {
				method, body = "POST", fmt.Sprintf(`{"contact":{"organisation_name":"%d","pad":"%s"}}`, i, strings.Repeat("p", i<<10))
			}
			if got := r.do(method, fmt.Sprintf("/v2/contacts?i=%d", i), body); got.status != 200 && got.status != 201 {
				t.Errorf("%s %d: %d %s", method, i, got.status, got.body)
			}
		})
	}
	asking.Wait()
	stats := sim.Stats()
	equal(t, "refreshes", stats.Tokens.RefreshRequests, 1)
	equal(t, "writes", stats.Writes.Acted, 50)
	equal(t, "duplicates", stats.Writes.Duplicates, 0)
	hashes := make(map[string]string)
	for _, q := range requestsTo(sim) {
		if before, ok := hashes[q.Target]; ok && before != q.BodySHA256 {
			t.Errorf("%s was sent again with another body", q.Target)
		}
		hashes[q.Target] = q.BodySHA256
	}
}

// A resource that rejects healthy tokens is told so in FreeAgent's own words, and costs no refresh after the first.
func TestStubborn401(t *testing.T) {
	r, sim := withSimulator(t, simulator.Config{AlwaysUnauthorized: []string{"/v2/users"}})
	for i := range 4 {
		got := r.get("/v2/users/me")
		got.passed(t, 401, `{"errors":{"error":{"message":"Access token not recognised"}}}`)
		equal(t, "Content-Type", got.header.Get("Content-Type"), "application/json; charset=utf-8")
		line := r.logged(i + 1)
		equal(t, "answered by", line["answered_by"], "upstream")
		equal(t, "attempts", line["attempts"].(float64) <= 2, true)
	}
	equal(t, "refreshes", sim.Stats().Tokens.RefreshRequests, 1)
	equal(t, "another resource", r.get("/v2/company").status, 200)
}

// A token that is revoked again while its predecessor's request is repeated is cured as well.
func TestRevokedTwice(t *testing.T) {
	var r *rig
	r, u := withUpstream(t, func(q *received) bool {
		q.read()
		switch {
		case q.target == "/v2/token_endpoint":
			return q.write(reply(200, `{"access_token":"second","expires_in":3600,"refresh_token":"two"}`, "Content-Type: application/json"))
		case q.header.Get("Authorization") == "Bearer third":
			return q.write(reply(200, fine))
		case q.header.Get("Authorization") == "Bearer second":
			r.grant("third", "three", time.Hour)
		}
		return q.write(reply(401, "Access token not recognised"))
	})
	r.do("POST", "/v2/invoices", "{}").passed(t, 200, fine)
	equal(t, "requests", len(u.all()), 4)
}

// Without an authorisation there is a sentence, not a 401, and nothing goes upstream.
func TestNeverAuthorised(t *testing.T) {
	r, sim := withoutGrant(t, simulator.Config{})
	got := r.do("POST", "/v2/invoices", "{}")
	got.refused(t, 503, "run `freeagent-proxy authorize --account acme`")
	equal(t, "Retry-After", got.header.Get("Retry-After"), "60")
	equal(t, "requests", len(sim.Requests(0)), 0)
	if err := r.tokens.Import(context.Background(), account, sim.Authorize("")); err != nil {
		t.Fatal(err)
	}
	equal(t, "once authorised", r.get("/v2/company").status, 200)
}

func TestRefusedGrant(t *testing.T) {
	r, sim := withSimulator(t, simulator.Config{})
	sim.RevokeAll("")
	got := r.get("/v2/company")
	got.refused(t, 503, "FreeAgent refuses this account's authorisation: run `freeagent-proxy authorize --account acme`")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r.grant(sim.AccessToken(""), sim.Authorize(""), time.Hour)
	equal(t, "authorised again", r.get("/v2/company").status, 200)
}

// While the token endpoint is down there is a 503 that says when to come back, for a revoked token as
// for an expired one; the authorisation survives.
func TestTokenEndpointDown(t *testing.T) {
	t.Parallel()
	together([]bool{true, false}, func(revoked bool) {
		r, sim := withSimulator(t, simulator.Config{}, maxWait(time.Second))
		if _, err := sim.Fault(simulator.Fault{Kind: simulator.FaultStatus, Match: simulator.Match{PathPrefix: "/v2/token_endpoint"}}); err != nil {
			t.Error(err)
		}
		if revoked {
			sim.RevokeAccess("")
		} else {
			r.grant(sim.AccessToken(""), sim.Authorize(""), -time.Second)
		}
		got := r.do("POST", "/v2/contacts", `{"contact":{"organisation_name":"Acme"}}`)
		got.refused(t, 503, "the authorisation is kept")
		var seconds int
		if _, err := fmt.Sscanf(got.header.Get("Retry-After"), "%d", &seconds); err != nil || seconds < 1 || seconds > 10 {
			t.Errorf("Retry-After %q", got.header.Get("Retry-After"))
		}
		equal(t, "acted", sim.Stats().Writes.Acted, 0)
		sim.ClearFaults()
		soon(t, "it is back", func() bool { return r.get("/v2/company").status == 200 }) // the pause until the next try may outlast one request
	})
}

// A request that may not wait for its turn waits for its token all the same: nobody else would get one.
func TestNoWaitStillRefreshes(t *testing.T) {
	for _, c := range []struct {
		maxWait time.Duration
		header  string
	}{{0, "Accept: */*"}, {20 * time.Second, "Prefer: wait=0"}} {
		r, sim := withSimulator(t, simulator.Config{}, maxWait(c.maxWait))
		r.grant(sim.AccessToken(""), sim.Authorize(""), -time.Second)
		equal(t, c.header+", expired", r.get("/v2/company", c.header).status, 200)
		r.grant(sim.AccessToken(""), sim.Authorize(""), time.Hour)
		sim.RevokeAccess("")
		equal(t, c.header+", revoked", r.get("/v2/company", c.header).status, 200)
	}
}

// A program that shuts the proxy down leaves nobody waiting.
func TestShuttingDown(t *testing.T) {
	r, u := withUpstream(t, well, api(one...))
	r.hold(proxy.Anonymous, one)
	c := r.dial().send(r.request("POST", "/v2/invoices", "{}"))
	r.oneWaits()
	if err := r.limiter.Close(); err != nil {
		t.Fatal(err)
	}
	got := c.answer("POST")
	got.refused(t, 503, "shutting down; nothing was sent")
	equal(t, "closes", got.closes, true)
	equal(t, "Retry-After", got.header.Get("Retry-After"), "5")
	u.nothing()
}
