package proxy_test

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/proxy"
)

// A refusal has FreeAgent's error shape in the client's format.
func TestRefusalsShape(t *testing.T) {
	r, _ := withUpstream(t, well)
	for _, c := range []struct {
		headers []string
		xml     bool
	}{
		{nil, false},
		{[]string{"Accept: */*"}, false},
		{[]string{"Accept: application/json"}, false},
		{[]string{"Accept: application/xml"}, true},
		{[]string{"Accept: text/xml"}, true},
		{[]string{"Accept: APPLICATION/XML; q=0.9"}, true},
		{[]string{"Accept: application/json, application/xml"}, false},
		{[]string{"Accept: application/xml, application/json"}, true},
		{[]string{"Accept: application/xml", "Accept: application/json"}, true},
		{[]string{"Accept: application/xml;q=0.1, application/json"}, false},
		{[]string{"Accept: application/json;q=0.1, application/xml"}, true},
		{[]string{"Accept: application/json; Q=0.5, text/xml ; charset=utf-8 ; q = 0.6"}, true},
		{[]string{"Accept: application/json;q=0.5, application/xml;q=0.5"}, false},
		{[]string{"Accept: application/xml;q=0.2, application/json;q=0.3, text/xml;q=0.4"}, true},
		{[]string{"Accept: application/xml;q=0, */*"}, false},
		{[]string{"Accept: application/xml;q=x, application/json"}, true},
		{[]string{"Accept: application/json;profile=xml"}, false},
		{[]string{"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, false},
		{[]string{"Content-Type: application/xml"}, true},
		{[]string{"Content-Type: application/xml", "Accept: application/json"}, false},
		{[]string{"Content-Type: application/json", "Accept: */*"}, false},
	} {
		got := r.get("/v1/company", c.headers...)
		got.refused(t, 404, "")
		equal(t, fmt.Sprint(c.headers, " Content-Length"), got.header.Get("Content-Length"), fmt.Sprint(len(got.body)))
		equal(t, "Cache-Control", got.header.Get("Cache-Control"), "no-store")
		var message string
		if c.xml {
			var body struct {
				XMLName xml.Name `xml:"freeagent"`
				Message string   `xml:"errors>error>message"`
			}
			if err := xml.Unmarshal([]byte(got.body), &body); err != nil {
				t.Errorf("%q: %v in %s", c.headers, err, got.body)
			}
			message = body.Message
		} else {
			var body struct {
				Errors struct{ Error struct{ Message string } }
			}
			if err := json.Unmarshal([]byte(got.body), &body); err != nil {
				t.Errorf("%q: %v in %s", c.headers, err, got.body)
			}
			message = body.Errors.Error.Message
		}
		equal(t, fmt.Sprint(c.headers, " Content-Type"), got.header.Get("Content-Type"),
			map[bool]string{true: "application/xml; charset=utf-8", false: "application/json; charset=utf-8"}[c.xml])
		if !strings.Contains(message, "below /v2/") || !strings.Contains(got.header.Get("Proxy-Status"), message) {
			t.Errorf("%q: message %q, Proxy-Status %q", c.headers, message, got.header.Get("Proxy-Status"))
		}
	}
	got := r.do("HEAD", "/v1/company", "")
	equal(t, "HEAD", got.status, 404)
	equal(t, "HEAD's body", got.body, "")
}

// proxyStatus is the one form of a RFC 9209 header that we write, by RFC 8941's grammar: an sf-token with
// a token and a string, which holds printable ASCII with \ and " escaped.
var proxyStatus = regexp.MustCompile(`^freeagent-proxy; error=([a-z_]+); details="(?:[ !#-\[\]-~]|\\["\\])*"$`)

// registered are RFC 9209's error types, section 2.3.
var registered = []string{
	"dns_timeout", "dns_error", "destination_not_found", "destination_unavailable", "destination_ip_prohibited", "destination_ip_unroutable",
	"connection_refused", "connection_terminated", "connection_timeout", "connection_read_timeout", "connection_write_timeout",
	"connection_limit_reached", "tls_protocol_error", "tls_certificate_error", "tls_alert_received", "http_request_error", "http_request_denied",
	"http_response_incomplete", "http_response_header_section_size", "http_response_timeout", "http_upgrade_failed", "http_protocol_error",
	"proxy_internal_response", "proxy_internal_error", "proxy_configuration_error", "proxy_loop_detected",
}

func TestProxyStatus(t *testing.T) {
	r, _ := withUpstream(t, func(q *received) bool { q.read(); return false }, func(c *proxy.Config) {
		c.Accounts = append(c.Accounts, proxy.Account{Name: `odd"\name`, API: ample})
	})
	for _, got := range []*answer{
		r.get("/v1"), r.get("/v2/company"), r.get("/v2/company", "X-FreeAgent-Account: acme"), r.get("/v2/company", "X-FreeAgent-Account: x"),
		r.get("/v2/company", `X-FreeAgent-Account: odd"\name`),
		r.get("/v2/company", "Origin: null"), r.do("BREW", "/v2/company", ""), r.ask(text("GET /v2/company HTTP/1.1", "Host: x")),
		r.do("POST", "/v2/invoices", "", "X-FreeAgent-Account: acme"), r.do("POST", "/v2/invoices", "", "Content-Length: 99999999999"),
	} {
		lines := got.header["Proxy-Status"]
		if len(lines) != 1 {
			t.Errorf("%d: Proxy-Status %q", got.status, lines)
			continue
		}
		match := proxyStatus.FindStringSubmatch(lines[0])
		if match == nil || !slices.Contains(registered, match[1]) {
			t.Errorf("%d: Proxy-Status %s", got.status, lines[0])
		}
	}
}

func TestRequestID(t *testing.T) {
	r, _ := withSimulator(t, simulator.Config{})
	for i, c := range []struct {
		lines []string
		taken bool
	}{
		{[]string{"abc-123"}, true},
		{[]string{"6ba7b810-9dad-11d1-80b4-00c04fd430c8"}, true},
		{[]string{"Root=1-67891233:abc/def+x_.="}, true},
		{[]string{strings.Repeat("x", 128)}, true},
		{[]string{strings.Repeat("x", 129)}, false},
		{[]string{""}, false},
		{[]string{"with space"}, false},
		{[]string{`","status":200,"x":"`}, false},
		{[]string{"\xff"}, false},
		{[]string{"<script>"}, false},
		{[]string{"one", "two"}, false},
		{nil, false},
	} {
		var headers []string
		for _, line := range c.lines {
			headers = append(headers, "X-Request-Id: "+line)
		}
		got := r.get("/v2/company", headers...)
		ids := got.header["X-Request-Id"]
		switch {
		case len(ids) != 1:
			t.Errorf("%q: %q came back", c.lines, ids)
		case c.taken:
			equal(t, "taken", ids[0], c.lines[0])
		case !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(ids[0]):
			t.Errorf("%q: %q came back", c.lines, ids)
		}
		equal(t, "logged", r.logged(i + 1)["request_id"].(string), strings.Join(ids, ""))
		if got.header.Get("X-FreeAgent-Request-Id") == "" {
			t.Error("no X-FreeAgent-Request-Id")
		}
	}
}

// The access log's line is what is documented, without queries, headers and bodies.
func TestAccessLog(t *testing.T) {
	r, _ := withUpstream(t, well)
	const mark = "not-for-the-log"
	r.do("POST", "/accounts/acme/v2/invoices?secret="+mark, mark, "X-Other: "+mark, "Authorization: Bearer "+mark, "User-Agent: "+mark)
	r.get("/v1/caf%C3%A9%0a?"+mark, "Cookie: "+mark)
	r.ask(text("GET http://user:"+mark+"@localhost/v2/company?"+mark+" HTTP/1.1", "Host: "+mark))
	r.get("/v2/company", "X-FreeAgent-Account: "+mark)
	r.get("//v1/company%3fsecret=" + mark)
	r.get("/v2/invoices%3Fsecret=" + mark + "?x")
	r.get("/v2/company#" + mark)
	r.logged(7)
	for i, want := range []logLine{
		{"client": "anonymous", "account": account, "method": "POST", "path": "/accounts/acme/v2/invoices", "status": 200.0, "attempts": 1.0, "answered_by": "upstream", "reason": ""},
		{"client": "anonymous", "account": "", "method": "GET", "path": "/v1/caf%C3%A9%0a", "status": 404.0, "attempts": 0.0, "answered_by": "proxy", "reason": "http_request_denied: path is not FreeAgent's API"},
		{"client": "anonymous", "account": account, "method": "GET", "path": "/v2/company", "status": 200.0, "attempts": 1.0, "answered_by": "upstream", "reason": ""},
		{"client": "anonymous", "account": "", "method": "GET", "path": "/v2/company", "status": 404.0, "attempts": 0.0, "answered_by": "proxy", "reason": "http_request_denied: unknown account"},
		{"path": "//v1/company", "status": 404.0},
		{"path": "/v2/invoices", "status": 200.0},
		{"path": "/v2/company", "status": 200.0},
	} {
		got := r.log.lines("request")[i]
		names := slices.Sorted(maps.Keys(got))
		documented := []string{"account", "answered_by", "attempts", "client", "duration_ms", "level", "method", "msg", "path", "reason", "request_id", "status", "ts", "waited_ms"}
		if !slices.Equal(names, documented) {
			t.Errorf("fields %v, want %v", names, documented)
		}
		for name, value := range want {
			equal(t, name, got[name], value)
		}
	}
	if log := r.log.String(); strings.Contains(log, mark) {
		t.Errorf("%s", log)
	}
}

// A bug of ours (here a Proxy without Tokens) is a 500 that names the line in the log.
func TestPanic(t *testing.T) {
	r, u := withUpstream(t, well)
	p := proxy.New(proxy.Config{Log: r.log.logger(), Served: r.log.served, Accounts: []proxy.Account{{Name: account}}, Upstream: mustURL(u.url)})
	w := httptest.NewRecorder()
	request := httptest.NewRequest("GET", "/v2/company", nil)
	request.Host = "localhost"
	p.ServeHTTP(w, request)
	equal(t, "status", w.Code, 500)
	if !strings.Contains(w.Body.String(), "its log has the cause under this request id") {
		t.Errorf("%s", w.Body)
	}
	line := r.logged(1)
	equal(t, "logged", line["status"], 500.0)
	equal(t, "request id", line["request_id"].(string), w.Header().Get("X-Request-Id"))
	errors := r.log.lines("request handler panicked; please report this with the stack")
	if len(errors) != 1 || errors[0]["request_id"] != line["request_id"] || errors[0]["level"] != "error" {
		t.Errorf("%v", errors)
	}
	u.nothing()
}

// brokenWriter panics after a while, as a bug in the middle of an answer would.
type brokenWriter struct{ *httptest.ResponseRecorder }

func (brokenWriter) Write([]byte) (int, error) { panic("a bug") }

// A bug in the middle of an answer must not make it look whole.
func TestPanicInAnAnswer(t *testing.T) {
	u := newUpstream(t, well)
	r := newRig(t, u.url)
	r.grant(accessToken, refreshToken, 1<<40)
	p := proxy.New(r.configured(mustURL(u.url), nil))
	request := httptest.NewRequest("GET", "/v2/company", nil)
	request.Host = "localhost"
	defer func() {
		equal(t, "panic", recover(), any(http.ErrAbortHandler))
		equal(t, "logged", r.logged(1)["reason"], any("proxy_internal_error: internal error: a bug"))
	}()
	p.ServeHTTP(brokenWriter{httptest.NewRecorder()}, request)
}
