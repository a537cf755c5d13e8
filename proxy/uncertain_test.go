package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

// Whoever reports is told which writes nobody knows the outcome of, and which answers came in part.
func TestServedTellsWhatIsUncertain(t *testing.T) {
	answers := map[string]string{
		"/v2/fine":    reply(200, fine),
		"/v2/invalid": reply(422, "{}"),
		"/v2/gateway": reply(502, "{}"),
		"/v2/cut":     text("HTTP/1.1 200 OK", "Content-Length: 100") + "only the beginning",
	}
	var seen counter
	r, _ := withUpstream(t, func(q *received) bool {
		q.read()
		answer, ok := answers[q.target]
		return ok && q.write(answer) && q.target != "/v2/cut" // else the connection breaks
	}, seen.count)
	for i, c := range []struct {
		method, path        string
		status              int
		upstream, cut, lost bool
	}{
		{"POST", "/v2/fine", 200, true, false, false},
		{"POST", "/v2/invalid", 422, true, false, false},
		{"POST", "/v2/gateway", 502, true, false, true},
		{"POST", "/v2/breaks", 502, false, false, true},
		{"DELETE", "/v2/breaks", 502, false, false, true},
		{"GET", "/v2/breaks", 502, false, false, false},
		{"GET", "/v2/cut", 200, true, true, false},
		{"POST", "/nowhere", 404, false, false, false},
	} {
		r.do(c.method, c.path, "")
		s, name := seen.next(t, i+1), c.method+" "+c.path
		equal(t, name+": method and path", s.Method+" "+s.Path, name)
		equal(t, name+": status", s.Status, c.status)
		equal(t, name+": FreeAgent's", s.Upstream, c.upstream)
		equal(t, name+": cut", s.Cut, c.cut)
		equal(t, name+": doubtful", s.Doubtful, c.lost)
	}
	for i, kept := range []bool{false, true} {
		r.do("POST", "/v2/invalid", "{}", "Idempotency-Key: one")
		s := seen.next(t, 9+i)
		equal(t, "status of a keyed write", s.Status, 422)
		equal(t, "kept answer", s.Kept, kept)
	}
}

// What the proxy asks by itself is counted, never waits, and takes nothing from programs but the permit: to these it is no
// client that room is left to.
func TestAsksItself(t *testing.T) {
	windows := []limiter.Window{{Requests: 20, Per: time.Minute}}
	r, u := withUpstream(t, well, api(windows...))
	self := httptest.NewServer(r.proxy.ForSelf())
	defer self.Close()
	ask := func(method string) int {
		t.Helper()
		request, err := http.NewRequest(method, self.URL+"/v2/company", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := self.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	equal(t, "status", ask("GET"), 200)
	equal(t, "writes", ask("POST"), 403)
	for range 19 {
		r.get("/v2/company", "Prefer: wait=0").passed(t, 200, fine)
	}
	began := time.Now()
	equal(t, "over budget", ask("GET"), 429)
	if waited := time.Since(began); waited > 5*time.Second {
		t.Errorf("waited for %s", waited)
	}
	equal(t, "upstream", len(u.all()), 20)
	used := r.limiter.UsedBy(proxy.APIBudget(account, windows))[0]
	equal(t, "used by", fmt.Sprint(used), "map[anonymous:19 freeagent-proxy:1]")
	used = r.limiter.UsedBy(proxy.EgressBudget(ample, 0))[0]
	equal(t, "of the address's", fmt.Sprint(used), "map[anonymous:19 freeagent-proxy:1]")
}

// Nor is its operator one, whose checks would else slow programs down for an hour; he waits for his turn if he must.
func TestOperatorAsks(t *testing.T) {
	windows := []limiter.Window{{Requests: 20, Per: 2 * time.Second}}
	r, _ := withUpstream(t, well, api(windows...))
	operator := func() int {
		w := httptest.NewRecorder()
		r.proxy.ForOperator().ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/v2/company", nil))
		return w.Code
	}
	equal(t, "status", operator(), 200)
	for range 19 {
		r.get("/v2/company", "Prefer: wait=0").passed(t, 200, fine)
	}
	equal(t, "status when the budget is used up", operator(), 200)
}
