package simulator_test

import (
	"bytes"
	"compress/gzip"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"freeagent-proxy/internal/simulator"
)

func TestPaging(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	single := s.must(200, "GET", "/v2/contacts", "")
	lines, present := single.Header["Link"]
	equal(t, "empty Link on a single page", present && len(lines) == 1 && lines[0] == "", true)
	equal(t, "total", single.Header.Get("X-Total-Count"), "0")

	if err := s.Seed("", "", "contacts", 60); err != nil {
		t.Fatal(err)
	}
	list := s.url + "/v2/contacts"
	for _, test := range []struct {
		query string
		count int
		link  string
	}{
		{"", 25, "<" + list + "?page=3&per_page=25>; rel='last', <" + list + "?page=2&per_page=25>; rel='next'"},
		{"?page=2&per_page=20&view=all", 20, "<" + list + "?page=1&per_page=20&view=all>; rel='first', <" + list + "?page=1&per_page=20&view=all>; rel='prev', " +
			"<" + list + "?page=3&per_page=20&view=all>; rel='last', <" + list + "?page=3&per_page=20&view=all>; rel='next'"},
		{"?page=3", 10, "<" + list + "?page=1&per_page=25>; rel='first', <" + list + "?page=2&per_page=25>; rel='prev'"},
		{"?page=9&per_page=100", 0, "<" + list + "?page=1&per_page=100>; rel='first', <" + list + "?page=8&per_page=100>; rel='prev'"},
		{"?per_page=1000", 60, ""},
		{"?page=-1&per_page=x", 25, "<" + list + "?page=3&per_page=25>; rel='last', <" + list + "?page=2&per_page=25>; rel='next'"},
	} {
		got := s.must(200, "GET", "/v2/contacts"+test.query, "")
		equal(t, test.query+" records", len(got.list(t)), test.count)
		equal(t, test.query+" Link", got.Header.Get("Link"), test.link)
		equal(t, test.query+" total", got.Header.Get("X-Total-Count"), "60")
	}
	sorted := s.must(200, "GET", "/v2/contacts?sort=-organisation_name", "").list(t)
	equal(t, "sorted", sorted[0]["organisation_name"], any("Contact 9"))
	equal(t, "updated since tomorrow", len(s.must(200, "GET", "/v2/contacts?updated_since=2999-01-01T00:00:00.000Z", "").list(t)), 0)

	cfg := s.Config()
	cfg.LinkQuotes, cfg.PerPageOverLimit = simulator.LinkDouble, simulator.PerPageRefuse
	if err := s.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	equal(t, "documented form", s.must(200, "GET", "/v2/contacts", "").Header.Get("Link"),
		`<`+list+`?page=2&per_page=25>; rel="next", <`+list+`?page=3&per_page=25>; rel="last"`)
	s.must(400, "GET", "/v2/contacts?per_page=101", "")
}

func TestHeaders(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	contact := s.make("contacts", `{"first_name":"Ann"}`)
	got := s.must(200, "GET", contact, "")
	for name, want := range map[string]string{
		"Server": `^nginx$`, "Content-Type": `^application/json; charset=utf-8$`, "Cache-Control": `^no-store$`, "Pragma": `^no-cache$`,
		"Etag": `^W/"[0-9a-f]{32}"$`, "Last-Modified": ` GMT$`, "X-Request-Id": `^1-[0-9a-f]{8}-[0-9a-f]{24}$`, "X-Runtime": `^[0-9]+\.[0-9]{6}$`,
		"X-Rev": `^[0-9a-f]{40}$`, "X-Host": `^ip-10-`, "Vary": `^Origin$`, "Strict-Transport-Security": `^max-age=31536000$`,
		"X-Frame-Options": `.`, "X-Content-Type-Options": `.`, "X-Xss-Protection": `.`, "Referrer-Policy": `.`, "Feature-Policy": `.`,
		"Content-Security-Policy": regexp.QuoteMeta(s.url) + `$`,
	} {
		if !regexp.MustCompile(want).MatchString(got.Header.Get(name)) {
			t.Errorf("%s: got %q, want %s", name, got.Header.Get(name), want)
		}
	}
	if n := len(got.Header.Get("Content-Security-Policy")); n < 2500 || n > 4000 {
		t.Errorf("policy has %d bytes", n)
	}
	equal(t, "chunked", strings.Join(got.TransferEncoding, ""), "chunked")
	equal(t, "ETag of a list", s.must(200, "GET", "/v2/contacts", "").Header.Get("Etag") != "", true)
	equal(t, "Last-Modified of a list", s.must(200, "GET", "/v2/contacts", "").Header.Get("Last-Modified"), "")
	equal(t, "ETag of DELETE", s.must(200, "DELETE", contact, "").Header.Get("Etag"), "")
	refused := s.must(401, "GET", "/v2/users/me", "", "Authorization: Bearer x")
	equal(t, "challenge", refused.Header.Get("Www-Authenticate"), "")
}

func TestGzip(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	plain := s.must(200, "GET", "/v2/company", "").body
	zipped := s.must(200, "GET", "/v2/company", "", "Accept-Encoding: gzip, deflate")
	equal(t, "encoding", zipped.Header.Get("Content-Encoding"), "gzip")
	r, err := gzip.NewReader(strings.NewReader(zipped.body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	equal(t, fmt.Sprint("unzipped ", err), string(text), plain)
	made := s.must(201, "POST", "/v2/contacts", `{"first_name":"Ann"}`, "Accept-Encoding: gzip")
	equal(t, "a 201", made.Header.Get("Content-Encoding"), "")
	path := strings.TrimPrefix(made.Header.Get("Location"), s.url)
	equal(t, "an empty 200", s.must(200, "DELETE", path, "", "Accept-Encoding: gzip").Header.Get("Content-Encoding"), "gzip")

	cfg := s.Config()
	cfg.NoGzip, cfg.NoChunked = true, true
	if err := s.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	off := s.must(200, "GET", "/v2/company", "", "Accept-Encoding: gzip")
	equal(t, "switched off", off.Header.Get("Content-Encoding"), "")
	equal(t, "not chunked", off.ContentLength, int64(len(plain)))
}

func TestXML(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	const asXML = "Accept: application/xml"
	made := s.must(201, "POST", "/v2/contacts", `<?xml version="1.0"?>
		<contact><first-name>Ann &amp; Bo</first-name><contact-name-on-invoices type="boolean">false</contact-name-on-invoices>
		<empty nil="true"/><number type="integer">7</number></contact>`, asXML, "Content-Type: application/xml")
	equal(t, "type", made.Header.Get("Content-Type"), "application/xml; charset=utf-8")
	path := strings.TrimPrefix(made.Header.Get("Location"), s.url)
	record := s.must(200, "GET", path, "").record(t)
	equal(t, "in JSON", fmt.Sprint(record["first_name"], record["contact_name_on_invoices"], record["empty"], record["number"]), "Ann & Bofalse <nil> 7")

	list := s.must(200, "GET", "/v2/contacts", "", asXML)
	var parsed struct {
		XMLName  xml.Name `xml:"freeagent"`
		Contacts struct {
			Type    string `xml:"type,attr"`
			Contact []struct {
				URL     string `xml:"url"`
				First   string `xml:"first-name"`
				Balance struct {
					Type string `xml:"type,attr"`
					Text string `xml:",chardata"`
				} `xml:"account-balance"`
				Created string `xml:"created-at"`
			} `xml:"contact"`
		} `xml:"contacts"`
	}
	if err := xml.Unmarshal([]byte(list.body), &parsed); err != nil || len(parsed.Contacts.Contact) != 1 {
		t.Fatalf("%v: %s", err, list.body)
	}
	c := parsed.Contacts.Contact[0]
	equal(t, "array", parsed.Contacts.Type, "array")
	equal(t, "contact", fmt.Sprint(c.URL, c.First, c.Balance.Type, c.Balance.Text), s.url+path+"Ann & Bodecimal0.0")
	equal(t, "no milliseconds", regexp.MustCompile(`:\d\dZ$`).MatchString(c.Created), true)
	equal(t, "limits stay plain text, JSON wins when named first", s.must(200, "GET", path, "", "Accept: application/json, application/xml").Header.Get("Content-Type"), "application/json; charset=utf-8")
	items := `<invoice><contact>` + path + `</contact><invoice-items type="array"><invoice-item><price>2.0</price><quantity>3</quantity></invoice-item></invoice-items></invoice>`
	equal(t, "nested array", s.must(201, "POST", "/v2/invoices", items).record(t)["total_value"], any("6.0"))
	s.must(400, "POST", "/v2/contacts", "<a/><b/>")

	cfg := s.Config()
	cfg.AlwaysXML = true
	if err := s.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	equal(t, "always", strings.HasPrefix(s.must(200, "GET", path, "", "Accept: application/json").body, "<?xml"), true)
}

func TestAnswerSwitches(t *testing.T) {
	s := start(t, simulator.Config{
		Enforcement: simulator.EnforceOff, ConditionalGet: true, EmptyPUT: true, AllowPatch: true, RequireUserAgent: true,
		WWWAuthenticate: "Bearer", NoTokenMessage: "Access denied", AlwaysUnauthorized: []string{"/v2/bills"}, MaxBody: 100,
	})
	contact := s.make("contacts", `{"first_name":"Ann"}`)
	etag := s.must(200, "GET", contact, "").Header.Get("Etag")
	equal(t, "304", s.must(304, "GET", contact, "", "If-None-Match: "+etag).body, "")
	equal(t, "empty PUT", s.must(200, "PATCH", contact, `{"contact":{"last_name":"Lee"}}`).body, "")
	s.must(200, "GET", contact, "", "If-None-Match: "+etag)
	equal(t, "challenge", s.must(401, "GET", contact, "", "Authorization: Bearer x").Header.Get("Www-Authenticate"), "Bearer")
	equal(t, "no token", s.must(401, "GET", contact, "", "Authorization:").body, `{"errors":{"error":{"message":"Access denied"}}}`)
	s.must(401, "GET", "/v2/contacts?access_token="+s.token, "", "Authorization: Basic "+s.token)
	s.must(401, "GET", "/v2//bills", "")
	s.must(413, "POST", "/v2/contacts", `{"first_name":"`+strings.Repeat("n", 100)+`"}`)
	stats := s.Stats()
	equal(t, "401s", stats.Unauthorized, 4)
	equal(t, "none, other, unknown", fmt.Sprint(stats.Authorization["none"], stats.Authorization["other"], stats.Authorization["unknown"]), "1 1 1")

	r, err := http.NewRequest("GET", s.url+contact, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Authorization": {"Bearer " + s.token}, "User-Agent": {""}}
	resp, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	equal(t, "no User-Agent", resp.StatusCode, 400)
}

func TestEchoAndStream(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	echo := s.must(200, "DELETE", "//v2/_sim_echo?a=1;b=%zz&&c", "hello", "X-Odd: yes").record(t)
	equal(t, "method", echo["method"], any("DELETE"))
	equal(t, "target", echo["target"], any("//v2/_sim_echo?a=1;b=%zz&&c"))
	equal(t, "hash", echo["body_sha256"], any("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"))
	header := echo["header"].(map[string]any)
	equal(t, "token", fmt.Sprint(header["Authorization"], header["X-Odd"], header["Host"] != nil), "[Bearer ***] [yes] true")

	const size = 3<<20 + 7
	stream := s.must(200, "GET", fmt.Sprint("/v2/_sim_stream?bytes=", size), "")
	equal(t, "length", len(stream.body), size)
	equal(t, "filler", bytes.Count([]byte(stream.body), []byte("0123456789abcdef")), size/16)
	equal(t, "HEAD", s.must(200, "HEAD", "/v2/_sim_stream?bytes=10", "").ContentLength, 10)
	s.must(400, "GET", "/v2/_sim_stream", "")
	s.must(401, "GET", "/v2/_sim_stream?bytes=1", "", "Authorization:")
	equal(t, "HEAD", s.must(200, "HEAD", "/v2/company", "").body, "")
}
