package proxy_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"freeagent-proxy/internal/simulator"
)

func zip(text string) string {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return out.String()
}

func unzip(t *testing.T, body string) string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%v: %.60q", err, body)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Who asked for gzip gets gzip, in which the URLs lead back to us.
func TestRewritesGzip(t *testing.T) {
	long := `[` + strings.Repeat(`{"url":"UP/v2/invoices/1","n":"12345"},`, 20_000) + `0]`
	for name, body := range map[string]string{"short": `{"url":"UP/v2/invoices/1"}`, "long": long, "without": `{"url":"` + strings.Repeat("x", 100_000) + `"}`} {
		for _, framing := range []string{"length", "chunks"} {
			var up string
			r, u := withUpstream(t, func(q *received) bool {
				zipped := zip(swap(body, up, ""))
				if framing == "length" {
					return q.write(reply(200, zipped, "Content-Type: application/json", "Content-Encoding: gzip"))
				}
				return q.write(text("HTTP/1.1 200 OK", "Content-Type: application/json", "Content-Encoding: gzip", "Transfer-Encoding: chunked"), chunked(zipped[:5], zipped[5:]))
			})
			up = u.url
			got := r.get("/v2/x", "Accept-Encoding: br;q=1.0, gzip;q=0.8, *;q=0.1")
			equal(t, name+" Content-Encoding", got.header.Get("Content-Encoding"), "gzip")
			if unzip(t, got.body) != swap(body, "http://"+r.addr, "") || got.err != nil {
				t.Errorf("%s in %s: %.200q (%v)", name, framing, unzip(t, got.body), got.err)
			}
			equal(t, name+" asked upstream", u.only().has("Accept-Encoding: gzip"), true)
		}
	}
}

// Upstream is asked for nothing that could not be read.
func TestAsksForGzipAlone(t *testing.T) {
	r, u := withUpstream(t, well)
	for i, c := range []struct{ accept, want string }{
		{"gzip", "gzip"}, {"GZIP", "gzip"}, {"deflate, gzip;q=0.1", "gzip"}, {"*", "gzip"}, {"br", ""}, {"identity", ""}, {"gzip;q=0, *", ""}, {"", ""},
	} {
		r.get("/v2/x", "Accept-Encoding: "+c.accept).passed(t, 200, fine)
		equal(t, c.accept, u.all()[i].header.Get("Accept-Encoding"), c.want)
		equal(t, c.accept, len(u.all()[i].header["Accept-Encoding"]) > 0, c.want != "")
	}
}

// What is labelled gzip and is none, is empty, or is of another encoding passes as it is. What breaks in the middle is cut off.
func TestOddGzip(t *testing.T) {
	chunks := func(body string) string {
		return text("HTTP/1.1 200 OK", "Content-Type: application/json", "Content-Encoding: gzip", "Transfer-Encoding: chunked") + chunked(body)
	}
	long := zip(strings.Repeat("0123456789", 50_000) + fmt.Sprint(strings.Split(strings.Repeat("ab", 5000), "")))
	for name, c := range map[string]struct{ answer, body string }{
		"no gzip":           {reply(200, `{"a":1}`, "Content-Type: application/json", "Content-Encoding: gzip"), `{"a":1}`},
		"no gzip, chunks":   {chunks(`{"a":1}`), `{"a":1}`},
		"one byte":          {chunks("\x1f"), "\x1f"},
		"empty":             {reply(200, "", "Content-Type: application/json", "Content-Encoding: gzip"), ""},
		"empty, chunks":     {text("HTTP/1.1 200 OK", "Content-Type: application/json", "Content-Encoding: gzip", "Transfer-Encoding: chunked") + "0\r\n\r\n", ""},
		"damaged":           {reply(200, long[:len(long)-8]+"xxxxxxxx", "Content-Type: application/json", "Content-Encoding: gzip"), long[:len(long)-8] + "xxxxxxxx"},
		"another encoding":  {reply(200, `"\x01"`, "Content-Type: application/json", "Content-Encoding: br"), `"\x01"`},
		"damaged, chunks":   {chunks(long[:len(long)-8] + "xxxxxxxx"), "cut off"},
		"cut off in chunks": {chunks(long[:len(long)/2]), "cut off"},
	} {
		r, _ := withUpstream(t, always(c.answer))
		got := r.get("/v2/x", "Accept-Encoding: gzip")
		if c.body == "cut off" {
			if got.err == nil {
				t.Errorf("%s: looks whole", name)
			}
			soon(t, "logged", func() bool {
				lines := r.log.lines("request")
				return len(lines) == 1 && lines[0]["reason"] == "upstream sent gzip that cannot be read"
			})
			continue
		}
		got.passed(t, 200, c.body)
	}
}

func TestSimulatorsGzip(t *testing.T) {
	r, sim := withSimulator(t, simulator.Config{})
	if err := sim.Seed("", "", "contacts", 100); err != nil {
		t.Fatal(err)
	}
	got := r.get("/v2/contacts?per_page=100", "Accept-Encoding: gzip")
	list := unzip(t, got.body)
	equal(t, "our URLs", strings.Count(list, `"http://`+r.addr+`/v2/contacts/`), 100)
	plain := r.get("/v2/contacts?per_page=100")
	equal(t, "Content-Encoding", plain.header.Get("Content-Encoding"), "")
	equal(t, "the same list", list, plain.body)
}

// Many long answers at a time cost little more than a few: a writer of gzip is more than a megabyte, so beyond some
// of them the answers are gzip that is not compressed.
func TestManyGzipsAtATime(t *testing.T) {
	const crowd, most = 60, 40 * mib
	var long strings.Builder
	noise := rand.NewChaCha8([32]byte{})
	for range 8_000 {
		fmt.Fprintf(&long, `{"url":"UP/v2/x","n":"%016x"},`, noise.Uint64())
	}
	var zipped string
	leave := make(chan struct{})
	r, u := withUpstream(t, func(q *received) bool {
		half := len(zipped) / 2
		q.write(text("HTTP/1.1 200 OK", "Content-Type: application/json", "Content-Encoding: gzip", fmt.Sprintf("Content-Length: %d", len(zipped))) + zipped[:half])
		q.wait(leave)
		return q.write(zipped[half:])
	})
	zipped = zip(swap(long.String(), u.url, ""))
	before := heap()
	var clients []*client
	for range crowd {
		clients = append(clients, r.dial().send(r.request("GET", "/v2/x", "", "Accept-Encoding: gzip")))
	}
	var answers []*http.Response
	for _, c := range clients {
		answers = append(answers, c.begin("GET"))
	}
	if got := heap() - before; got > most {
		t.Errorf("%d answers hold %d MB, want at most %d", crowd, got>>20, most>>20)
	}
	close(leave)
	want := hashOf(swap(long.String(), "http://"+r.addr, ""))
	for i, answer := range answers {
		equal(t, "Content-Encoding", answer.Header.Get("Content-Encoding"), "gzip")
		body, err := io.ReadAll(answer.Body)
		if got := hashOf(unzip(t, string(body))); got != want || err != nil {
			t.Errorf("answer %d of %d bytes is not what was sent: %v", i, len(body), err)
		}
	}
}

// heap is what lives on it.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
