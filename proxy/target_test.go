package proxy_test

import (
	"strings"
	"testing"

	"freeagent-proxy/proxy"
)

// The request-target arrives as the client wrote it, but for doubled slashes and the account's name.
func TestTargetByteForByte(t *testing.T) {
	r, u := withUpstream(t, well)
	long := "/v2/invoices?q=" + strings.Repeat("0123456789abcdef", 3<<10) // 48 KiB
	cases := []struct{ target, want string }{
		{"/v2/company", "/v2/company"},
		{"/v2/", "/v2/"},
		{"/v2/company/", "/v2/company/"},
		{"//v2//company", "/v2/company"},
		{"/v2//token", "/v2/token"},
		{"///v2///invoices////1//", "/v2/invoices/1/"},
		{"/accounts/acme/v2/company", "/v2/company"},
		{"//accounts//acme//v2//company?x=//y", "/v2/company?x=//y"},
		{"/v2/company?", "/v2/company?"},
		{"/v2/company??", "/v2/company??"},
		{"/v2/company?a=1;b=2&c=%zz", "/v2/company?a=1;b=2&c=%zz"},
		{"/v2/company?&view=active", "/v2/company?&view=active"},
		{"/v2/company?view=active&&", "/v2/company?view=active&&"},
		{"/v2/company?=", "/v2/company?="},
		{"/v2/tasks?project=https://api.freeagent.com/v2/projects/1", "/v2/tasks?project=https://api.freeagent.com/v2/projects/1"},
		{"/v2/tasks?project=https%3A%2F%2fapi.freeagent.com/v2//projects/../1", "/v2/tasks?project=https%3A%2F%2fapi.freeagent.com/v2//projects/../1"},
		{"/v2/a%2fb%2Fc%e2%82%AC", "/v2/a%2fb%2Fc%e2%82%AC"},
		{"/v2/~user/!$&'()*+,;=:@", "/v2/~user/!$&'()*+,;=:@"},
		{"/v2/caf\xc3\xa9?q=\xff\xfe|{}^`\\\"<>", "/v2/caf\xc3\xa9?q=\xff\xfe|{}^`\\\"<>"},
		{"/v2/company#part", "/v2/company#part"},
		{"/v2/%61bc", "/v2/%61bc"},
		{"/v2/...", "/v2/..."},
		{"/v2/a..b/.c/d.", "/v2/a..b/.c/d."},
		{"/v2/%252e%252e/x", "/v2/%252e%252e/x"}, // decoded once it is no dot segment
		{"/v2/v2/v2", "/v2/v2/v2"},
		{long, long},
	}
	c := r.dial()
	for i, q := range cases {
		c.send(text("GET "+q.target+" HTTP/1.1", "Host: "+r.addr)).answer("GET").passed(t, 200, fine)
		if got := u.all()[i].target; got != q.want {
			t.Errorf("%.80q arrived as %.80q", q.target, got)
		}
	}
}

// A program that takes the proxy for an HTTP proxy writes the whole address.
func TestAbsoluteForm(t *testing.T) {
	r, u := withUpstream(t, well)
	api := strings.TrimPrefix(u.url, "http://")
	for i, target := range []string{
		"http://" + api + "/v2/company?x=%zz;",
		"HTTP://" + api + "//v2//company?x=%zz;",
		"https://" + r.addr + "/v2/company?x=%zz;",
		"http://user:password@" + r.addr + "/accounts/acme/v2/company?x=%zz;",
	} {
		r.ask(text("GET "+target+" HTTP/1.1", "Host: elsewhere.example", "Connection: close")).passed(t, 200, fine)
		q := u.all()[i]
		equal(t, target, q.target, "/v2/company?x=%zz;")
		equal(t, target+": Host", q.has("Host: "+api), true)
		if strings.Contains(q.head, "password") || strings.Contains(q.head, "elsewhere") {
			t.Errorf("%s: %q", target, q.head)
		}
	}
}

// What is not FreeAgent's API gets an answer of our own, and nobody else hears of it.
func TestNotTheAPI(t *testing.T) {
	r, u := withUpstream(t, well)
	for _, target := range []string{
		"/", "/v2", "/v2?x=1", "/v1/company", "/v2x/company", "/V2/company", "/v2%2fcompany", "/%76%32/company", "/favicon.ico",
		"/accounts", "/accounts/", "/accounts/acme", "/accounts/acme/", "/accounts/acme/v2", "/accounts/acme/v1/company",
		"/accounts/acme/accounts/acme/v2/company", "/accounts/v2/company",
		"/v2/.", "/v2/..", "/v2/../company", "/v2/./company", "/v2/company/..", "/v2/invoices/../../admin",
		"/v2/%2e%2e/admin", "/v2/%2E%2e%2Fadmin", "/v2/.%2e/admin", "/v2/x%2f..%2fadmin", "/v2/..%5cadmin", "/v2/..\\admin", "/v2/x\\..\\admin",
		"//..//v2/company", "/../v2/company", "/accounts/../v2/company", "/accounts/acme/../v2/company", "/accounts/acme/v2/../x",
		"http://" + r.addr, "http://" + r.addr + "?/v2/company", "http://" + r.addr + "/", "http:/v2/company", "*",
	} {
		got := r.ask(text("GET "+target+" HTTP/1.1", "Host: "+r.addr, "Connection: close"))
		if got.refused(t, 404, ""); t.Failed() {
			t.Fatalf("%s", target)
		}
		if got.header.Get("Location") != "" {
			t.Errorf("%s: redirected", target)
		}
	}
	r.get("/accounts/ACME/v2/company").refused(t, 404, "no account of this name")
	r.get("/accounts/ac%6de/v2/company").refused(t, 404, "no account of this name")
	u.nothing()
}

// FreeAgent's OAuth is not for clients: what it answers to a refresh would be the tokens. The proxy answers the two
// pages itself, and nothing that resembles them goes on.
func TestOAuthIsNotForwarded(t *testing.T) {
	r, u := withUpstream(t, well)
	for _, target := range []string{
		"/v2/token_endpoint.json", "/v2/token_endpoint/x", "/v2/token_endpoints", "/v2/token%5fendpoint%2fx", "/v2/approve_app/1", "/v2/approv%65_apps",
	} {
		for _, method := range []string{"GET", "POST"} {
			r.do(method, target, "grant_type=refresh_token").refused(t, 404, "the proxy keeps the tokens")
		}
	}
	for _, target := range []string{"/v2/token_endpoint", "/v2/token_endpoint?grant_type=refresh_token"} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			r.do(method, target, "grant_type=refresh_token").refused(t, 404, "the proxy keeps the tokens")
		}
	}
	r.do("POST", "/v2/approve_app", "").refused(t, 404, "the proxy keeps the tokens")
	u.nothing()
}

// What Go's server cannot parse it refuses itself; what matters is that it goes nowhere.
func TestMalformedTargets(t *testing.T) {
	r, u := withUpstream(t, well)
	for _, target := range []string{"/v2/%zz", "/v2/%2e%2e/%", "v2/company", "/v2/a b", "/v2/\x01", "http://[::1/v2/company", "http://%zz/v2/x"} {
		got := r.ask(text("GET "+target+" HTTP/1.1", "Host: "+r.addr, "Connection: close"))
		if got.status != 400 && got.status != 404 && got.status != 421 {
			t.Errorf("%q: %d %q", target, got.status, got.body)
		}
	}
	u.nothing()
}

// What the README says of requests that no handler sees: answered by Go's server, and hung up on.
func TestServersOwnAnswers(t *testing.T) {
	r, u := withUpstream(t, well)
	for _, c := range []struct {
		request string
		status  int
	}{
		{text("GET /v2/contacts?search=a b HTTP/1.1", "Host: localhost"), 400},
		{text("GET /v2/a%zz HTTP/1.1", "Host: localhost"), 400},
		{text("GET /v2/company HTTP/1.1", "Host: localhost", "no header"), 400},
		{text("POST /v2/invoices HTTP/1.1", "Host: localhost", "Expect: 200-ok", "Content-Length: 0"), 417},
		{text("GET /v2/company HTTP/1.1", "Host: localhost", "X-Long: "+strings.Repeat("x", 80<<10)), 431},
		{text("POST /v2/invoices HTTP/1.1", "Host: localhost", "Transfer-Encoding: gzip"), 501},
		{text("GET /v2/company HTTP/3.0", "Host: localhost"), 505},
	} {
		got := r.ask(c.request)
		if got.status != c.status || !got.closes || got.header.Get("Proxy-Status") != "" {
			t.Errorf("%.60q: %d, closes %v, %v", c.request, got.status, got.closes, got.header)
		}
	}
	u.nothing()
	equal(t, "logged", len(r.log.lines("request")), 0)
}

func TestConnectIsRefused(t *testing.T) {
	r, u := withUpstream(t, well)
	for _, request := range []string{
		text("CONNECT api.freeagent.com:443 HTTP/1.1", "Host: api.freeagent.com:443"),
		text("CONNECT " + strings.TrimPrefix(u.url, "http://") + " HTTP/1.0"),
		text("CONNECT /v2/company HTTP/1.1", "Host: "+r.addr),
	} {
		c := r.dial().send(request)
		got := c.answer("CONNECT")
		got.refused(t, 405, "plain HTTP")
		equal(t, "closes", got.closes, true)
		equal(t, "rest", c.rest(), "")
	}
	u.nothing()
}

// A request's account: its path's, else its header's, else the default one.
func TestWhichAccount(t *testing.T) {
	two := func(byDefault bool) func(*proxy.Config) {
		return func(c *proxy.Config) {
			c.Accounts = []proxy.Account{{Name: account, Default: byDefault, API: ample}, {Name: "other", API: ample}}
		}
	}
	r, u := withUpstream(t, well, two(false))
	got := r.get("/v2/company")
	got.refused(t, 400, "name one in X-FreeAgent-Account")
	r.get("/v2/company", "X-FreeAgent-Account: nobody").refused(t, 404, "no account of this name")
	r.get("/accounts/nobody/v2/company", "X-FreeAgent-Account: acme").refused(t, 404, "no account of this name")
	r.get("/v2/company", "X-FreeAgent-Account: other").refused(t, 503, "authorize --account other")
	r.get("/accounts/other/v2/company", "X-FreeAgent-Account: acme").refused(t, 503, "authorize --account other")
	u.nothing()
	r.get("/v2/company", "X-FreeAgent-Account: acme").passed(t, 200, fine)
	r.get("/accounts/acme/v2/company").passed(t, 200, fine)

	r, u = withUpstream(t, well, two(true))
	r.get("/v2/company").passed(t, 200, fine)
	r.get("/v2/company", "X-FreeAgent-Account: ").passed(t, 200, fine)
	equal(t, "requests", len(u.all()), 2)
}
