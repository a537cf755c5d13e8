package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"freeagent-proxy/proxy"
)

// swap writes an upstream's origin for UP, the proxy's for OURS, and the former with escaped slashes for EUP, the latter for EOURS.
func swap(text, up, ours string) string {
	escaped := func(s string) string { return strings.ReplaceAll(s, "/", `\/`) }
	return strings.NewReplacer("EUP", escaped(up), "EOURS", escaped(ours), "UP", up, "OURS", ours).Replace(text)
}

// What begins with FreeAgent's origin leads back through the proxy; all else stays as it is, byte for byte.
func TestAnswersLeadBackToUs(t *testing.T) {
	const jsonType, xmlType = "Content-Type: application/json; charset=utf-8", "Content-Type: application/xml"
	for name, c := range map[string]struct{ kind, body, want string }{
		"values":        {jsonType, `{"url":"UP/v2/invoices/1", "items" : [ "UP/v2/x", {"a":"UP"}, "UP?b=1#c" ]}`, `{"url":"OURS/v2/invoices/1", "items" : [ "OURS/v2/x", {"a":"OURS"}, "OURS?b=1#c" ]}`},
		"escaped":       {jsonType, `{"url":"EUP\/v2\/invoices\/1","b":"EUP"}`, `{"url":"EOURS\/v2\/invoices\/1","b":"EOURS"}`},
		"other hosts":   {jsonType, `["UP.evil/v2","UPx","UP@evil/","https://s3.example/?u=UP/v2/x","UP:80/","x UP/v2/1","UP is a text"]`, ""},
		"quoted":        {jsonType, `{"comments":"see \"UP/v2/x\" and \\\"UP/v2/y"}`, ""},
		"accounts":      {jsonType, `{"url":"UP/accounts/acme/v2/x","b":"EUP\/accounts\/x"}`, ""},
		"broken":        {jsonType, `{"url":"UP`, ""},
		"error":         {"Content-Type: application/problem+json", `"UP/v2/x"`, `"OURS/v2/x"`},
		"XML":           {xmlType, "<a>\n <url>UP/v2/x</url> <b>\n  UP/v2/y\n </b></a>", "<a>\n <url>OURS/v2/x</url> <b>\n  OURS/v2/y\n </b></a>"},
		"XML, CDATA":    {xmlType, `<a><![CDATA[UP/v2/x]]></a><b><![CDATA[<i>UP/v2/x]]></b>`, `<a><![CDATA[OURS/v2/x]]></a><b><![CDATA[<i>UP/v2/x]]></b>`},
		"XML, text":     {xmlType, `<a href="UP/v2/x" b='>UP/v2'>1 > UP/v2/x</a><!-- <b>UP/v2/x --><c/>UP/v2<d>UP.evil/v2</d></e>UP/v2`, ""},
		"HTML":          {"Content-Type: text/html", `<a>UP/v2/x</a>`, ""},
		"text":          {"Content-Type: text/plain", `"UP/v2/x"`, ""},
		"no JSON":       {"Content-Type: application/pdf", `"UP/v2/x"`, ""},
		"spread sheet":  {"Content-Type: application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", `<a>UP/v2/x</a>`, ""},
		"unlike either": {"Content-Type: application/octet-stream", `"UP/v2/x"`, ""},
	} {
		var up string
		r, u := withUpstream(t, func(q *received) bool {
			q.read()
			return q.write(reply(200, swap(c.body, up, ""), c.kind, `ETag: "strong"`, "Content-MD5: x", "Content-Security-Policy: connect-src "+up))
		})
		up = u.url
		want := swap(c.want, u.url, "http://"+r.addr)
		changed := want != ""
		if !changed {
			want = swap(c.body, u.url, "")
		}
		got := r.get("/v2/company", "If-None-Match: \"strong\"")
		if got.passed(t, 200, want); t.Failed() {
			t.Fatal(name)
		}
		equal(t, name+": Content-Length", got.header.Get("Content-Length"), fmt.Sprint(len(want)))
		equal(t, name+": Content-MD5", got.header.Get("Content-MD5") == "", changed)
		equal(t, name+": ETag", got.header.Get("ETag"), `"strong"`)
		equal(t, name+": policy", got.header.Get("Content-Security-Policy"), "connect-src "+u.url)
		equal(t, name+": If-None-Match", u.only().has(`If-None-Match: "strong"`), true)
	}
}

// In headers the origin alone changes. An account that the path chose is in what is rewritten, too, so that who follows it
// stays with that account.
func TestHeadersLeadBackToUs(t *testing.T) {
	for _, c := range []struct{ name, value, want, prefixed string }{
		{"Location", "UP/v2/invoices/1", "OURS/v2/invoices/1", "OURS/accounts/acme/v2/invoices/1"},
		{"Location", "/v2/explanations/1", "/v2/explanations/1", "/accounts/acme/v2/explanations/1"},
		{"Location", "//evil.example/v2", "//evil.example/v2", "//evil.example/v2"},
		{"Location", "UP.evil/v2/x", "UP.evil/v2/x", "UP.evil/v2/x"},
		{"Location", "https://login.example/?u=UP/v2", "https://login.example/?u=UP/v2", "https://login.example/?u=UP/v2"},
		{"Content-Location", "UP/v2/x", "OURS/v2/x", "OURS/accounts/acme/v2/x"},
		{"Link", "", "", ""},
		{"Link", "<UP/v2/x?page=2>; rel='next', <UP/v2/x?page=9&a=UP>; rel='last'", "<OURS/v2/x?page=2>; rel='next', <OURS/v2/x?page=9&a=UP>; rel='last'", "<OURS/accounts/acme/v2/x?page=2>; rel='next', <OURS/accounts/acme/v2/x?page=9&a=UP>; rel='last'"},
		{"Link", `<UP/v2/x?page=2>;rel="next",</v2/y>; rel=first`, `<OURS/v2/x?page=2>;rel="next",</v2/y>; rel=first`, `<OURS/accounts/acme/v2/x?page=2>;rel="next",</accounts/acme/v2/y>; rel=first`},
		{"Link", "<UP.evil/>; rel=next; title=\"UP/v2\", <UP>, <", "<UP.evil/>; rel=next; title=\"UP/v2\", <OURS>, <", "<UP.evil/>; rel=next; title=\"UP/v2\", <OURS/accounts/acme>, <"},
	} {
		var up string
		r, u := withUpstream(t, func(q *received) bool {
			return q.write(reply(201, `{"url":"`+up+`/v2/x"}`, "Content-Type: application/json", c.name+": "+swap(c.value, up, "")))
		})
		up = u.url
		ours := "http://" + r.addr
		got := r.get("/v2/x")
		got.passed(t, 201, `{"url":"`+ours+`/v2/x"}`)
		equal(t, c.name, got.header.Get(c.name), swap(c.want, u.url, ours))
		equal(t, "there", len(got.header[c.name]), 1)
		got = r.get("/accounts/acme/v2/x")
		got.passed(t, 201, `{"url":"`+ours+`/accounts/acme/v2/x"}`)
		equal(t, c.name, got.header.Get(c.name), swap(c.prefixed, u.url, ours))
	}
}

// The origin that is written is the one that the client uses, or the public one.
func TestClientsOrigin(t *testing.T) {
	public := func(c *proxy.Config) { c.PublicURL = mustURL("https://freeagent.internal") }
	none := func(*proxy.Config) {}
	for name, c := range map[string]struct {
		config  func(*proxy.Config)
		request string // up to the Host's value
		want    string
	}{
		"Host":                     {none, "GET /v2/x HTTP/1.1\r\nHost: localhost:123", "http://localhost:123"},
		"another name":             {none, "GET /v2/x HTTP/1.1\r\nHost: FreeAgent.internal", "http://FreeAgent.internal"},
		"HTTP/1.0":                 {none, "GET /v2/x HTTP/1.0\r\nHost: localhost", "http://localhost"},
		"HTTP/1.0 without Host":    {none, "GET /v2/x HTTP/1.0", "http://OURS"},
		"public":                   {public, "GET /v2/x HTTP/1.1\r\nHost: localhost:123", "https://freeagent.internal"},
		"HTTP proxy":               {public, "GET http://api.freeagent.com/v2/x HTTP/1.1\r\nHost: x", "http://api.freeagent.com"},
		"HTTP proxy, https":        {none, "GET https://api.sandbox.freeagent.com/v2/x HTTP/1.1\r\nHost: x", "http://api.sandbox.freeagent.com"},
		"HTTP proxy, the upstream": {none, "GET http://UP/v2/x HTTP/1.1\r\nHost: x", "http://UP"},
		"odd name":                 {none, "GET /v2/x HTTP/1.1\r\nHost: a&b.localhost", "http://UP"},
		"long name":                {none, "GET /v2/x HTTP/1.1\r\nHost: " + strings.Repeat("a.", 130) + "localhost", "http://UP"},
		"passed": {func(c *proxy.Config) {
			clients(proxy.Client{Name: "all", Networks: prefixes("127.0.0.0/8"), Passthrough: true})(c)
		}, "GET /v2/x HTTP/1.1\r\nHost: localhost:123", "http://UP"},
	} {
		var up string
		r, u := withUpstream(t, func(q *received) bool {
			return q.write(reply(200, `["`+up+`/v2/x"]`, "Content-Type: application/json", "Location: "+up+"/v2/x"))
		}, c.config)
		up = u.url
		host := strings.TrimPrefix(u.url, "http://")
		got := r.ask(text(swap(c.request, host, r.addr), "Connection: close"))
		want := swap(c.want, host, r.addr)
		equal(t, name, got.body, `["`+want+`/v2/x"]`)
		equal(t, name, got.header.Get("Location"), want+"/v2/x")
		equal(t, name, got.header.Get("Content-Length"), fmt.Sprint(len(got.body)))
	}
}

// What a program sends back names FreeAgent again, in whatever form it comes.
func TestRequestsNameFreeAgent(t *testing.T) {
	const form, jsonType, xmlType = "application/x-www-form-urlencoded", "application/json", "application/xml"
	for name, c := range map[string]struct{ kind, body, want string }{
		"JSON":              {jsonType, `{"invoice":{"contact":"OURS/v2/contacts/1","b":"UP/v2/x","c":7,"d":"/v2/y","e":"12","f":"see OURS/v2"}}`, `{"invoice":{"contact":"UP/v2/contacts/1","b":"UP/v2/x","c":7,"d":"/v2/y","e":"12","f":"see OURS/v2"}}`},
		"PHP":               {jsonType, `{"contact":"EOURS\/v2\/contacts\/1","b":"EUP\/v2"}`, `{"contact":"EUP\/v2\/contacts\/1","b":"EUP\/v2"}`},
		"with the account":  {jsonType, `["OURS/accounts/acme/v2/x","EOURS\/accounts\/acme\/v2","OURS/accounts/other/v2/x","OURS/accounts/acme2/v2"]`, `["UP/v2/x","EUP\/v2","OURS/accounts/other/v2/x","OURS/accounts/acme2/v2"]`},
		"any case":          {jsonType, `["HTTP://OURHOST/v2/x","Https://OURHOST/v2/x"]`, `["UP/v2/x","UP/v2/x"]`},
		"the public name":   {jsonType, `["http://freeagent.internal/v2/x","https://freeagent.internal/v2","http://freeagent.internal.evil/v2"]`, `["UP/v2/x","UP/v2","http://freeagent.internal.evil/v2"]`},
		"broken JSON":       {jsonType, `{"contact":"OURS`, `{"contact":"OURS`},
		"JSON as a form":    {form, ` {"contact":"OURS/v2/contacts/1"}`, ` {"contact":"UP/v2/contacts/1"}`},
		"JSON without type": {"", "\xef\xbb\xbf\n[\"OURS/v2/contacts/1\"]", "\xef\xbb\xbf\n[\"UP/v2/contacts/1\"]"},
		"XML":               {xmlType, `<invoice><contact>OURS/v2/contacts/1</contact></invoice>`, `<invoice><contact>UP/v2/contacts/1</contact></invoice>`},
		"form":              {form, "contact=OURS/v2/1&a=QOURS%2Fv2%2F1&b=LOURS%2fv2&c==OURS&d=QUP%2Fv2&e=http%3A//OURHOST/v2&f=%zz%&g", "contact=UP/v2/1&a=QUP%2Fv2%2F1&b=LUP%2fv2&c==OURS&d=QUP%2Fv2&e=http%3A//UPHOST/v2&f=%zz%&g"},
		"form as JSON":      {jsonType, "contact=QOURS%2Fv2%2F1", "contact=QUP%2Fv2%2F1"},
		"multipart":         {"multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=x\r\n\r\nOURS/v2/x\r\n--b--\r\n", "--b\r\nContent-Disposition: form-data; name=x\r\n\r\nOURS/v2/x\r\n--b--\r\n"},
		"a statement":       {"text/csv", `"OURS/v2/x"`, `"OURS/v2/x"`},
		"a text":            {"text/plain", `x "OURS/v2/x"`, `x "OURS/v2/x"`},
		"long":              {jsonType, `["` + strings.Repeat("x", 3*mib) + `",` + strings.Repeat(`"OURS/v2/x",`, 40_000) + `""]`, `["` + strings.Repeat("x", 3*mib) + `",` + strings.Repeat(`"UP/v2/x",`, 40_000) + `""]`},
	} {
		r, u := withUpstream(t, well, func(c *proxy.Config) { c.PublicURL = mustURL("http://freeagent.internal") })
		encode := func(text string) string {
			up, ours := strings.TrimPrefix(u.url, "http://"), r.addr
			quoted := strings.NewReplacer(":", "%3A", "/", "%2F")
			lower := strings.NewReplacer(":", "%3a", "/", "%2f")
			text = strings.NewReplacer("QOURS", quoted.Replace("http://"+ours), "LOURS", lower.Replace("http://"+ours),
				"QUP", quoted.Replace(u.url), "LUP", lower.Replace(u.url), "//OURHOST/v2&", "//"+strings.Replace(ours, ":", "%3A", 1)+"/v2&", "OURHOST", ours, "UPHOST", strings.Replace(up, ":", "%3A", 1)).Replace(text)
			return swap(text, u.url, "http://"+ours)
		}
		body, want := encode(c.body), encode(c.want)
		for i, request := range []string{
			r.request("PUT", "/v2/invoices/1", body, "Content-Type: "+c.kind, "Content-MD5: x"),
			text("POST /v2/invoices HTTP/1.1", "Host: "+r.addr, "Content-Type: "+c.kind, "Transfer-Encoding: chunked") + chunked(body[:3], body[3:len(body)/2], body[len(body)/2:]),
		} {
			r.ask(request).passed(t, 200, fine)
			q := u.all()[i]
			if q.sha256 != hashOf(want) || q.length != int64(len(want)) {
				t.Errorf("%s: %d bytes arrived, want %d: %.300q, want %.300q", name, q.length, len(want), q.body, want)
			}
			equal(t, name+": Content-Length", q.has(fmt.Sprintf("Content-Length: %d", len(want))), true)
			equal(t, name+": Content-MD5", q.has("Content-Md5: x"), i == 0 && body == want)
		}
	}
}

// Queries as well; the path stays what it is.
func TestQueriesNameFreeAgent(t *testing.T) {
	r, u := withUpstream(t, well)
	ours, up := r.addr, strings.TrimPrefix(u.url, "http://")
	escape := func(s string) string { return strings.Replace(s, ":", "%3A", 1) }
	for i, c := range []struct{ target, want string }{
		{"/v2/x?contact=http://" + ours + "/v2/contacts/1&page=2", "/v2/x?contact=http://" + up + "/v2/contacts/1&page=2"},
		{"/v2/x?contact=http%3A%2F%2F" + escape(ours) + "%2Fv2%2F1", "/v2/x?contact=http%3A%2F%2F" + escape(up) + "%2Fv2%2F1"},
		{"/v2/x?a=%zz;&&b=http%3a%2f%2f" + strings.ToLower(escape(ours)) + "%2faccounts%2facme%2fv2#c", "/v2/x?a=%zz;&&b=http%3a%2f%2f" + strings.ToLower(escape(up)) + "%2fv2#c"},
		{"/v2/x?q=see+http://" + ours + "/v2&http://" + ours + "/v2=1", "/v2/x?q=see+http://" + ours + "/v2&http://" + ours + "/v2=1"},
		{"/v2/x?a=http://" + up + "/v2/1", "/v2/x?a=http://" + up + "/v2/1"},
		{"/v2/http://" + ours + "/v2", "/v2/http:/" + ours + "/v2"},
		{"/v2/x?contact=1&b=/v2/contacts/1&c", "/v2/x?contact=1&b=/v2/contacts/1&c"},
	} {
		r.get(c.target).passed(t, 200, fine)
		equal(t, c.target, u.all()[i].target, c.want)
	}
}
