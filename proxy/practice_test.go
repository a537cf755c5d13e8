package proxy_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

func practice(c *proxy.Config) { c.Accounts[0].Practice = true }

// The limits hold for each of a practice's clients by itself, and for the practice itself.
func TestBudgetsBySubdomain(t *testing.T) {
	windows := []limiter.Window{{Requests: 2, Per: time.Minute}}
	r, u := withUpstream(t, well, api(windows...), maxWait(0), practice)
	ask := func(headers ...string) *answer { t.Helper(); return r.get("/v2/company", headers...) }
	for _, subdomain := range []string{"client-one", "client-two", ""} {
		var headers []string
		if subdomain != "" {
			headers = []string{"X-Subdomain: " + subdomain}
		}
		ask(headers...).passed(t, 200, fine)
		if subdomain != "" {
			headers = []string{"x-subdomain:  " + strings.ToUpper(subdomain), "Connection: X-Subdomain"} // counted where it goes
		}
		ask(headers...).passed(t, 200, fine)
		ask(headers...).refused(t, 429, "You must not exceed 2 requests per 60 seconds")
	}
	for i, want := range []string{"client-one", "client-one", "client-two", "client-two", "", ""} {
		equal(t, fmt.Sprint("upstream ", i), strings.Join(u.all()[i].header["X-Subdomain"], ", "), want)
	}
}

// What cannot be a subdomain makes no budget, and reaches nobody.
func TestMalformedSubdomains(t *testing.T) {
	r, u := withUpstream(t, well, practice)
	for _, headers := range [][]string{
		{"X-Subdomain: a/client/b"}, {"X-Subdomain: a.b"}, {"X-Subdomain: a b"}, {"X-Subdomain: caf\xe9"}, {"X-Subdomain: a_b"},
		{"X-Subdomain: " + strings.Repeat("a", 64)}, {"X-Subdomain: a", "X-Subdomain: b"}, {"X-Subdomain: a", "X-Subdomain: a"}, {"X-Subdomain:", "X-Subdomain: b"},
	} {
		r.get("/v2/company", headers...).refused(t, 400, "X-Subdomain must be")
	}
	equal(t, "upstream", len(u.all()), 0)
	r.get("/v2/company", "X-Subdomain: "+strings.Repeat("a", 63)).passed(t, 200, fine)
}

// knowing answers as FreeAgent might: 404 for a company that it does not know.
func knowing(q *received) bool {
	if strings.HasPrefix(q.header.Get("X-Subdomain"), "made-up") {
		return always(reply(404, ""))(q)
	}
	return well(q)
}

// A client may ask for only so many names that FreeAgent does not know, since each has budgets of its own. Whom it knows is none of
// them, nor is a company that the operator has given to a client; and other clients are not concerned.
func TestStrangeSubdomains(t *testing.T) {
	t.Parallel()
	const window = time.Hour
	r, _ := withUpstream(t, knowing, practice, api(limiter.Window{Requests: 10_000, Per: window}),
		clients(proxy.Client{Name: "any", Keys: digestsOf("key")}, proxy.Client{Name: "fixed", Keys: digestsOf("fixed"), Subdomain: "made-up-by-us"},
			proxy.Client{Name: "other", Keys: digestsOf("other")}))
	ask := func(subdomain string) *answer { return r.get("/v2/company", asClient, "X-Subdomain: "+subdomain) }
	for i := range 20 {
		ask(fmt.Sprint("real-", i)).passed(t, 200, fine)
	}
	equal(t, "a made-up one", ask("made-up-0").status, 404)
	proxy.MakeUp(t, r.proxy, account, "any", proxy.MaxStrange)
	refused := ask("real-new")
	refused.refused(t, 429, "FreeAgent has not been seen to know this company")
	if after, err := strconv.Atoi(refused.header.Get("Retry-After")); err != nil || after < 3000 || after > int(window.Seconds()) {
		t.Errorf("Retry-After %q, want when the first of them is forgotten", refused.header.Get("Retry-After"))
	}
	ask("real-1").passed(t, 200, fine)
	equal(t, "one more request of one of them", ask("made-up-1").status, 404)
	equal(t, "the fixed one", r.get("/v2/company", "X-Api-Key: fixed").status, 404)
	equal(t, "none", r.get("/v2/company", asClient).status, 200)
	r.get("/v2/company", "X-Api-Key: other", "X-Subdomain: real-other").passed(t, 200, fine)
	ask("real-other").passed(t, 200, fine) // now that another has asked for it
}

// A name whose budgets are forgotten is, too: after as long as Retry-After says there is room.
func TestStrangeSubdomainsMakeRoom(t *testing.T) {
	t.Parallel()
	const window = 2 * time.Second
	r, _ := withUpstream(t, knowing, practice, api(limiter.Window{Requests: 10_000, Per: window}))
	first := time.Now()
	proxy.MakeUp(t, r.proxy, account, proxy.Anonymous, proxy.MaxStrange)
	refused := r.get("/v2/company", "X-Subdomain: real")
	if refused.status == 200 && time.Since(first) < window {
		t.Errorf("there was room before a name was forgotten")
	}
	after, _ := strconv.Atoi(refused.header.Get("Retry-After"))
	time.Sleep(time.Duration(after) * time.Second)
	r.get("/v2/company", "X-Subdomain: real").passed(t, 200, fine)
}

// To other accounts the header is of no concern to us: it passes, and is counted with the rest.
func TestSubdomainWithoutPractice(t *testing.T) {
	r, u := withUpstream(t, well, api(limiter.Window{Requests: 2, Per: time.Minute}), maxWait(0))
	r.get("/v2/company", "X-Subdomain: A.b/c").passed(t, 200, fine)
	r.get("/v2/company", "X-Subdomain: other").passed(t, 200, fine)
	r.get("/v2/company", "X-Subdomain: third").refused(t, 429, "must not exceed")
	equal(t, "upstream", u.all()[0].header.Get("X-Subdomain"), "A.b/c")
}

// A client's share is one of each subdomain's budget.
func TestShareOfASubdomain(t *testing.T) {
	r, _ := withUpstream(t, well, api(limiter.Window{Requests: 4, Per: time.Minute}), practice,
		clients(proxy.Client{Name: "half", Keys: digestsOf("key"), Share: 0.5}, proxy.Client{Name: "fixed", Keys: digestsOf("fixed"), Subdomain: "one"}))
	for _, subdomain := range []string{"X-Subdomain: one", "X-Subdomain: two", "X-Other: x"} {
		for range 2 {
			r.get("/v2/company", asClient, subdomain).passed(t, 200, fine)
		}
		r.get("/v2/company", asClient, subdomain).refused(t, 429, "You must not exceed 2 requests per 60 seconds")
	}
	for range 2 {
		r.get("/v2/company", "X-Api-Key: fixed").passed(t, 200, fine) // what is left of one
	}
	r.get("/v2/company", "X-Api-Key: fixed").refused(t, 429, "You must not exceed 4 requests per 60 seconds")
}

// Two clients of a practice are served side by side, each at its full pace, and FreeAgent refuses neither.
func TestTwoSubdomainsSaturated(t *testing.T) {
	t.Parallel()
	const requests, rounds = 20, 3
	const per = 3 * time.Second
	window := simulator.Window{Requests: requests, Per: simulator.Duration(per - time.Second)} // a second for this machine's own delays
	r, sim := withoutGrant(t, simulator.Config{Enforcement: simulator.EnforceSliding, UserLimits: []simulator.Window{window}},
		practice, api(limiter.Window{Requests: requests, Per: per}), maxWait(time.Minute))
	r.grant(sim.AccessToken("practice"), sim.Authorize("practice"), time.Hour)
	began := time.Now()
	var asking sync.WaitGroup
	for _, subdomain := range []string{"client-one", "client-two"} {
		for range requests {
			asking.Go(func() {
				for range rounds {
					equal(t, "status", r.get("/v2/company", "X-Subdomain: "+subdomain).status, 200)
				}
			})
		}
	}
	asking.Wait()
	took := time.Since(began)
	stats := sim.Stats()
	equal(t, "429s", stats.RateLimited, 0)
	equal(t, "subdomains", len(stats.Users), 2)
	for _, user := range stats.Users {
		equal(t, user.Subdomain, user.Requests, requests*rounds)
		if most := user.Windows[0].MaxSliding; most > requests {
			t.Errorf("%s: %d requests in a window", user.Subdomain, most)
		}
	}
	// In one budget the same would take five windows more.
	if took < (rounds-1)*per || took > (2*rounds-2)*per {
		t.Errorf("took %v, want little more than %v", took, (rounds-1)*per)
	}
}
