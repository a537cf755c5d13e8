package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

// A request that waits for its turn goes on by the policy under which it came, although its client, its account and its limits are
// not configured any more; the next one meets what is.
func TestReconfigureWhileWaiting(t *testing.T) {
	t.Parallel()
	named := clients(proxy.Client{Name: "billing", Keys: digestsOf("MARKED-key"), MaxWait: 10 * time.Second})
	r, u := withUpstream(t, well, api(one...), named)
	held := r.dial()
	request := r.request("GET", "/v2/company", "", "X-Api-Key: MARKED-key")
	equal(t, "the first", held.send(request).answer("GET").status, 200)
	letGo := r.hold("billing", one)
	waiting := make(chan *answer)
	go func() { waiting <- r.get("/v2/company", "X-Api-Key: MARKED-key") }()
	r.oneWaits()

	changed := r.configured(mustURL(u.url), nil)
	changed.Accounts = []proxy.Account{{Name: "other", API: ample}}
	clients(proxy.Client{Name: "shop", Keys: digestsOf("MARKED-other")})(&changed)
	r.proxy.Reconfigure(changed)
	equal(t, "the same key on the same connection", held.send(request).answer("GET").status, 401)
	equal(t, "an account that is gone", r.get("/accounts/acme/v2/company", "X-Api-Key: MARKED-other").status, 403)
	letGo()
	equal(t, "what waited", (<-waiting).status, 200)
}

// Each setting that Reconfigure names is replaced.
func TestReconfigureReplaces(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, well)
	equal(t, "a foreign host", r.ask("GET /v2/company HTTP/1.1\r\nHost: new.example\r\n\r\n").status, 421)
	changed := r.configured(mustURL(u.url), nil)
	changed.Hosts = []string{"new.example"}
	changed.Accounts[0].API = []limiter.Window{{Requests: 7, Per: time.Minute}}
	r.proxy.Reconfigure(changed)
	got := r.ask("GET /v2/company HTTP/1.1\r\nHost: new.example\r\n\r\n")
	equal(t, "a host that is ours now", got.status, 200)
	equal(t, "the policy", got.header.Get("RateLimit-Policy"), `"minute";q=7;w=60`)
	equal(t, "a host that was ours", r.ask("GET /v2/company HTTP/1.1\r\nHost: freeagent.internal\r\n\r\n").status, 421)
	r.proxy.Reconfigure(r.configured(mustURL(u.url), nil))
	equal(t, "a host that is ours again", r.ask("GET /v2/company HTTP/1.1\r\nHost: freeagent.internal\r\n\r\n").status, 200)
}

// So are those that need FreeAgent's answer, a wait or another address to be seen.
func TestReconfigureReplacesMore(t *testing.T) {
	t.Parallel()
	r, _ := withSimulator(t, simulator.Config{})
	changed := r.configured(mustURL("http://127.0.0.1:1"), nil) // where FreeAgent is, is not replaced
	changed.PublicURL = mustURL("http://public.example")
	changed.TrustedProxies = prefixes("127.0.0.1/32")
	clients(proxy.Client{Name: "far", Networks: prefixes("10.9.9.9/32"), MaxWait: 0})(&changed)
	changed.Accounts[0].API = []limiter.Window{{Requests: 2, Per: time.Hour}}
	r.proxy.Reconfigure(changed)
	got := r.get("/v2/company", "X-Forwarded-For: 10.9.9.9")
	equal(t, "behind a trusted proxy", got.status, 200)
	if !strings.Contains(got.body, `"http://public.example/v2/`) {
		t.Errorf("no URL of ours in %s", got.body)
	}
	equal(t, "from elsewhere", r.get("/v2/company", "X-Forwarded-For: 10.9.9.8").status, 401)
	equal(t, "the second", r.get("/v2/company", "X-Forwarded-For: 10.9.9.9").status, 200)
	began := time.Now()
	equal(t, "the third, which may not wait", r.get("/v2/company", "X-Forwarded-For: 10.9.9.9").status, 429)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("waited %v", took)
	}
}

// The listener of a client that is gone is nobody's, also if everybody else is let in; it is the client's when that is back.
func TestReconfigureOwnListener(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, well, clients(proxy.Client{Name: "legacy"}))
	entrance := r.proxy.For("legacy")
	ask := func(handler http.Handler) int {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/v2/company", nil))
		return w.Code
	}
	equal(t, "the client", ask(entrance), 200)
	r.proxy.Reconfigure(r.configured(mustURL(u.url), nil))
	equal(t, "gone", ask(entrance), 401)
	equal(t, "everybody", ask(r.proxy), 200)
	equal(t, "the operator", ask(r.proxy.ForOperator()), 200)
	back := r.configured(mustURL(u.url), nil)
	clients(proxy.Client{Name: "legacy", ReadOnly: true})(&back)
	r.proxy.Reconfigure(back)
	equal(t, "back", ask(entrance), 200)
}
