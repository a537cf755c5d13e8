package proxy_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"freeagent-proxy/proxy"
)

// A request arrives as the client wrote it, but for its credentials and ours.
func TestForwardsAllMethods(t *testing.T) {
	r, u := withUpstream(t, well)
	for i, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"} {
		body := fmt.Sprintf(`{"invoice":{"reference":"%03d","comments":"£ \u00a3"}}`, i)
		got := r.do(method, "/v2/invoices/1?nested=true", body, "Content-Type: application/json", "X-Subdomain: client-one")
		equal(t, method+" status", got.status, 200)
		q := u.all()[i]
		equal(t, method+" method", q.method, method)
		equal(t, method+" target", q.target, "/v2/invoices/1?nested=true")
		equal(t, method+" body", q.body, body)
		for _, line := range []string{
			"Authorization: Bearer " + accessToken, "Content-Type: application/json", "X-Subdomain: client-one",
			fmt.Sprintf("Content-Length: %d", len(body)),
		} {
			if !q.has(line) {
				t.Errorf("%s: no %q in %q", method, line, q.head)
			}
		}
		equal(t, method+" Host", q.has("Host: "+strings.TrimPrefix(u.url, "http://")), true)
	}
}

// What a client says of itself, of its network or to us stays with us.
func TestKeepsFromUpstream(t *testing.T) {
	r, u := withUpstream(t, well)
	const mark = "not-for-upstream"
	names := []string{
		"Authorization", "authorization", "Proxy-Authorization", "Cookie", "Cookie2", "X-Api-Key",
		"X-Request-Id", "Idempotency-Key", "X-Idempotency-Key", "Prefer",
		"Forwarded", "Via", "X-Real-IP", "True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP",
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server",
		"X-Forwarded-Prefix", "X-Forwarded-Ssl", "X-Forwarded-Scheme",
		"Referer", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override",
		"X-Original-URL", "X-Rewrite-URL", "X-RateLimit-Test",
		"Keep-Alive", "Proxy-Connection", "Te", "Trailer", "HTTP2-Settings", "Upgrade", "Sec-Fetch-Mode", "Sec-Fetch-Dest",
		"Sec-Ch-Ua", "X-Forwarded", "X_Subdomain", "X_Forwarded_For", "Content_Type",
	}
	var headers []string
	for _, name := range names {
		headers = append(headers, name+": "+mark)
	}
	headers = append(headers, "Sec-Fetch-Site: none", "Origin: http://"+r.addr, "Expect: 100-continue", "TE: trailers")
	c := r.dial().send(r.request("POST", "/v2/invoices", "{}", headers...))
	if got := c.begin("POST"); got.StatusCode != 100 {
		t.Errorf("status %d, want 100 first", got.StatusCode)
	}
	c.answer("POST").passed(t, 200, fine)
	q := u.only()
	if strings.Contains(strings.ToLower(q.head), mark) {
		t.Errorf("%q", q.head)
	}
	want := []string{"Authorization", "Content-Length", "User-Agent"}
	if got := slices.Sorted(maps.Keys(q.header)); !slices.Equal(got, want) {
		t.Errorf("header names %v, want %v", got, want)
	}
	equal(t, "Authorization", q.header.Get("Authorization"), "Bearer "+accessToken)
}

// The account is named to us, not to FreeAgent.
func TestKeepsTheAccountsName(t *testing.T) {
	r, u := withUpstream(t, well)
	r.get("/v2/company", "X-FreeAgent-Account: acme").passed(t, 200, fine)
	r.get("/accounts/acme/v2/company", "X-FreeAgent-Account: other").passed(t, 200, fine)
	for _, q := range u.all() {
		if strings.Contains(q.head, account) {
			t.Errorf("%q", q.head)
		}
	}
}

// Connection names headers that end here, which must never be ours (golang/go #50580).
func TestConnectionHeader(t *testing.T) {
	for _, value := range []string{
		"Authorization", "close, X-Foo, authorization, User-Agent, Host, Content-Length", "Keep-Alive,X-Foo", "X-Foo\r\nConnection: Authorization",
	} {
		r, u := withUpstream(t, well)
		r.do("POST", "/v2/invoices", "{}", "Connection: "+value, "X-Foo: secret", "X-Bar: open").passed(t, 200, fine)
		q := u.only()
		equal(t, value+": Authorization", q.has("Authorization: Bearer "+accessToken), true)
		equal(t, value+": X-Bar", q.has("X-Bar: open"), true)
		equal(t, value+": Connection", q.header.Get("Connection"), "")
		equal(t, value+": body", q.body, "{}")
		if strings.Contains(value, "X-Foo") && q.header.Get("X-Foo") != "" {
			t.Errorf("%s: X-Foo went upstream", value)
		}
		if q.header.Get("User-Agent") == "" {
			t.Errorf("%s: no User-Agent", value)
		}
	}
}

// Programs offer HTTP/2 by Upgrade; it ends here, and the request is served in HTTP/1.1.
func TestUpgradeIsIgnored(t *testing.T) {
	for _, headers := range [][]string{
		{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"},
		{"Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: eA==", "Sec-WebSocket-Version: 13"},
		{"Connection: Upgrade", "Upgrade: \xff\xfe"}, // not printable: ReverseProxy's error is not to be the client's 500
		{"Connection: Upgrade"},
		{"Upgrade: h2c"},
	} {
		r, u := withUpstream(t, well)
		r.get("/v2/company", headers...).passed(t, 200, fine)
		q := u.only()
		for _, name := range []string{"Connection", "Upgrade", "Http2-Settings"} {
			if got, ok := q.header[name]; ok {
				t.Errorf("%q: %s %q went upstream", headers, name, got)
			}
		}
	}
}

// Lines that a client repeats stay lines of their own, in their order.
func TestRepeatedHeaders(t *testing.T) {
	r, u := withUpstream(t, well)
	r.get("/v2/company", "Accept: application/json", "X-Tag: one", "Accept: text/plain", "X-Tag:two", "X-Tag: a, b", "Accept-Language: en")
	q := u.only()
	if got, want := q.header["X-Tag"], []string{"one", "two", "a, b"}; !slices.Equal(got, want) {
		t.Errorf("X-Tag %q, want %q", got, want)
	}
	if got, want := q.header["Accept"], []string{"application/json", "text/plain"}; !slices.Equal(got, want) {
		t.Errorf("Accept %q, want %q", got, want)
	}
}

// Nothing is added that changes the answer's format or encoding.
func TestAddsNothing(t *testing.T) {
	r, u := withUpstream(t, well)
	r.get("/v2/company")
	if got, want := slices.Sorted(maps.Keys(u.only().header)), []string{"Authorization", "User-Agent"}; !slices.Equal(got, want) {
		t.Errorf("header names %v, want %v", got, want)
	}
}

func TestUserAgent(t *testing.T) {
	for _, c := range []struct{ theirs, ours, want string }{
		{"", "", "freeagent-proxy/test"},
		{"User-Agent: curl/8", "", "curl/8"},
		{"", "Acme (ops@acme.example)", "Acme (ops@acme.example)"},
		{"User-Agent: curl/8", "Acme", "curl/8 Acme"},
		{"User-Agent:", "", "freeagent-proxy/test"},
		{"User-Agent:", "Acme", "Acme"},
	} {
		r, u := withUpstream(t, well, func(cfg *proxy.Config) { cfg.UserAgent = c.ours })
		var headers []string
		if c.theirs != "" {
			headers = append(headers, c.theirs)
		}
		r.get("/v2/company", headers...)
		if got := u.only().header["User-Agent"]; !slices.Equal(got, []string{c.want}) {
			t.Errorf("%q and %q: got %q, want %q", c.theirs, c.ours, got, c.want)
		}
	}
}

// X-RateLimit-Test makes the sandbox allow 5 requests a minute, to everyone.
func TestRateLimitTest(t *testing.T) {
	for _, let := range []bool{false, true} {
		r, u := withUpstream(t, well, func(cfg *proxy.Config) { cfg.Accounts[0].RateLimitTest = let })
		r.get("/v2/company", "x-ratelimit-test: true")
		equal(t, fmt.Sprintf("let through %v", let), u.only().header.Get("X-RateLimit-Test") == "true", let)
	}
}
