package proxy_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

// Every answer about a known account tells what is left, also ours; what the upstream says of that is not passed on.
func TestRateLimitHeaders(t *testing.T) {
	t.Parallel()
	windows := []limiter.Window{{Requests: 3, Per: time.Minute}, {Requests: 3600, Per: time.Hour}}
	const policy = `"minute";q=3;w=60, "hour";q=3600;w=3600`
	r, _ := withUpstream(t, always(reply(200, fine, "RateLimit: limit=1, remaining=0", `RateLimit-Policy: "theirs";q=1`, "RateLimit-Remaining: 0")),
		maxWait(0), func(c *proxy.Config) { c.Accounts[0].API = windows })
	tests := []struct {
		method, target string
		status         int
		policy, left   string
	}{
		{"GET", "/v2/company", 200, policy, `"minute";r=2;t=`},
		{"POST", "/v2/contacts", 200, policy, `"minute";r=1;t=`},
		{"GET", "/v2/company", 200, policy, `"minute";r=0;t=`},
		{"GET", "/v2/company", 429, policy, `"minute";r=0;t=`},
		{"GET", "/accounts/other/v2/company", 404, "", ""},
		{"BREW", "/v2/company", 405, "", ""},
	}
	for _, test := range tests {
		got := r.do(test.method, test.target, "")
		equal(t, "status", got.status, test.status)
		equal(t, "RateLimit-Policy", got.header.Get("RateLimit-Policy"), test.policy)
		left := got.header.Get("RateLimit")
		until, _ := strconv.Atoi(strings.TrimPrefix(left, test.left))
		if !strings.HasPrefix(left, test.left) || test.left != "" && (until < 30 || until > 61) { // a minute, and the guard
			t.Errorf("RateLimit: %s, want %s and about a minute", left, test.left)
		}
		equal(t, "RateLimit-Remaining", got.header.Get("RateLimit-Remaining"), "")
		if test.status == 200 {
			equal(t, "Retry-After", got.header.Get("Retry-After"), "")
		}
	}
	if left := r.limiter.Usage(proxy.APIBudget(account, windows))[1].Remaining; left != 3597 {
		t.Errorf("%d are left of the hour, want 3597", left)
	}
}

// The window of which least is left is told, a client's share if that is it.
func TestTightestWindowIsTold(t *testing.T) {
	minute, hour := limiter.Window{Requests: 120, Per: time.Minute}, limiter.Window{Requests: 130, Per: time.Hour}
	odd := limiter.Window{Requests: 4, Per: 1500 * time.Millisecond}
	api := limiter.Budget{Key: "api/acme", Windows: []limiter.Window{minute, hour}}
	share := limiter.Budget{Key: "share/acme/nightly", Windows: []limiter.Window{{Requests: 96, Per: time.Minute}}}
	tests := map[string]struct {
		budgets      []limiter.Budget
		taken        int // long ago, but within the hour
		policy, left string
	}{
		"unused":     {[]limiter.Budget{api}, 0, `"minute";q=120;w=60, "hour";q=130;w=3600`, `"minute";r=120;t=0`},
		"hour":       {[]limiter.Budget{api}, 100, `"minute";q=120;w=60, "hour";q=130;w=3600`, `"hour";r=30;t=3480`},
		"share":      {[]limiter.Budget{api, share}, 0, `"minute";q=120;w=60, "hour";q=130;w=3600, "share-minute";q=96;w=60`, `"share-minute";r=96;t=0`},
		"odd window": {[]limiter.Budget{{Key: "odd", Windows: []limiter.Window{odd}}}, 0, `"1.5s";q=4;w=2`, `"1.5s";r=4;t=0`},
		"two of a length": {[]limiter.Budget{{Key: "two", Windows: []limiter.Window{minute, hour, {Requests: 5, Per: time.Minute}}}}, 0,
			`"minute";q=120;w=60, "hour";q=130;w=3600, "minute-5";q=5;w=60`, `"minute-5";r=5;t=0`},
		"no window": {[]limiter.Budget{{Key: "none"}}, 0, "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, err := limiter.NewLocal(limiter.Config{})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				for range test.taken {
					p, err := l.Take(t.Context(), limiter.Request{Budgets: test.budgets})
					if err != nil {
						t.Fatal(err)
					}
					p.Sent()
				}
				time.Sleep(2 * time.Minute)
				h := make(http.Header)
				proxy.RateLimitHeaders(l, test.budgets[0], test.budgets[1:]...)(h)
				equal(t, "RateLimit-Policy", h.Get("RateLimit-Policy"), test.policy)
				equal(t, "RateLimit", h.Get("RateLimit"), test.left)
			})
		})
	}
}

func BenchmarkRateLimitHeaders(b *testing.B) {
	l, err := limiter.NewLocal(limiter.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	api := limiter.Budget{Key: "api/acme", Windows: []limiter.Window{{Requests: 120, Per: time.Minute}, {Requests: 3600, Per: time.Hour}}}
	for range 100 {
		if p, err := l.Take(b.Context(), limiter.Request{Budgets: []limiter.Budget{api}}); err == nil {
			p.Sent()
		}
	}
	h, tell := make(http.Header), proxy.RateLimitHeaders(l, api)
	b.ReportAllocs()
	for b.Loop() {
		tell(h)
	}
}
