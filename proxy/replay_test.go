package proxy_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

var gatewayTroubles = []int{502, 503, 504}

// What reads is sent again after a gateway's answer, twice at most, each time with a permit of its own; a write never is,
// and its client learns that FreeAgent may have acted.
func TestGatewayTrouble(t *testing.T) {
	t.Parallel()
	var cases []string
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		for _, status := range gatewayTroubles {
			for troubles := 1; troubles <= 3; troubles++ {
				cases = append(cases, fmt.Sprint(method, " ", status, " ", troubles))
			}
		}
	}
	var kept sync.Map // methods that were sent again on the same connection
	together(cases, func(name string) {
		var method string
		var status, troubles int
		_, _ = fmt.Sscan(name, &method, &status, &troubles)
		r, u := withUpstream(t, func(q *received) bool {
			q.read()
			body := fmt.Sprint("trouble ", q.nth)
			if q.method == "HEAD" {
				body = ""
			}
			if q.nth > troubles {
				return q.write(reply(200, body))
			}
			return q.write(reply(status, body))
		})
		got := r.do(method, "/v2/invoices", "")
		sent, want := min(troubles+1, 3), 200
		if troubles == 3 {
			want = status
		}
		reads := method == "GET" || method == "HEAD"
		if !reads {
			sent, want = 1, status
		}
		equal(t, name+": status", got.status, want)
		if method != "HEAD" {
			equal(t, name+": body", got.body, fmt.Sprint("trouble ", sent))
		}
		equal(t, name+": upstream", len(u.all()), sent)
		equal(t, name+": permits", r.taken(ample), sent)
		if sent > 1 && u.all()[sent-1].number == sent {
			kept.Store(method, true)
		}
		line := r.logged(1)
		equal(t, name+": attempts", int(line["attempts"].(float64)), sent)
		equal(t, name+": answered by", line["answered_by"].(string), "upstream")
		if waited := line["waited_ms"].(float64); waited < float64(sent-1)*250 {
			t.Errorf("%s: waited %v ms", name, waited)
		}
		told := ""
		if !reads {
			told = fmt.Sprintf(`freeagent-proxy; received-status=%d; details="FreeAgent's gateway answered; %s"`, status, mayHaveActed)
		}
		equal(t, name+": Proxy-Status", got.header.Get("Proxy-Status"), told)
	})
	for _, method := range []string{"GET", "HEAD"} { // Go's transport keeps no connection on which it takes 50 ms to learn that it has written
		if _, ok := kept.Load(method); !ok {
			t.Errorf("%s: no answer was read to its end, so that its connection could serve again", method)
		}
	}
}

// Other answers are the client's at once.
func TestOtherErrorsAreNotRepeated(t *testing.T) {
	for _, status := range []int{400, 404, 408, 422, 500, 501, 505, 520, 529} {
		for _, method := range []string{"GET", "POST"} {
			r, u := withUpstream(t, always(reply(status, "no")))
			r.do(method, "/v2/invoices", "").passed(t, status, "no")
			u.only()
		}
	}
}

// Retry-After is waited for if the client may wait so long; else, or if there is no permit, it gets the answer that there is.
func TestGatewayTroubleWithinPatience(t *testing.T) {
	t.Parallel()
	one := []limiter.Window{{Requests: 1, Per: time.Minute}}
	type outcome struct {
		retryAfter, prefer string
		windows            []limiter.Window
		sent               int
		least              time.Duration
	}
	together([]outcome{
		{"1", "", ample, 3, 2 * time.Second},
		{"30", "", ample, 1, 0},
		{"soon", "", ample, 1, 0},
		{"", "Prefer: wait=0", ample, 1, 0},
		{"2", "Prefer: wait=1", ample, 1, 0},
		{"", "", one, 1, 0},
	}, func(c outcome) {
		r, u := withUpstream(t, func(q *received) bool {
			q.read()
			return q.write(reply(503, fmt.Sprint("down ", q.nth), "Retry-After: "+c.retryAfter))
		}, api(c.windows...))
		if c.retryAfter == "" {
			r, u = withUpstream(t, func(q *received) bool { q.read(); return q.write(reply(503, fmt.Sprint("down ", q.nth))) }, api(c.windows...))
		}
		began := time.Now()
		r.get("/v2/company", c.prefer+"\r\nX-Other: 1").passed(t, 503, fmt.Sprint("down ", c.sent))
		if took := time.Since(began); took < c.least || took > c.least+15*time.Second {
			t.Errorf("%+v: took %s", c, took)
		}
		equal(t, fmt.Sprintf("%+v: upstream", c), len(u.all()), c.sent)
		equal(t, fmt.Sprintf("%+v: permits", c), r.taken(c.windows), c.sent)
	})
}

// Who leaves meanwhile takes no more permits, and who shuts down waits no more.
func TestGatewayTroubleEnds(t *testing.T) {
	for _, leaves := range []bool{true, false} {
		r, u := withUpstream(t, always(reply(503, "down", "Retry-After: 15")))
		c := r.dial().send(r.request("GET", "/v2/company", ""))
		soon(t, "upstream", func() bool { return len(u.all()) == 1 })
		if leaves {
			_ = c.Close()
			equal(t, "status", r.logged(1)["status"], 499.0)
		} else {
			r.proxy.Drain()
			c.answer("GET").passed(t, 503, "down")
		}
		u.only()
	}
}

// At the simulator: faults that pass are not seen by who reads, and a write arrives once.
func TestFaultsThatPass(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		for _, status := range gatewayTroubles {
			r, sim := withSimulator(t, simulator.Config{})
			for _, method := range []string{"GET", "POST"} {
				if _, err := sim.Fault(simulator.Fault{Kind: simulator.FaultStatus, Status: status, After: after, Match: simulator.Match{Method: method, Times: 2}}); err != nil {
					t.Fatal(err)
				}
			}
			equal(t, "GET", r.get("/v2/contacts").status, 200)
			equal(t, "GETs that arrived", len(sim.Requests(0)), 3)
			equal(t, "POST", r.do("POST", "/v2/contacts", `{"contact":{"organisation_name":"A"}}`, "Content-Type: application/json").status, status)
			equal(t, "POSTs that arrived", len(sim.Requests(0)), 4)
			equal(t, "duplicates", sim.Stats().Writes.Duplicates, 0)
		}
	}
}

// FreeAgent closes an idle connection at the moment in which a write is sent on it. It arrives once, or its client is told
// that it may have; of which not a byte has left it is sent again.
func TestIdleCloseMeetsWrite(t *testing.T) {
	t.Parallel()
	for round := range 100 {
		closeNow := make(chan struct{})
		r, u := idleCloser(t, closeNow)
		r.get("/v2/company").passed(t, 200, fine)
		c := r.dial()
		request := r.request("POST", "/v2/invoices", "{}")
		if round%2 == 0 {
			close(closeNow)
			c.send(request)
		} else {
			c.send(request)
			close(closeNow)
		}
		got := c.answer("POST")
		writes := slices.DeleteFunc(u.all(), func(q *received) bool { return q.method != "POST" })
		switch {
		case got.status == 200 && len(writes) == 1:
		case got.status == 502 && strings.Contains(got.body, mayHaveActed) && len(writes) <= 1:
		default:
			t.Fatalf("round %d: %d %s; %d writes upstream", round, got.status, got.body, len(writes))
		}
		if taken := r.taken(ample); taken != 2 {
			t.Fatalf("round %d: %d permits, want 2", round, taken)
		}
	}
}

// idleCloser answers, and closes its first connection when it is told to.
func idleCloser(t *testing.T, closeNow <-chan struct{}) (*rig, *upstream) {
	return withUpstream(t, func(q *received) bool {
		q.read()
		if q.nth > 1 {
			return q.write(reply(200, fine))
		}
		q.write(reply(200, fine))
		q.wait(closeNow)
		return false
	})
}

// Where nobody listens for a moment, what was not sent is sent again: any method, within the client's patience.
func TestConnectsAgain(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "POST", "DELETE"} {
		listener, err := net.Listen("tcp", "127.0.4.1:0") // where nobody else takes the port meanwhile
		if err != nil {
			t.Fatal(err)
		}
		address := listener.Addr().String()
		_ = listener.Close()
		r := newRig(t, "http://"+address)
		r.grant(accessToken, refreshToken, time.Hour)
		again := make(chan struct{})
		proxy.WrapTransport(r.proxy, func(t http.RoundTripper) http.RoundTripper { return &secondTime{RoundTripper: t, wait: again} })
		c := r.dial().send(r.request(method, "/v2/invoices/1", ""))
		soon(t, "nobody listened", func() bool { return len(r.log.lines("attempt ended")) == 1 })
		if listener, err = net.Listen("tcp", address); err != nil {
			t.Fatal(err)
		}
		close(again)
		served := make(chan struct{})
		go func() {
			defer close(served)
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = conn.Read(make([]byte, 4<<10))
			_, _ = io.WriteString(conn, reply(200, fine))
		}()
		c.answer(method).passed(t, 200, fine)
		equal(t, "permits", r.taken(ample), 1)
		_ = listener.Close()
		<-served
	}
}

// secondTime lets who comes a second time wait.
type secondTime struct {
	http.RoundTripper
	times atomic.Int32
	wait  <-chan struct{}
}

func (s *secondTime) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.times.Add(1) > 1 {
		<-s.wait
	}
	return s.RoundTripper.RoundTrip(r)
}

// HTTP/2 is not offered to FreeAgent: on a connection with several requests nobody would know which of them were done when it ends.
func TestSpeaksHTTP1Upstream(t *testing.T) {
	offered := make(chan []string, 10)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			offered <- hello.SupportedProtos
			return nil, io.EOF
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	defer func() { _ = listener.Close(); <-served }()
	r := newRig(t, "https://"+listener.Addr().String())
	r.grant(accessToken, refreshToken, time.Hour)
	r.do("POST", "/v2/invoices", "{}").refused(t, 502, "nothing was sent")
	if got := <-offered; slices.Contains(got, "h2") {
		t.Errorf("offers %q", got)
	}
}

// Writes that are under way are known by name, until they have an answer.
func TestUnfinished(t *testing.T) {
	answer := make(chan struct{})
	r, u := withUpstream(t, func(q *received) bool {
		q.read()
		q.wait(answer)
		return q.write(reply(201, fine))
	})
	write := r.dial().send(r.request("POST", "/v2/invoices?secret=1", "{}", "X-Request-Id: the-write"))
	read := r.dial().send(r.request("GET", "/v2/invoices", ""))
	soon(t, "both upstream", func() bool { return len(u.all()) == 2 })
	all := r.proxy.Unfinished()
	if len(all) != 1 {
		t.Fatalf("%+v, want the write alone", all)
	}
	got := all[0]
	equal(t, "unfinished", fmt.Sprint(got.RequestID, got.Client, got.Account, got.Method, got.Path), fmt.Sprint("the-write", "anonymous", account, "POST", "/v2/invoices"))
	_ = write.Close() // its client's leaving ends nothing
	r.sawEnd()
	equal(t, "unfinished", len(r.proxy.Unfinished()), 1)
	close(answer)
	read.answer("GET").passed(t, 201, fine)
	r.logged(2)
	equal(t, "unfinished", len(r.proxy.Unfinished()), 0)
	for _, line := range r.log.lines("request") {
		if line["method"] == "POST" {
			equal(t, "request id", line["request_id"], "the-write")
			equal(t, "status", line["status"], 201.0)
			equal(t, "reason", line["reason"], "client had left, or closed its half of the connection, before the answer")
		}
	}
}
