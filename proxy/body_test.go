package proxy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"freeagent-proxy/internal/simulator"
)

const mib = 1 << 20

// Whatever the framing, the body arrives whole, with its length and without chunks.
func TestBodyFraming(t *testing.T) {
	const body = `{"invoice":{"reference":"001"}}`
	for _, c := range []struct{ name, request, body, length string }{
		{"length", text("POST /v2/x HTTP/1.1", "Host: localhost", fmt.Sprintf("Content-Length: %d", len(body))) + body, body, "31"},
		{"chunks", text("POST /v2/x HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked") + chunked(body[:7], body[7:8], body[8:]), body, "31"},
		{"trailers", text("POST /v2/x HTTP/1.1", "Host: localhost", "Trailer: X-Sum", "Transfer-Encoding: chunked") +
			strings.TrimSuffix(chunked(body), "\r\n") + "X-Sum: 1\r\nAuthorization: Bearer mine\r\n\r\n", body, "31"},
		{"chunk extensions", text("PUT /v2/x HTTP/1.1", "Host: localhost", "Transfer-Encoding: Chunked") + "1f;name=value\r\n" + body + "\r\n0\r\n\r\n", body, "31"},
		{"empty chunks", text("POST /v2/x HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked") + chunked(), "", "0"},
		{"empty PUT", text("PUT /v2/x HTTP/1.1", "Host: localhost", "Content-Length: 0"), "", "0"},
		{"PUT without length", text("PUT /v2/x HTTP/1.1", "Host: localhost"), "", "0"},
		{"POST without length", text("POST /v2/x HTTP/1.1", "Host: localhost", "Content-Type: application/json"), "", "0"},
		{"DELETE with body", text("DELETE /v2/x HTTP/1.1", "Host: localhost", "Content-Length: 4") + "body", "body", "4"},
		{"DELETE without", text("DELETE /v2/x HTTP/1.1", "Host: localhost"), "", ""},
		{"GET with body", text("GET /v2/x HTTP/1.1", "Host: localhost", "Content-Length: 4") + "body", "body", "4"},
		{"GET with chunks", text("GET /v2/x HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked") + chunked("bo", "dy"), "body", "4"},
		{"GET with Content-Type", text("GET /v2/x HTTP/1.1", "Host: localhost", "Content-Type: application/json"), "", ""},
		{"GET with length 0", text("GET /v2/x HTTP/1.1", "Host: localhost", "Content-Length: 0"), "", ""},
		{"both framings", text("POST /v2/x HTTP/1.1", "Host: localhost", "Content-Length: 5", "Transfer-Encoding: chunked") + chunked("whole body"), "whole body", "10"},
		{"HTTP/1.0", text("POST /v2/x HTTP/1.0", "Content-Length: 4") + "body", "body", "4"},
		{"not UTF-8", text("POST /v2/x HTTP/1.1", "Host: localhost", "Content-Length: 4") + "\x00\xff\r\n", "\x00\xff\r\n", "4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, u := withUpstream(t, well)
			r.ask(c.request).passed(t, 200, fine)
			q := u.only()
			equal(t, "body", q.body, c.body)
			equal(t, "Content-Length", q.header.Get("Content-Length"), c.length)
			if _, ok := q.header["Transfer-Encoding"]; ok || strings.Contains(strings.ToLower(q.head), "transfer-encoding") ||
				strings.Contains(strings.ToLower(q.head), "trailer") || strings.Contains(q.head, "X-Sum") {
				t.Errorf("%q", q.head)
			}
			if c.name == "GET with Content-Type" && !q.has("Content-Type: application/json") {
				t.Errorf("%q", q.head)
			}
		})
	}
}

// Bodies around the memory's edge, and far beyond it, by both framings; with 100-continue as curl
// does it above 1 MiB. The hash is the simulator's.
func TestBodySizes(t *testing.T) {
	t.Parallel()
	r, sim := withSimulator(t, simulator.Config{})
	pattern := strings.Repeat("0123456789abcde\n", 60<<16) // 60 MiB
	for _, c := range []struct {
		size    int
		framing string
	}{
		{1, "length"}, {1, "chunks"}, {1, "continue"},
		{mib - 1, "length"}, {mib, "length"}, {mib + 1, "length"},
		{mib - 1, "chunks"}, {mib, "chunks"}, {mib + 1, "chunks"},
		{mib - 1, "continue"}, {mib, "continue"}, {mib + 1, "continue"},
		{6 * mib, "chunks"}, {6 * mib, "continue"}, {len(pattern), "length"},
	} {
		body, name := pattern[:c.size], fmt.Sprintf("%d by %s", c.size, c.framing)
		if got := r.post(c.framing, body); got.status >= 500 {
			t.Errorf("%s: %d %.200q", name, got.status, got.body)
		}
		all := sim.Requests(0)
		q := all[len(all)-1]
		equal(t, name+": bytes", q.BodyBytes, int64(c.size))
		equal(t, name+": hash", q.BodySHA256, hashOf(body))
		equal(t, name+": Content-Length", q.Header.Get("Content-Length"), fmt.Sprint(c.size))
		equal(t, name+": Transfer-Encoding", q.Header.Get("Transfer-Encoding"), "")
	}
}

// post sends a body by its length, in chunks, or when it is told to continue.
func (r *rig) post(framing, body string) *answer {
	r.t.Helper()
	head := []string{"POST /v2/whatever HTTP/1.1", "Host: localhost"}
	length := fmt.Sprintf("Content-Length: %d", len(body))
	c := r.dial()
	switch framing {
	case "length":
		c.send(text(append(head, length)...), body)
	case "chunks":
		third := (len(body) + 2) / 3
		c.send(text(append(head, "Transfer-Encoding: chunked")...), chunked(nonEmpty(body[:third], body[third:])...))
	case "continue":
		c.send(text(append(head, length, "Expect: 100-continue")...))
		equal(r.t, "first status", c.begin("POST").StatusCode, 100)
		c.send(body)
	}
	return c.answer("POST")
}

// A 401 costs nothing of the body: it is sent again, from memory and from disk.
func TestReplaySendsTheBodyAgain(t *testing.T) {
	for _, size := range []int{10, mib, 3*mib + 1} {
		r, sim := withSimulator(t, simulator.Config{})
		sim.RevokeAccess("")
		body := strings.Repeat("x", size)
		if got := r.do("POST", "/v2/whatever", body); got.status == 401 || got.status >= 500 {
			t.Errorf("%d bytes: %d %.200q", size, got.status, got.body)
		}
		var posts []simulator.Request
		for _, q := range sim.Requests(0) {
			if q.Target == "/v2/whatever" {
				posts = append(posts, q)
			}
		}
		if len(posts) != 2 || posts[0].Status != 401 || posts[0].BodySHA256 != hashOf(body) || posts[1].BodySHA256 != hashOf(body) {
			t.Errorf("%d bytes: arrived as %+v", size, posts)
		}
		equal(t, "refreshes", sim.Stats().Tokens.RefreshRequests, 1)
	}
}

func TestBodyTooLarge(t *testing.T) {
	t.Parallel()
	r, u := withUpstream(t, well)
	const most = 64 * mib
	r.do("POST", "/v2/x", strings.Repeat("x", most)).passed(t, 200, fine)
	equal(t, "arrived", u.all()[0].length, int64(most))

	c := r.dial().send(text("POST /v2/x HTTP/1.1", "Host: localhost", fmt.Sprintf("Content-Length: %d", most+1)))
	got := c.answer("POST") // before a byte of it was sent
	got.refused(t, 413, "64 MiB")
	equal(t, "closes", got.closes, true)

	c = r.dial().send(text("POST /v2/x HTTP/1.1", "Host: localhost", "Expect: 100-continue", fmt.Sprintf("Content-Length: %d", most+1)))
	c.answer("POST").refused(t, 413, "64 MiB") // and not 100

	c = r.dial().send(text("POST /v2/x HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked"))
	megabyte := fmt.Sprintf("%x\r\n%s\r\n", mib, strings.Repeat("x", mib))
	for range 64 {
		c.send(megabyte)
	}
	c.send("1\r\nx\r\n")
	got = c.answer("POST")
	got.refused(t, 413, "64 MiB")
	equal(t, "closes", got.closes, true)

	equal(t, "requests upstream", len(u.all()), 1)
}

// Half a body is the client's mistake, and is never half a write.
func TestBrokenBody(t *testing.T) {
	r, u := withUpstream(t, well)
	for name, request := range map[string]string{
		"short":           text("POST /v2/x HTTP/1.1", "Host: localhost", "Content-Length: 10") + "nine byte",
		"short, spilled":  text("POST /v2/x HTTP/1.1", "Host: localhost", "Content-Length: 3000000") + strings.Repeat("x", 2_999_999),
		"none of it":      text("PUT /v2/x HTTP/1.1", "Host: localhost", "Content-Length: 1"),
		"no last chunk":   text("POST /v2/x HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked") + "4\r\nbody\r\n",
		"cut chunk":       text("POST /v2/x HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked") + "ff\r\nbody",
		"no chunk length": text("POST /v2/x HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked") + "body\r\n0\r\n\r\n",
		"negative chunk":  text("POST /v2/x HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked") + "-4\r\nbody\r\n0\r\n\r\n",
		"chunk overruns":  text("POST /v2/x HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked") + "2\r\nbody\r\n0\r\n\r\n",
		"HTTP/1.0 short":  text("POST /v2/x HTTP/1.0", "Content-Length: 10") + "nine byte",
	} {
		c := r.dial().send(request).halfClose()
		got := c.answer("POST")
		if got.refused(t, 400, "nothing was sent to FreeAgent"); t.Failed() {
			t.Fatal(name)
		}
		equal(t, name+": closes", got.closes, true)
	}
	u.nothing()
}

// Framing that two readers could read in two ways is refused, by Go's server.
func TestSmuggling(t *testing.T) {
	r, u := withUpstream(t, well)
	for _, headers := range [][]string{
		{"Content-Length: 4", "Content-Length: 5"},
		{"Content-Length: +4"}, {"Content-Length: 4, 4 "}, {"Content-Length: -1"}, {"Content-Length: 0x4"},
		{"Transfer-Encoding: chunked, identity"}, {"Transfer-Encoding: xchunked"}, {"Transfer-Encoding: gzip, chunked"},
		{"Transfer-Encoding: chunked", "Transfer-Encoding: chunked"},
		{"Transfer-Encoding : chunked"}, {"Host: second.example"},
	} {
		got := r.ask(text(append([]string{"POST /v2/x HTTP/1.1", "Host: localhost", "Connection: close"}, headers...)...) + "body")
		if got.status < 400 {
			t.Errorf("%q: %d", headers, got.status)
		}
	}
	u.nothing()
}

// nonEmpty leaves out what would end a chunked body early.
func nonEmpty(chunks ...string) []string {
	return slices.DeleteFunc(chunks, func(c string) bool { return c == "" })
}
