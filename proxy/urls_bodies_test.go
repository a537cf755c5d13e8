package proxy_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/proxy"
)

// An answer without a body, or with a part of one, says nothing wrong of its length.
func TestLengthsStayTrue(t *testing.T) {
	var up string
	r, u := withUpstream(t, func(q *received) bool {
		body := `{"url":"` + up + `/v2/x"}`
		switch q.target {
		case "/v2/part":
			return q.write(reply(206, body, "Content-Type: application/json", "Content-Range: bytes 0-9/99"))
		case "/v2/unchanged":
			return q.write(text("HTTP/1.1 304 Not Modified", `ETag: W/"a"`, "Content-Type: application/json"))
		case "/v2/nothing":
			return q.write(text("HTTP/1.1 204 No Content", "Content-Type: application/json"))
		}
		return always(reply(200, body, "Content-Type: application/json", "Accept-Ranges: bytes"))(q)
	})
	up = u.url
	head := r.do("HEAD", "/v2/x", "")
	equal(t, "HEAD's length", len(head.header["Content-Length"]), 0)
	equal(t, "HEAD closes", head.closes, false)
	get := r.get("/v2/x")
	equal(t, "length", get.header.Get("Content-Length"), fmt.Sprint(len(get.body)))
	equal(t, "ranges", get.header.Get("Accept-Ranges"), "")
	r.get("/v2/part", "Range: bytes=0-9").passed(t, 206, `{"url":"`+up+`/v2/x"}`)
	r.get("/v2/unchanged", `If-None-Match: W/"a"`).passed(t, 304, "")
	r.get("/v2/nothing").passed(t, 204, "")
}

// A short answer has its length; a long one ends with the connection for a program that knows no chunks.
func TestLongAnswersInHTTP10(t *testing.T) {
	for _, records := range []int{10, 10_000} {
		var up string
		r, u := withUpstream(t, func(q *received) bool {
			return q.write(reply(200, "["+strings.Repeat(`"`+up+`/v2/x",`, records)+"0]", "Content-Type: application/json"))
		})
		up = u.url
		got := r.ask(text("GET /v2/x HTTP/1.0", "Host: localhost", "Connection: keep-alive"))
		if want := "[" + strings.Repeat(`"http://localhost/v2/x",`, records) + "0]"; got.body != want || got.err != nil {
			t.Errorf("%d records: %d bytes (%v), want %d", records, len(got.body), got.err, len(want))
		}
		equal(t, "has a length", got.header.Get("Content-Length") != "", records == 10)
		equal(t, "closes", got.closes, records != 10)
	}
}

// What breaks off must not look whole, however short it is and whoever reads it.
func TestBrokenOffAnswerIsNotWhole(t *testing.T) {
	for _, proto := range []string{"HTTP/1.0", "HTTP/1.1"} {
		for _, cut := range []string{`{"url":"UP/v2/x","b":"`, `{"b":`, ``} {
			var up string
			r, u := withUpstream(t, func(q *received) bool {
				q.write(text("HTTP/1.1 200 OK", "Content-Type: application/json", "Content-Length: 200"), swap(cut, up, ""))
				return false
			})
			up = u.url
			got := r.ask(text("POST /v2/x "+proto, "Host: "+r.addr))
			if got.err == nil {
				t.Errorf("%s %q: looks whole: %q", proto, cut, got.body)
			}
			equal(t, "what came", got.body, swap(cut, "http://"+r.addr, ""))
		}
	}
}

// Of a long answer each part is handed on when it comes, but for what may be the beginning of a URL.
func TestRewritesAsItComes(t *testing.T) {
	var up string
	on := make(chan struct{})
	r, u := withUpstream(t, func(q *received) bool {
		q.write(text("HTTP/1.1 200 OK", "Content-Type: application/json", "Transfer-Encoding: chunked"))
		whole := `["` + up + `/v2/1","` + up + `/v2/2"]`
		cut := len(whole) - len(up) // within the second one
		q.write(strings.TrimSuffix(chunked(whole[:cut]), "0\r\n\r\n"))
		q.wait(on)
		return q.write(chunked(whole[cut:]))
	})
	up = u.url
	resp := r.dial().send(r.request("GET", "/v2/x", "")).begin("GET")
	first := `["http://` + r.addr + `/v2/1",`
	got := make([]byte, len(first))
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != first {
		t.Fatalf("got %q (%v), want %q", got, err, first)
	}
	close(on)
	rest, err := io.ReadAll(resp.Body)
	if want := `"http://` + r.addr + `/v2/2"]`; err != nil || string(rest) != want {
		t.Errorf("got %q (%v), want %q", rest, err, want)
	}
}

// Rewriting an answer of 200 MB takes the memory of a few buffers.
func TestRewritesInBoundedMemory(t *testing.T) {
	const records, rounds = 1000, 3000
	var up string
	r, u := withUpstream(t, func(q *received) bool {
		piece := strings.Repeat(`{"url":"`+up+`/v2/invoices/123456","status":"Open"},`, records)
		q.write(text("HTTP/1.1 200 OK", "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", rounds*len(piece))))
		for range rounds {
			if !q.write(piece) {
				return false
			}
		}
		return true
	}, timeout(time.Minute), func(c *proxy.Config) { c.PublicURL = mustURL("http://a-rather-long-name.freeagent.internal:8080") })
	up = u.url
	var got int64
	grown := peakHeap(func() {
		var err error
		got, err = io.Copy(io.Discard, r.dial().send(r.request("GET", "/v2/x", "")).begin("GET").Body)
		equal(t, "error", err, nil)
	})
	equal(t, "bytes", got, int64(rounds*len(strings.Repeat(`{"url":"http://a-rather-long-name.freeagent.internal:8080/v2/invoices/123456","status":"Open"},`, records))))
	if grown > 24*mib {
		t.Errorf("the heap grew by %d MiB", grown/mib)
	}
}
