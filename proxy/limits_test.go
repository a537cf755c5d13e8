package proxy_test

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

const (
	perUser    = "You must not exceed 120 requests per 60 seconds"
	perAddress = "You must not exceed 1000 requests per 60 seconds"
)

// freeAgents are FreeAgent's own limits.
func freeAgents(c *proxy.Config) {
	c.Accounts[0].API = []limiter.Window{{Requests: 120, Per: time.Minute}, {Requests: 3600, Per: time.Hour}}
	c.Egress = []limiter.Window{{Requests: 1000, Per: time.Minute}}
}

// A 429 that may be waited out is: the request goes again, whole, and others wait with it.
func TestWaitsOutA429(t *testing.T) {
	t.Parallel()
	r, sim := withSimulator(t, simulator.Config{}, freeAgents)
	const pause = 3 * time.Second
	if _, err := sim.Fault(simulator.Fault{Kind: simulator.FaultRateLimited, RetryAfter: int(pause.Seconds()), Match: simulator.Match{Times: 1}}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	got := r.do("POST", "/v2/contacts", `{"contact":{"organisation_name":"Acme"}}`)
	equal(t, "status", got.status, 201)
	equal(t, "Retry-After on a success", got.header.Get("Retry-After"), "")
	if took := time.Since(began); took < pause {
		t.Errorf("took %v, not the %v that it was told to wait", took, pause)
	}
	all := sim.Requests(0)
	if len(all) != 2 || all[0].BodySHA256 != all[1].BodySHA256 {
		t.Errorf("arrived as %+v", all)
	}
	line := r.logged(1)
	if line["attempts"] != 2.0 || line["waited_ms"].(float64) == 0 { // what is left of the pause when the request begins to wait
		t.Errorf("logged %v", line)
	}
}

// One that may not is handed on as it came; and until it is over we say the same, without asking FreeAgent.
func TestHandsOnA429(t *testing.T) {
	r, sim := withSimulator(t, simulator.Config{}, freeAgents, maxWait(5*time.Second))
	if _, err := sim.Fault(simulator.Fault{Kind: simulator.FaultRateLimited, RetryAfter: 60}); err != nil {
		t.Fatal(err)
	}
	got := r.get("/v2/company")
	got.passed(t, 429, perUser)
	equal(t, "Retry-After", got.header.Get("Retry-After"), "60")
	equal(t, "answered by", r.logged(1)["answered_by"], "upstream")

	asked := time.Now()
	got = r.get("/v2/company")
	got.refused(t, 429, perUser)
	equal(t, "body", got.body, perUser)
	equal(t, "Content-Type", got.header.Get("Content-Type"), "text/plain; charset=utf-8")
	r.untilPauseEnds(asked, got.header.Get("Retry-After"))
	equal(t, "answered by", r.logged(2)["answered_by"], "proxy")
	equal(t, "upstream", len(sim.Requests(0)), 1)
}

// untilPauseEnds expects the whole seconds that are left of the account's pause, at a moment between then and now.
func (r *rig) untilPauseEnds(then time.Time, told string) {
	r.t.Helper()
	ends, now := r.limiter.PausedUntil("api/"+account), time.Now()
	most, least := math.Ceil(ends.Sub(then).Seconds()), math.Floor(ends.Sub(now).Seconds())
	if seconds, err := strconv.Atoi(told); err != nil || float64(seconds) < least || float64(seconds) > most {
		r.t.Errorf("told to wait %q seconds, want %v to %v", told, least, most)
	}
}

// The words tell which limit it was: the address's stops all accounts.
func TestWhichBudgetA429Pauses(t *testing.T) {
	for words, key := range map[string]string{
		perUser: "api/" + account, perAddress: "egress", "You must not exceed 3600 requests per 3600 seconds": "api/" + account,
		"": "api/" + account, "<html>slow down</html>": "api/" + account,
	} {
		r, _ := withUpstream(t, always(reply(429, words, "Retry-After: 30", "Content-Type: text/plain")), freeAgents, maxWait(0))
		r.get("/v2/company").passed(t, 429, words)
		for _, k := range []string{"api/" + account, "egress"} {
			if got := !r.limiter.PausedUntil(k).IsZero(); got != (k == key) {
				t.Errorf("%q: %s paused: %v", words, k, got)
			}
		}
		if got := r.get("/v2/company"); key == "egress" {
			equal(t, "then we say", got.body, perAddress)
		}
	}
}

// A long answer is handed on whole, although its beginning was read for its words.
func TestA429WithALongBody(t *testing.T) {
	long := fmt.Sprintf("%0200000d", 7)
	r, _ := withUpstream(t, always(reply(429, long, "Retry-After: 30")), maxWait(0))
	r.get("/v2/company").passed(t, 429, long)
}

func TestRetryAfterOfFreeAgent(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"Retry-After: 30":                            30 * time.Second,
		"Retry-After:  7 ":                           7 * time.Second,
		"Retry-After: 0":                             time.Second,
		"Retry-After: in40s":                         40 * time.Second,
		"Retry-After: Sun, 06 Nov 1994 08:49:37 GMT": time.Second,
		"Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\nDate: Sun, 06 Nov 1994 08:49:07 GMT": 30 * time.Second, // another clock
		"Retry-After: 999999":               time.Hour,
		"X-Other: 1":                        time.Minute,
		"Retry-After:":                      time.Minute,
		"Retry-After: soon":                 time.Minute,
		"Retry-After: -5":                   time.Minute,
		"Retry-After: 1.5":                  time.Minute,
		"Retry-After: 99999999999999999999": time.Minute,
	} {
		r, _ := withUpstream(t, at429(header), maxWait(0))
		before := time.Now()
		r.get("/v2/company").passed(t, 429, perUser)
		ends := r.limiter.PausedUntil("api/" + account).Sub(before)
		took := time.Since(before)
		if slack := upToASecond(header); ends < want-slack || ends > want+took+time.Millisecond {
			t.Errorf("%s: paused until %v after it was asked, which took %v; want %v", header, ends, took, want)
		}
	}
}

// at429 answers 429 with a header, in which in40s is a date then.
func at429(header string) answerer {
	return func(q *received) bool {
		date := time.Now().Add(40 * time.Second).UTC().Format(http.TimeFormat)
		return always(reply(429, perUser, strings.Replace(header, "in40s", date, 1)))(q)
	}
}

// upToASecond is what a date leaves out.
func upToASecond(header string) time.Duration {
	if strings.Contains(header, "in40s") {
		return time.Second
	}
	return 0
}

// The client is told when to come back in seconds, which is all that programs parse, whatever FreeAgent said.
func TestRetryAfterIsHandedOnInSeconds(t *testing.T) {
	for header, want := range map[string]string{
		"Retry-After: 30": "^30$", "Retry-After: 0": "^0$", "Retry-After: 999999": "^999999$",
		"X-Other: 1": "^60$", "Retry-After:": "^60$", "Retry-After: soon": "^60$", "Retry-After: -5": "^60$", "Retry-After: 1.5": "^60$",
		"Retry-After: in40s": "^(3[5-9]|40)$", "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT": "^1$",
	} {
		r, _ := withUpstream(t, at429(header), maxWait(0))
		got := r.get("/v2/company")
		got.passed(t, 429, perUser)
		if told := got.header.Get("Retry-After"); !regexp.MustCompile(want).MatchString(told) {
			t.Errorf("%s: the client is told %q, want %s", header, told, want)
		}
	}
}

// While FreeAgent has us pause, RateLimit says when that is over, and not when the hour is.
func TestRateLimitTellsOfThePause(t *testing.T) {
	r, _ := withUpstream(t, always(reply(429, perUser, "Retry-After: 30")), freeAgents, maxWait(0))
	for range 2 { // FreeAgent's 429, then our own
		asked := time.Now()
		got := r.get("/v2/company")
		equal(t, "status", got.status, 429)
		limit := regexp.MustCompile(`^"(?:minute|hour)";r=0;t=(\d+)$`).FindStringSubmatch(got.header.Get("RateLimit"))
		if limit == nil {
			t.Fatalf("RateLimit: %s, want the pause of 30 s", got.header.Get("RateLimit"))
		}
		r.untilPauseEnds(asked, limit[1])
	}
}

// Over our own budget FreeAgent is not asked, and the client hears FreeAgent's words at once.
func TestOverBudget(t *testing.T) {
	windows := []limiter.Window{{Requests: 3, Per: time.Minute}, {Requests: 100, Per: time.Hour}}
	const most = 20 * time.Second
	r, u := withUpstream(t, well, api(windows...), maxWait(most))
	first := time.Now()
	for range 3 {
		r.get("/v2/company").passed(t, 200, fine)
	}
	for i, accept := range []string{"application/json", "application/xml", "*/*"} {
		began := time.Now()
		got := r.do("POST", "/v2/invoices", "{}", "Accept: "+accept)
		got.refused(t, 429, "")
		equal(t, "body", got.body, "You must not exceed 3 requests per 60 seconds")
		equal(t, "Content-Type", got.header.Get("Content-Type"), "text/plain; charset=utf-8")
		var seconds float64
		passed := time.Since(first).Seconds()
		if _, err := fmt.Sscan(got.header.Get("Retry-After"), &seconds); err != nil || seconds < 60-passed || seconds > 61 {
			t.Errorf("Retry-After %q, %v s after the first request", got.header.Get("Retry-After"), passed)
		}
		if took := time.Since(began); took >= most {
			t.Errorf("told after %v", took)
		}
		line := r.logged(4 + i)
		equal(t, "attempts", line["attempts"], 0.0)
	}
	equal(t, "upstream", len(u.all()), 3)
	equal(t, "permits", r.taken(windows), 3)
}

// Within max_wait it waits for its turn instead, and says in the log how long.
func TestWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	windows := []limiter.Window{{Requests: 2, Per: time.Second}}
	r, u := withUpstream(t, well, api(windows...))
	began := time.Now()
	for range 5 {
		got := r.get("/v2/company")
		got.passed(t, 200, fine)
		equal(t, "Retry-After on a success", got.header.Get("Retry-After"), "")
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("5 requests at 2 a second took %v", took)
	}
	equal(t, "upstream", len(u.all()), 5)
}

// Prefer: wait=N makes the wait shorter, never longer.
func TestPreferWait(t *testing.T) {
	t.Parallel()
	type preference struct {
		prefer  string
		maxWait time.Duration
		status  int
	}
	together([]preference{
		{"wait=0", time.Minute, 429}, {"WAIT=1", time.Minute, 429}, {"respond-async, wait=1", time.Minute, 429},
		{`wait="1"`, time.Minute, 429}, {"wait = 1 ; x=y", time.Minute, 429}, {"return=minimal\r\nPrefer: wait=0", time.Minute, 429},
		{"wait=60", time.Second, 429},
		{"wait=10", time.Minute, 200}, {"wait=soon", time.Minute, 200}, {"wait", time.Minute, 200}, {"wait=-1", time.Minute, 200},
		{"waiting=0", time.Minute, 200}, {"wait=99999999999999999999", time.Minute, 200},
	}, func(c preference) {
		window := limiter.Window{Requests: 1, Per: 3 * time.Second}
		if c.status == 429 {
			window.Per = 30 * time.Second // not that it waits for a second, in vain, but has the turn by then
		}
		r, _ := withUpstream(t, well, api(window), maxWait(c.maxWait))
		r.fill()
		equal(t, c.prefer, r.get("/v2/company", "Prefer: "+c.prefer).status, c.status)
	})
}

// What FreeAgent's per-address budget keeps for refreshes an API request does not get.
func TestEgressIsShared(t *testing.T) {
	r, u := withUpstream(t, well, maxWait(0), func(c *proxy.Config) {
		c.Egress = []limiter.Window{{Requests: 100, Per: time.Minute}}
	})
	for range 98 {
		r.get("/v2/company").passed(t, 200, fine)
	}
	got := r.get("/v2/company")
	got.refused(t, 429, "You must not exceed 100 requests per 60 seconds")
	equal(t, "upstream", len(u.all()), 98)
}

// Every attempt counts, those after broken connections too: FreeAgent never has to say that it was too many.
func TestReplaysCount(t *testing.T) {
	t.Parallel()
	limit := simulator.Window{Requests: 10, Per: simulator.Duration(time.Second)}
	r, sim := withSimulator(t, simulator.Config{Enforcement: simulator.EnforceSliding, UserLimits: []simulator.Window{limit}},
		api(limiter.Window{Requests: 10, Per: 2 * time.Second})) // a second for this machine's own delays
	if _, err := sim.Fault(simulator.Fault{Kind: simulator.FaultDrop, Match: simulator.Match{Probability: 0.3}}); err != nil {
		t.Fatal(err)
	}
	const requests = 24
	together(make([]struct{}, requests), func(struct{}) {
		if got := r.get("/v2/company"); got.status != 200 && got.status != 502 {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
	r.logged(requests)
	attempts := 0.0
	for _, line := range r.log.lines("request") {
		attempts += line["attempts"].(float64)
	}
	stats := sim.Stats()
	equal(t, "refused by FreeAgent", stats.RateLimited, 0)
	equal(t, "attempts", int64(attempts), stats.Requests)
	if most := stats.Users[0].Windows[0].MaxSliding; most > limit.Requests {
		t.Errorf("%d requests in a second, limit %d", most, limit.Requests)
	}
}
