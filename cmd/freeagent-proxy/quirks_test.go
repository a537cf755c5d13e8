package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"freeagent-proxy/internal/simulator"
)

// quirk is what a real program or HTTP library sends, byte for byte, on one connection, which the proxy closes at last.
type quirk struct {
	name string
	sent string // HOST is the proxy's address
	half bool   // the program closes its half at once
	// got is a pattern for all that comes back, from the first byte to the last.
	got string
	// saw is what reached FreeAgent: method, target, and length and hash of the body if there is one. UPSTREAM is its origin.
	saw []string
	// header are header lines of the last request that reached FreeAgent; empty: not there.
	header map[string]string
}

const (
	ok      = `^HTTP/1\.[01] 200 OK\r\n`
	created = `^HTTP/1\.[01] 201 Created\r\n`
	contact = `{"contact":{"organisation_name":"Acme"}}`
)

// saw is one request as FreeAgent saw it.
func saw(method, target string, body ...string) string {
	if text := strings.Join(body, ""); text != "" {
		sum := sha256.Sum256([]byte(text))
		return fmt.Sprintf("%s %s %d %s", method, target, len(text), hex.EncodeToString(sum[:]))
	}
	return method + " " + target
}

func sawRequest(r simulator.Request) string {
	if r.BodyBytes == 0 {
		return r.Method + " " + r.Target
	}
	return fmt.Sprintf("%s %s %d %s", r.Method, r.Target, r.BodyBytes, r.BodySHA256)
}

// post is a POST of a contact, with a Content-Length.
func post(target string, more ...string) string {
	head := append([]string{"POST " + target + " HTTP/1.1", "Host: HOST", fmt.Sprintf("Content-Length: %d", len(contact))}, more...)
	return lines(head...) + contact
}

func get10(target string, more ...string) string {
	return lines(append([]string{"GET " + target + " HTTP/1.0"}, more...)...)
}

func getAndClose(target string, more ...string) string {
	return lines(append([]string{"GET " + target + " HTTP/1.1", "Host: HOST", "Connection: close"}, more...)...)
}

var large = strings.Repeat("0123456789abcdef", 80<<10) // 1.25 MiB: more than is kept in memory

const jsonType = "Content-Type: application/json"

// The quirks of real clients, by what they are about; package proxy tests more of each at its handler.
var quirks = []quirk{
	// Request-targets.
	{name: "doubled slashes", sent: getAndClose("//v2//company"), got: ok, saw: []string{"GET /v2/company"}},
	{name: "a doubled slash before OAuth", sent: post("/v2//token_endpoint", "Connection: close"), got: `^HTTP/1\.1 400 (?s:.*)grant_type must be`},
	{name: "a query that does not parse", sent: getAndClose("/v2/contacts?a=1;b=2&c=%zz"), got: ok, saw: []string{"GET /v2/contacts?a=1;b=2&c=%zz"}},
	{name: "an empty parameter", sent: getAndClose("/v2/contacts?&view=active"), got: ok, saw: []string{"GET /v2/contacts?&view=active"}},
	{name: "a raw URL in a query", sent: getAndClose("/v2/contacts?x=http://HOST/v2/a|b^c"), got: ok, saw: []string{"GET /v2/contacts?x=UPSTREAM/v2/a|b^c"}},
	{name: "a path that is none", sent: getAndClose("/company"), got: `^HTTP/1\.1 404 (?s:.*)below /v2/`},
	{name: "a space in a URL", sent: getAndClose("/v2/contacts?search=a b"), got: `^HTTP/1\.1 400 `},
	{name: "an HTTP proxy's request", sent: lines("GET http://api.freeagent.com/v2/company HTTP/1.1", "Host: api.freeagent.com", "Proxy-Connection: Keep-Alive", "Connection: close"),
		got: ok, saw: []string{"GET /v2/company"}, header: map[string]string{"Proxy-Connection": ""}},

	// Methods.
	{name: "bytes after an empty body",
		sent: lines("PUT /v2/company HTTP/1.1", "Host: HOST", "Content-Length: 0") + "null" + lines("DELETE /v2/contacts/1 HTTP/1.1", "Host: HOST"),
		got:  `(?s)^HTTP/1\.1 \d+ .*HTTP/1\.1 405 Method Not Allowed\r\n.*Connection: close\r\n`, saw: []string{"PUT /v2/company"}},
	{name: "CONNECT", sent: lines("CONNECT api.freeagent.com:443 HTTP/1.1", "Host: api.freeagent.com:443", "Proxy-Connection: Keep-Alive"),
		got: `(?s)^HTTP/1\.1 405 .*Connection: close\r\n.*http:// instead of https://`},
	{name: "CONNECT in HTTP/1.0", sent: lines("CONNECT api.freeagent.com:443 HTTP/1.0"), got: `(?s)^HTTP/1\.0 405 .*http:// instead of https://`},
	{name: "OPTIONS", sent: lines("OPTIONS /v2/company HTTP/1.1", "Host: HOST"), got: `(?s)^HTTP/1\.1 405 .*Allow: GET, .*Connection: close\r\n`},
	{name: "OPTIONS of the server", sent: lines("OPTIONS * HTTP/1.1", "Host: HOST"), got: `(?s)^HTTP/1\.1 405 .*Connection: close\r\n`},
	{name: "TRACE", sent: lines("TRACE /v2/company HTTP/1.1", "Host: HOST"), got: `(?s)^HTTP/1\.1 405 .*Connection: close\r\n`},
	{name: "half a preface of HTTP/2", sent: lines("PRI * HTTP/2.0") + "XX\r\n\r\n", got: `^HTTP/1\.1 405 `},

	// HTTP/1.0 and loose lines.
	{name: "HTTP/1.0 without Host", sent: get10("/v2/company"), got: `^HTTP/1\.0 200 OK\r\n`, saw: []string{"GET /v2/company"}},
	{name: "HTTP/1.0 with Host", sent: get10("/v2/company", "Host: HOST"), got: `^HTTP/1\.0 200 OK\r\n`, saw: []string{"GET /v2/company"}},
	{name: "HTTP/1.0 with another Host", sent: get10("/v2/company", "Host: evil.example"), got: `^HTTP/1\.0 421 `},
	{name: "HTTP/1.0 with keep-alive", sent: get10("/company", "Connection: keep-alive") + get10("/v2/company"),
		got: `(?s)^HTTP/1\.0 404 .*Connection: keep-alive\r\n.*HTTP/1\.0 200 OK\r\n`, saw: []string{"GET /v2/company"}},
	{name: "HTTP/1.1 without Host", sent: lines("GET /v2/company HTTP/1.1"), got: `^HTTP/1\.1 400 `},
	{name: "line feeds alone", sent: "GET /v2/company HTTP/1.0\nHost: HOST\nAccept: */*\n\n", got: ok, saw: []string{"GET /v2/company"}},
	{name: "a line break after a body", sent: post("/v2/contacts", jsonType) + "\r\n" + getAndClose("/v2/company"),
		got: `(?s)^HTTP/1\.1 201 .*HTTP/1\.1 200 OK\r\n`, saw: []string{saw("POST", "/v2/contacts", contact), "GET /v2/company"}},
	{name: "a half-closed connection", half: true, sent: lines("GET /v2/company HTTP/1.1", "Host: HOST"), got: ok, saw: []string{"GET /v2/company"}},
	{name: "a half-closed HTTP/1.0 POST", half: true, sent: lines("POST /v2/contacts HTTP/1.0", jsonType, "Content-Length: 40") + contact,
		got: created, saw: []string{saw("POST", "/v2/contacts", contact)}},

	// Bodies.
	{name: "a POST", sent: post("/v2/contacts", jsonType, "Connection: close"), got: created, saw: []string{saw("POST", "/v2/contacts", contact)}},
	{name: "a chunked POST", sent: lines("POST /v2/contacts HTTP/1.1", "Host: HOST", jsonType, "Transfer-Encoding: chunked", "Connection: close") +
		"14\r\n" + contact[:20] + "\r\n14;x=y\r\n" + contact[20:] + "\r\n0\r\n\r\n",
		got: created, saw: []string{saw("POST", "/v2/contacts", contact)}, header: map[string]string{"Content-Length": "40", "Transfer-Encoding": ""}},
	{name: "Expect: 100-continue above 1 MB", sent: lines("POST /v2/contacts HTTP/1.1", "Host: HOST", "Expect: 100-continue", jsonType,
		fmt.Sprintf("Content-Length: %d", len(large)), "Connection: close") + large,
		got: `^HTTP/1\.1 100 Continue\r\n\r\nHTTP/1\.1 201 `, saw: []string{saw("POST", "/v2/contacts", large)}, header: map[string]string{"Expect": ""}},
	{name: "DELETE with a body", sent: lines("DELETE /v2/contacts/999 HTTP/1.1", "Host: HOST", "Content-Length: 2", "Connection: close") + "{}",
		got: `^HTTP/1\.1 404 `, saw: []string{saw("DELETE", "/v2/contacts/999", "{}")}},
	{name: "PUT without a body", sent: lines("PUT /v2/contacts/999 HTTP/1.1", "Host: HOST", "Content-Length: 0", "Connection: close"),
		got: `^HTTP/1\.1 4\d\d `, saw: []string{"PUT /v2/contacts/999"}, header: map[string]string{"Content-Length": "0"}},
	{name: "PUT without a word of its body", sent: lines("PUT /v2/contacts/999 HTTP/1.1", "Host: HOST", "Connection: close"),
		got: `^HTTP/1\.1 4\d\d `, saw: []string{"PUT /v2/contacts/999"}, header: map[string]string{"Content-Length": "0"}},
	{name: "GET with a Content-Type", sent: getAndClose("/v2/company", jsonType), got: ok, saw: []string{"GET /v2/company"},
		header: map[string]string{"Content-Type": "application/json", "Content-Length": ""}},

	// Headers.
	{name: "Upgrade: h2c", sent: getAndClose("/v2/company", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
		got: ok, saw: []string{"GET /v2/company"}, header: map[string]string{"Upgrade": "", "Http2-Settings": ""}},
	{name: "no User-Agent, no Accept", sent: getAndClose("/v2/company"), got: ok, saw: []string{"GET /v2/company"},
		header: map[string]string{"User-Agent": "freeagent-proxy/dev", "Accept": ""}},
	{name: "Connection: Authorization", sent: getAndClose("/v2/company", "Connection: Authorization", "Authorization: Bearer theirs"),
		got: ok, saw: []string{"GET /v2/company"}},
	{name: "what browsers and networks add", sent: getAndClose("/v2/company", "Cookie: a=b", "X-Forwarded-For: 10.0.0.1", "X-Api-Key: k", "Referer: http://intranet/"),
		got: ok, saw: []string{"GET /v2/company"}, header: map[string]string{"Cookie": "", "X-Forwarded-For": "", "X-Api-Key": "", "Referer": ""}},
}

func TestQuirks(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, noLimits)
	w.authorise(w.sim.Authorize("owner"))
	_, url := w.serve()
	address := strings.TrimPrefix(url, "http://")
	for _, q := range quirks {
		t.Run(q.name, func(t *testing.T) {
			before := len(w.arrivals())
			c := dial(t, address).send(strings.ReplaceAll(q.sent, "HOST", address))
			if q.half {
				c.halfClose()
			}
			got := c.rest()
			if !regexp.MustCompile(q.got).MatchString(got) {
				t.Errorf("got %.600q, want %s", got, q.got)
			}
			if q.saw != nil {
				clean(t, got)
			}
			arrived := w.arrivals()[before:]
			if len(arrived) != len(q.saw) {
				t.Fatalf("FreeAgent saw %d requests, want %q", len(arrived), q.saw)
			}
			for i, want := range q.saw {
				if got, want := sawRequest(arrived[i]), strings.ReplaceAll(want, "UPSTREAM", w.simURL); got != want {
					t.Errorf("FreeAgent saw %.200q, want %.200q", got, want)
				}
				bearer(t, arrived[i].Header)
			}
			for name, want := range q.header {
				if got := arrived[len(arrived)-1].Header.Get(name); got != want {
					t.Errorf("FreeAgent saw %s %q, want %q", name, got, want)
				}
			}
		})
	}
}

// clean: what must not reach a program by plain HTTP, or make it try again.
func clean(t *testing.T, got string) {
	t.Helper()
	for _, never := range []string{"Strict-Transport-Security", "Set-Cookie", "Alt-Svc", "Retry-After", tokenBegin} {
		if strings.Contains(got, never) {
			t.Errorf("%s in %.600q", never, got)
		}
	}
}

func bearer(t *testing.T, header http.Header) {
	t.Helper()
	if got := header["Authorization"]; len(got) != 1 || !strings.HasPrefix(got[0], "Bearer "+tokenBegin) {
		t.Errorf("FreeAgent saw %d lines of Authorization, want one with the token", len(got))
	}
}

// After a write was passed on there is an answer, so that no library sends it again by itself, and FreeAgent saw it once.
func TestWritesAreAnswered(t *testing.T) {
	t.Parallel()
	for _, fault := range []simulator.Fault{
		{Kind: simulator.FaultDrop, After: true},
		{Kind: simulator.FaultDrop},
		{Kind: simulator.FaultStall, After: true},
	} {
		t.Run(fmt.Sprintf("%s %v", fault.Kind, fault.After), func(t *testing.T) {
			t.Parallel()
			w := newSimulated(t, simNoLimits, noLimits)
			w.configure(w.simURL+", timeout: 1s", "listen: 127.0.0.1:0\nstore: {file: store}\n"+noLimits)
			w.authorise(w.sim.Authorize("owner"))
			fault.Match.Method = http.MethodPost
			if _, err := w.sim.Fault(fault); err != nil {
				t.Fatal(err)
			}
			_, url := w.serve()
			address := strings.TrimPrefix(url, "http://")
			before := len(w.arrivals())
			resp, body := dial(t, address).send(strings.ReplaceAll(post("/v2/contacts", jsonType), "HOST", address)).answer(http.MethodPost)
			if resp.StatusCode != 502 && resp.StatusCode != 504 || !strings.Contains(body, "it may have acted") {
				t.Errorf("got %d %q, want 502 or 504 that says that FreeAgent may have acted", resp.StatusCode, body)
			}
			// On a busy machine the answer may have come before the POST was read.
			eventually(t, "the POST at FreeAgent", func() bool { return len(w.arrivals()) > before && w.sim.Stats().InFlight == 0 })
			if got := len(w.arrivals()) - before; got != 1 {
				t.Errorf("FreeAgent saw %d POSTs, want 1", got)
			}
		})
	}
}

// Retry-After is in whole seconds, which is all that programs parse.
func TestRetryAfterIsWholeSeconds(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, `limits: {api: [{requests: 1, per: 1500ms}], guard: 700ms, max_wait: 0s}`+"\n")
	w.authorise(w.sim.Authorize("owner"))
	_, url := w.serve()
	address := strings.TrimPrefix(url, "http://")
	request := strings.ReplaceAll(lines("GET /v2/company HTTP/1.1", "Host: HOST"), "HOST", address)
	c := dial(t, address)
	for range 5 {
		resp, _ := c.send(request).answer(http.MethodGet)
		if resp.StatusCode != http.StatusTooManyRequests {
			continue
		}
		if got := resp.Header.Get("Retry-After"); !regexp.MustCompile(`^[1-3]$`).MatchString(got) {
			t.Errorf("Retry-After %q, want 1, 2 or 3", got)
		}
		return
	}
	t.Error("no 429 in five requests")
}
