package simulator_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

func TestRequestLog(t *testing.T) {
	s := start(t, simulator.Config{RequestLog: 5})
	s.do("POST", "/v2//contacts?x=%41;y", `{"first_name":"Ann"}`, "X-Odd: yes")
	s.do("GET", "/v2/nothing/at/all", "")
	log := s.Requests(0)
	equal(t, "entries", len(log), 2)
	first := log[0]
	equal(t, "line", fmt.Sprint(first.Seq, first.Method, first.Target, first.Proto, first.Source), "1POST/v2//contacts?x=%41;yHTTP/1.1127.0.0.1")
	equal(t, "header", fmt.Sprint(first.Header.Get("X-Odd"), first.Header.Get("Authorization"), first.Header.Get("Host")),
		"yesBearer "+s.token+strings.TrimPrefix(s.url, "http://"))
	equal(t, "outcome", fmt.Sprint(first.Status, first.Acted, first.BodyBytes, len(first.BodySHA256)), "201 true 20 64")
	equal(t, "not found", fmt.Sprint(log[1].Status, log[1].Acted), "404 false")
	for range 10 {
		s.do("GET", "/v2/company", "")
	}
	equal(t, "bounded", fmt.Sprint(len(s.Requests(0)), s.Requests(0)[0].Seq, len(s.Requests(11)), len(s.Requests(99))), "5 8 1 0")
	cfg := s.Config()
	cfg.RequestLog = 7
	if err := s.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	s.do("GET", "/v2/company", "")
	equal(t, "grown", len(s.Requests(0)), 6)
	cfg.RequestLog = 2
	if err := s.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	equal(t, "shrunk", s.Requests(0)[0].Seq, 12)
}

func TestDuplicates(t *testing.T) {
	s := start(t, simulator.Config{DuplicateReferences: true})
	contact := s.make("contacts", `{"first_name":"Ann"}`)
	invoice := func(rest string) string { return `{"invoice":{"contact":"` + contact + `"` + rest + `}}` }
	for _, test := range []struct {
		body, id              string
		duplicates, repeateds int64
	}{
		{invoice(`,"reference":"A"`), "", 0, 0},
		{invoice(`,"reference":"A","comments":"other bytes"`), "", 1, 0},
		{invoice(`,"reference":"B"`), "", 1, 0},
		{invoice(``), "", 1, 0},
		{invoice(``), "", 2, 0},
		{invoice(``), "one", 2, 0},
		{invoice(`,"comments":"x"`), "one", 3, 0},
		{invoice(``), "two", 3, 0},
	} {
		s.must(201, "POST", "/v2/invoices", test.body, "X-Sim-Logical-Id:"+test.id)
		got := s.Stats().Writes
		equal(t, test.body+test.id, got.Duplicates, test.duplicates)
	}
	got := s.Stats().Writes
	equal(t, "acted", got.Acted, 9)
	equal(t, "example", got.Examples[0], "POST /v2/invoices reference A")
	equal(t, "references", got.DuplicateReferences, 1)

	cfg := s.Config()
	cfg.DuplicateReferences = false
	if err := s.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	s.must(422, "POST", "/v2/invoices", invoice(`,"reference":"A"`))
	equal(t, "came again, not acted on", s.Stats().Writes.Repeated, 1)
	s.token = s.AccessToken("other")
	s.make("contacts", `{"first_name":"Ann"}`)
	equal(t, "another user's is another write", s.Stats().Writes.Duplicates, 3)
}

func TestLargeBodies(t *testing.T) {
	s := start(t, simulator.Config{MaxParsedBody: 1000})
	body := `{"contact":{"first_name":"` + strings.Repeat("n", 6<<20) + `"}}`
	made := s.must(201, "POST", "/v2/contacts", body).record(t)
	equal(t, "attributes of a body too large to be parsed", made["first_name"], nil)
	s.must(201, "POST", "/v2/contacts", body, "Transfer-Encoding: chunked")
	log := s.Requests(0)
	equal(t, "bytes", log[0].BodyBytes, int64(len(body)))
	equal(t, "same hash", log[0].BodySHA256, log[1].BodySHA256)
	equal(t, "duplicate by its hash", s.Stats().Writes.Duplicates, 1)
}

func TestMaxInFlight(t *testing.T) {
	s := start(t, simulator.Config{})
	s.arm(simulator.Fault{Kind: simulator.FaultStall})
	var conns []net.Conn
	for range 7 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /v2/company HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", s.token)
		conns = append(conns, conn)
	}
	wait(t, func() bool { return s.Stats().InFlight == 7 })
	for _, conn := range conns {
		conn.Close()
	}
	wait(t, func() bool { return s.Stats().InFlight == 0 }) // whoever hangs up ends the stall
	equal(t, "most at once", s.Stats().MaxInFlight, 7)
}

// wait polls for what another goroutine brings about.
func wait(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen within 10s")
		}
	}
}

// TestOldHTTP speaks HTTP/1.0 without a Host, and sends what is no method.
func TestOldHTTP(t *testing.T) {
	s := start(t, simulator.Config{})
	say := func(request string) (string, string) {
		t.Helper()
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, request)
		var text strings.Builder
		if _, err := bufio.NewReader(conn).WriteTo(&text); err != nil {
			t.Fatal(err)
		}
		head, body, _ := strings.Cut(text.String(), "\r\n\r\n")
		return head, body
	}
	head, body := say("GET /v2/company HTTP/1.0\r\nAuthorization: Bearer " + s.token + "\r\n\r\n")
	equal(t, "not chunked", strings.Contains(head, "Content-Length: "+fmt.Sprint(len(body))), true)
	equal(t, "url", strings.HasPrefix(body, `{"company":{"url":"`+s.url+`/v2/company"`), true)
	head, _ = say("nullDELETE /v2/company HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + s.token + "\r\n\r\n")
	equal(t, "no method", strings.HasPrefix(head, "HTTP/1.1 404 "), true)
	equal(t, "logged", s.Requests(0)[1].Method, "nullDELETE")
}
