package proxy_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"freeagent-proxy/proxy"
)

// A client that says Content-Length: 0 and sends a body all the same makes its next request begin with it.
func TestBytesAfterAnEmptyBody(t *testing.T) {
	r, u := withUpstream(t, well)
	c := r.dial()
	c.send(text("PUT /v2/invoices/1/transitions/mark_as_sent HTTP/1.1", "Host: localhost", "Content-Length: 0"), "null")
	c.answer("PUT").passed(t, 200, fine)
	c.send(text("DELETE /v2/invoices/1 HTTP/1.1", "Host: localhost"))
	got := c.answer("DELETE")
	got.refused(t, 405, "GET, POST, PUT and DELETE")
	equal(t, "closes", got.closes, true)
	equal(t, "Allow", got.header.Get("Allow"), "GET, HEAD, POST, PUT, DELETE, PATCH")
	equal(t, "rest", c.rest(), "")
	equal(t, "upstream", u.only().method, "PUT")
}

func TestMethods(t *testing.T) {
	r, u := withUpstream(t, well)
	for _, line := range []string{
		"OPTIONS /v2/company", "OPTIONS *", "TRACE /v2/company", "get /v2/company", "Get /v2/company", "PROPFIND /v2/company",
		"nullDELETE /v2/invoices/1", "QUERY /v2/company", "{}POST /v2/invoices",
	} {
		c := r.dial().send(text(line+" HTTP/1.1", "Host: "+r.addr))
		got := c.answer("GET")
		if strings.HasPrefix(line, "{") { // no token of RFC 9110: Go's server refuses it
			equal(t, line, got.status, 400)
			continue
		}
		got.refused(t, 405, "")
		equal(t, line+" closes", got.closes, true)
	}
	c := r.dial().send(text("PRI * HTTP/2.0", "SM", ""))
	if got := c.rest(); !strings.HasPrefix(got, "HTTP/1.1 4") && !strings.HasPrefix(got, "HTTP/1.1 5") {
		t.Errorf("HTTP/2 preface: %q", got)
	}
	u.nothing()
}

// A web page whose name was pointed at our address is not let in.
func TestHost(t *testing.T) {
	r, u := withUpstream(t, well)
	_, port, _ := net.SplitHostPort(r.addr)
	ours := []string{
		"127.0.0.1", r.addr, "127.0.0.1:80", "127.0.0.1.", "127.1.2.3", "localhost", "LOCALHOST:" + port, "localhost.", "localhost.:" + port,
		"[::1]", "[::1]:" + port, "[::ffff:127.0.0.1]:1", "freeagent.internal", "FreeAgent.Internal.:8080", "app.localhost",
	}
	foreign := []string{
		"evil.example", "evil.example:" + port, "localhost.evil.example", "evillocalhost", "127.0.0.1.evil.example", "127.0.0.1.nip.io",
		"freeagent.internal.evil.example", "xfreeagent.internal", "10.0.0.1", "[fe80::1]", "0.0.0.0:" + port, "[::]:" + port, "169.254.169.254",
		"freeagent.com", "2130706433", "0x7f.1", "127.1", "localhost:80:80", "localhost,evil.example",
	}
	for _, host := range ours {
		if got := r.ask(text("GET /v2/company HTTP/1.1", "Host: "+host)); got.status != 200 {
			t.Errorf("Host %s: %d %s", host, got.status, got.body)
		}
	}
	equal(t, "let in", len(u.all()), len(ours))
	for _, host := range foreign {
		for _, request := range []string{
			text("GET /v2/company HTTP/1.1", "Host: "+host),
			text("POST /v2/invoices HTTP/1.1", "Host: "+host, "Content-Length: 0"),
			text("GET http://"+host+"/v2/company HTTP/1.1", "Host: localhost"),
			text("GET /v2/company HTTP/1.0", "Host: "+host),
		} {
			got := r.ask(request)
			if got.status == 400 && strings.Contains(host, ",") || got.status == 400 && strings.Contains(host, ":80:80") {
				continue // what is no host Go's server refuses itself
			}
			if got.refused(t, 421, "allowed_hosts"); t.Failed() {
				t.Fatalf("%q", request)
			}
		}
	}
	equal(t, "upstream", len(u.all()), len(ours))
}

// A program in HTTP/1.0 need not name a host; one in HTTP/1.1 must.
func TestNoHost(t *testing.T) {
	r, u := withUpstream(t, well)
	r.ask(text("GET /v2/company HTTP/1.0")).passed(t, 200, fine)
	r.ask(text("GET /v2/company HTTP/1.1", "Host:")).passed(t, 200, fine)
	equal(t, "HTTP/1.1 without Host", r.ask(text("GET /v2/company HTTP/1.1")).status, 400)
	equal(t, "two of them", r.ask(text("GET /v2/company HTTP/1.1", "Host: localhost", "Host: localhost")).status, 400)
	equal(t, "upstream", len(u.all()), 2)
}

// The names of upstream and FreeAgent are good only where a program takes us for an HTTP proxy.
func TestUpstreamsHost(t *testing.T) {
	r := newRig(t, "http://freeagent.test:1")
	for _, host := range []string{"api.freeagent.com", "api.sandbox.freeagent.com", "API.FreeAgent.com.:80"} {
		r.ask(text("GET http://"+host+"/v2/company HTTP/1.1", "Host: "+host)).refused(t, 503, "never authorised")
		r.ask(text("GET /v2/company HTTP/1.1", "Host: "+host)).refused(t, 421, "")
		r.ask(text("GET http://evil."+host+"/v2/company HTTP/1.1", "Host: "+host)).refused(t, 421, "")
	}
	r.ask(text("GET /v2/company HTTP/1.1", "Host: freeagent.test")).refused(t, 421, "")
	r.ask(text("GET http://freeagent.test/v2/company HTTP/1.1", "Host: freeagent.test")).refused(t, 503, "never authorised")
	r.ask(text("GET http://FREEAGENT.test.:9/v2/company HTTP/1.1", "Host: x")).refused(t, 503, "never authorised")
	r.ask(text("GET http://freeagent.test.evil.example/v2/company HTTP/1.1", "Host: x")).refused(t, 421, "")
	r.ask(text("GET http://freeagent.test@evil.example/v2/company HTTP/1.1", "Host: x")).refused(t, 421, "")
}

// No page of another origin may use us from somebody's browser, not even to read.
func TestCrossSite(t *testing.T) {
	r, u := withUpstream(t, well)
	_, port, _ := net.SplitHostPort(r.addr)
	cases := []struct {
		headers []string
		allowed bool
	}{
		{nil, true},
		{[]string{"Sec-Fetch-Site: none"}, true},
		{[]string{"Sec-Fetch-Site: same-origin"}, true},
		{[]string{"Sec-Fetch-Site: same-origin", "Origin: http://" + r.addr}, true},
		{[]string{"Origin: http://" + r.addr}, true},
		{[]string{"Sec-Fetch-Site: cross-site"}, false},
		{[]string{"Sec-Fetch-Site: same-site"}, false},
		{[]string{"Sec-Fetch-Site: SAME-ORIGIN"}, false},
		{[]string{"Sec-Fetch-Site: something-new"}, false},
		{[]string{"Sec-Fetch-Site: cross-site", "Origin: http://" + r.addr}, false},
		{[]string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"}, true},
		{[]string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"}, false},
		{[]string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: none"}, false},
		{[]string{"Sec-Fetch-Site:", "Sec-Fetch-Site: same-site"}, false},
		{[]string{"Sec-Fetch-Site: same-origin", "Origin: http://evil.example"}, false},
		{[]string{"Sec-Fetch-Site: none", "Origin: null"}, false},
		{[]string{"Origin: https://evil.example"}, false},
		{[]string{"Origin: http://127.0.0.1"}, false},         // another port is another origin
		{[]string{"Origin: http://localhost:" + port}, false}, // and so is another name
		{[]string{"Origin: null"}, false},
		{[]string{"Origin:"}, false},
		{[]string{"Origin: http://" + r.addr, "Origin: http://evil.example"}, false},
		{[]string{"Origin: http://evil.example", "Origin: http://" + r.addr}, false},
		{[]string{"Origin: http://" + r.addr + " http://evil.example"}, false},
		{[]string{"Origin: http://evil.example#http://" + r.addr}, false},
		{[]string{"Origin: http://" + r.addr + "@evil.example"}, false},
		{[]string{"Origin: %"}, false},
	}
	passed := 0
	for _, c := range cases {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE"} {
			got := r.do(method, "/v2/company", "", c.headers...)
			name := fmt.Sprintf("%s %q", method, c.headers)
			if c.allowed {
				passed++
				equal(t, name, got.status, 200)
				continue
			}
			equal(t, name, got.status, 403)
			if got.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: %v", name, got.header)
			}
		}
	}
	equal(t, "upstream", len(u.all()), passed)
}

// The address that a client dialled is ours, whichever it is; another one of the network is not.
func TestAddressConnectedTo(t *testing.T) {
	r := newRig(t, "http://127.0.0.1:1")
	p := proxy.New(r.configured(mustURL("http://127.0.0.1:1"), nil))
	for _, c := range []struct {
		local, host string
		status      int
	}{
		{"10.1.2.3", "10.1.2.3:8080", 503}, {"10.1.2.3", "10.1.2.3", 503}, {"10.1.2.3", "10.1.2.3.", 503}, {"10.1.2.3", "10.1.2.4:8080", 421},
		{"2001:db8::1", "[2001:db8::1]:8080", 503}, {"2001:db8::1", "[2001:DB8::1]", 503}, {"2001:db8::1", "[2001:db8::2]", 421},
		{"fe80::1%eth0", "[fe80::1]:8080", 503}, {"fe80::1%eth0", "[fe80::1%25eth0]:8080", 503},
		{"10.1.2.3", "evil.example", 421}, {"10.1.2.3", "localhost", 503}, {"10.1.2.3", "freeagent.internal:80", 503},
	} {
		request := httptest.NewRequest("GET", "/v2/company", nil)
		request.Host = c.host
		addr := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.local), 8080))
		w := httptest.NewRecorder()
		p.ServeHTTP(w, request.WithContext(context.WithValue(request.Context(), http.LocalAddrContextKey, net.Addr(addr))))
		equal(t, fmt.Sprintf("%s at %s", c.host, c.local), w.Code, c.status) // 503: let in, and never authorised
	}
}
