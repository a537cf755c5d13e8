package proxy_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"slices"
	"strings"
	"testing"

	"freeagent-proxy/internal/simulator"
)

// FreeAgent's answer is the client's, in every byte: encoding, validators, error bodies.
func TestAnswersPassUntouched(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(strings.Repeat(fine, 100)))
	_ = z.Close()
	for name, c := range map[string]struct {
		status  int
		body    string
		headers []string
	}{
		"gzip":       {200, zipped.String(), []string{"Content-Type: application/json; charset=utf-8", "Content-Encoding: gzip", `Etag: W/"abc"`, "Vary: Origin"}},
		"created":    {201, fine, []string{"Location: https://api.freeagent.com/v2/invoices/1", "Content-Type: application/json"}},
		"empty":      {200, "", []string{"Content-Type: application/json"}},
		"no type":    {200, "<html>not guessed</html>", nil},
		"odd status": {299, "x", []string{"Content-Type: text/x"}},
		"error":      {422, `{"errors":[{"message":"x"}]}`, []string{"Content-Type: application/json"}},
		"teapot":     {418, "\x00\xff", []string{"Content-Type: application/octet-stream"}},
		"gateway":    {504, "<html>nginx</html>", []string{"Content-Type: text/html", "Retry-After: 30"}},
		"down":       {503, "", []string{"Retry-After: 120"}},
		"links":      {200, "[]", []string{"Link: <https://api.freeagent.com/v2/x?page=2>; rel='next'", "Link:", "X-Total-Count: 0", "X-A: 1", "X-A: 2"}},
	} {
		r, _ := withUpstream(t, always(reply(c.status, c.body, c.headers...)))
		got := r.get("/v2/company", "Accept-Encoding: gzip")
		got.passed(t, c.status, c.body)
		want := map[string][]string{"Content-Length": {fmt.Sprint(len(c.body))}}
		for _, line := range c.headers {
			name, value, _ := strings.Cut(line, ":")
			want[name] = append(want[name], strings.TrimSpace(value))
		}
		delete(got.header, "Date")
		delete(got.header, "X-Request-Id")
		delete(got.header, "Ratelimit-Policy")
		delete(got.header, "Ratelimit")
		for header, values := range want {
			if !slices.Equal(got.header[header], values) {
				t.Errorf("%s: %s: got %q, want %q", name, header, got.header[header], values)
			}
			delete(got.header, header)
		}
		if len(got.header) > 0 {
			t.Errorf("%s: added %v", name, got.header)
		}
	}
}

// The simulator's gzip goes through, too, and only to who asked for it.
func TestEncodingIsTheClientsChoice(t *testing.T) {
	r, sim := withSimulator(t, simulator.Config{})
	got := r.get("/v2/company", "Accept-Encoding: gzip, deflate")
	equal(t, "Content-Encoding", got.header.Get("Content-Encoding"), "gzip")
	z, err := gzip.NewReader(strings.NewReader(got.body))
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	if _, err := plain.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	got = r.get("/v2/company")
	equal(t, "Content-Encoding", got.header.Get("Content-Encoding"), "")
	equal(t, "plain", got.body, plain.String())
	equal(t, "asked upstream", sim.Requests(0)[1].Header.Get("Accept-Encoding"), "")
}

func TestAnswersWithoutBody(t *testing.T) {
	for _, c := range []struct{ method, answer, length string }{
		{"GET", text("HTTP/1.1 304 Not Modified", `Etag: W/"abc"`), ""},
		{"DELETE", text("HTTP/1.1 204 No Content"), ""},
		{"HEAD", text("HTTP/1.1 200 OK", "Content-Length: 12345"), "12345"},
		{"HEAD", text("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), ""},
		{"HEAD", text("HTTP/1.1 404 Not Found", "Content-Length: 9"), "9"},
		{"DELETE", text("HTTP/1.1 200 OK", "Content-Length: 0"), "0"},
	} {
		r, u := withUpstream(t, always(c.answer))
		conn := r.dial()
		soon(t, "a connection serves again, on both sides", func() bool { // which shows that the first answer ended where it should
			got := conn.send(r.request(c.method, "/v2/invoices/1", "", `If-None-Match: W/"abc"`)).answer(c.method)
			want := strings.Fields(c.answer)[1]
			if fmt.Sprint(got.status) != want || got.body != "" || got.err != nil {
				t.Errorf("%s: %d %q %v, want %s", c.method, got.status, got.body, got.err, want)
			}
			equal(t, "Content-Length", got.header.Get("Content-Length"), c.length)
			equal(t, "closes", got.closes, false)
			all := u.all()
			return all[len(all)-1].number > 1 || t.Failed()
		})
	}
}

// What FreeAgent's servers say to browsers, to proxies and to us stops with us.
func TestKeepsFromClients(t *testing.T) {
	r, _ := withUpstream(t, always(reply(200, fine,
		"Strict-Transport-Security: max-age=31536000", "Set-Cookie: a=not-for-clients", "Set-Cookie: b=not-for-clients", "Alt-Svc: h3=not-for-clients",
		"Proxy-Status: forged; details=not-for-clients", "Proxy-Authenticate: Basic realm=not-for-clients",
		"Connection: X-Hop, keep-alive", "X-Hop: not-for-clients", "Keep-Alive: timeout=not-for-clients", "Proxy-Connection: not-for-clients",
		"Upgrade: not-for-clients", "X-Request-Id: theirs", "X-Runtime: 0.1", "Content-Security-Policy: default-src 'self'")))
	got := r.get("/v2/company", "X-Request-Id: ours")
	got.passed(t, 200, fine)
	for name, values := range got.header {
		if strings.Contains(strings.Join(values, " "), "not-for-clients") {
			t.Errorf("%s: %q", name, values)
		}
	}
	for name, want := range map[string]string{
		"Strict-Transport-Security": "", "X-Request-Id": "ours", "X-FreeAgent-Request-Id": "theirs", "X-Runtime": "0.1",
		"Content-Security-Policy": "default-src 'self'",
	} {
		equal(t, name, strings.Join(got.header.Values(name), ", "), want)
	}
}

// A redirect is the client's to follow; the token goes to one place.
func TestRedirectsAreHandedBack(t *testing.T) {
	elsewhere := newUpstream(t, well)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, location := range []string{elsewhere.url + "/v2/company", "/v2/company", "//evil.example/v2"} {
			r, u := withUpstream(t, always(reply(status, "moved", "Location: "+location)))
			got := r.do("POST", "/v2/invoices", "{}")
			got.passed(t, status, "moved")
			equal(t, "Location", got.header.Get("Location"), location)
			u.only()
		}
	}
	elsewhere.nothing()
}

// Answers before the answer are not the client's business, and not readable in HTTP/1.0.
func TestInterimAnswers(t *testing.T) {
	interim := text("HTTP/1.1 100 Continue") + text("HTTP/1.1 103 Early Hints", "Link: </x>; rel=preload", "Set-Cookie: a=b", "X-Request-Id: forged") +
		text("HTTP/1.1 102 Processing")
	for _, request := range []string{
		text("POST /v2/invoices HTTP/1.1", "Host: localhost", "Content-Length: 2", "X-Request-Id: ours") + "{}",
		text("POST /v2/invoices HTTP/1.0", "Content-Length: 2", "X-Request-Id: ours") + "{}",
	} {
		r, _ := withUpstream(t, always(interim+reply(200, fine)))
		got := r.ask(request)
		got.passed(t, 200, fine)
		equal(t, "X-Request-Id", got.header.Get("X-Request-Id"), "ours")
		equal(t, "Set-Cookie", got.header.Get("Set-Cookie"), "")
	}
}

// An upstream in HTTP/1.0, whose answer ends with the connection.
func TestUpstreamInHTTP10(t *testing.T) {
	r, _ := withUpstream(t, func(q *received) bool {
		q.read()
		q.write(text("HTTP/1.0 200 OK", "Content-Type: text/plain"), fine)
		return false
	})
	c := r.dial()
	for range 2 {
		c.send(r.request("GET", "/v2/company", "")).answer("GET").passed(t, 200, fine)
	}
}

// A client's connection is kept although FreeAgent closes its own, and the other way round.
func TestConnectionsAreKeptApart(t *testing.T) {
	r, _ := withUpstream(t, func(q *received) bool {
		q.read()
		return q.write(reply(200, fine, "Connection: close")) && false
	})
	c := r.dial()
	for range 3 {
		got := c.send(r.request("GET", "/v2/company", "")).answer("GET")
		got.passed(t, 200, fine)
		equal(t, "closes", got.closes, false)
	}
	r, u := withUpstream(t, well)
	soon(t, "a connection upstream serves three", func() bool {
		got := r.get("/v2/company", "Connection: close")
		got.passed(t, 200, fine)
		equal(t, "closes", got.closes, true)
		all := u.all()
		return all[len(all)-1].number == 3 || t.Failed()
	})
}

// Trailers would come past what is kept from clients.
func TestTrailersAreDropped(t *testing.T) {
	r, _ := withUpstream(t, always(text("HTTP/1.1 200 OK", "Trailer: X-Sum, Set-Cookie", "Transfer-Encoding: chunked")+
		strings.TrimSuffix(chunked(fine), "\r\n")+"X-Sum: 7\r\nSet-Cookie: marked=1\r\nProxy-Status: forged\r\n\r\n"))
	got := r.dial().send(r.request("GET", "/v2/company", "", "Connection: close")).rest()
	if !strings.HasSuffix(got, "\r\n\r\n"+chunked(fine)) || strings.Contains(got, "Trailer") {
		t.Errorf("%q", got)
	}
}
