package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

// newCrowded is a world whose proxy takes few connections, and lets none of them make no progress for so long.
func newCrowded(t *testing.T, most int, timeout time.Duration) (w *world, p *process, address string) {
	w = newSimulated(t, simNoLimits, "")
	w.configure(fmt.Sprintf("%s, timeout: %s", w.simURL, timeout), fmt.Sprintf("listen: 127.0.0.1:0\nmax_connections: %d\nstore: {file: store}\n%s", most, noLimits))
	w.authorise(w.sim.Authorize("owner"))
	p, url := w.serve()
	return w, p, strings.TrimPrefix(url, "http://")
}

var keepAlive = lines("GET /v2/company HTTP/1.1", "Host: localhost")

// At the bound nobody is turned away: who comes later is served when one of the others has its answer.
func TestMaxConnections(t *testing.T) {
	t.Parallel()
	const most, more = 3, 4
	w, p, address := newCrowded(t, most, patience)
	slowness := 500 * time.Millisecond
	if _, err := w.sim.Fault(simulator.Fault{Kind: simulator.FaultLatency, Delay: simulator.Duration(slowness)}); err != nil {
		t.Fatal(err)
	}
	var all []*wire
	for range most + more {
		all = append(all, dial(t, address).send(keepAlive))
	}
	for i, c := range all {
		if resp, _ := c.answer(http.MethodGet); resp.StatusCode != http.StatusOK {
			t.Errorf("connection %d got %s, want 200", i, resp.Status)
		}
	}
	arrived := w.arrivals()
	for i := most; i < len(arrived); i++ {
		if between := arrived[i].Time.Sub(arrived[i-most].Time); between < slowness {
			t.Errorf("request %d reached FreeAgent %s after the one %d before it, so %d were open", i, between, most, most+1)
		}
	}
	if got := strings.Count(p.stderr.String(), "as many connections are open as may be"); got != 1 {
		t.Errorf("the log says it %d times, want once; stderr: %s", got, &p.stderr)
	}
}

// Connections that only wait for their next request make room at once, and are kept while there is some.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	_, _, address := newCrowded(t, 3, patience)
	first := dial(t, address)
	for range 3 {
		if resp, _ := first.send(keepAlive).answer(http.MethodGet); resp.StatusCode != http.StatusOK || resp.Close {
			t.Fatalf("the only connection got %s, closes: %v", resp.Status, resp.Close)
		}
	}
	for i := range 50 {
		if resp, _ := dial(t, address).send(keepAlive).answer(http.MethodGet); resp.StatusCode != http.StatusOK {
			t.Fatalf("connection %d got %s", i, resp.Status)
		}
	}
}

// A connection that has ended makes room, in whichever way it spoke.
func TestEndedConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	_, _, address := newCrowded(t, 2, patience)
	for i := range 6 {
		client := newHTTP2(t, new(atomic.Bool))
		resp, err := client.Get("http://" + address + "/v2/company")
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("client %d: got %v %v", i, resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		client.CloseIdleConnections()
		_ = dial(t, address).send("no HTTP at all\r\n\r\n").rest()
	}
}

// Who never ends a header, or never begins one, holds a connection for 10 s and no longer; programs wait so long at most.
func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	const most = 4
	_, _, address := newCrowded(t, most, patience)
	began := time.Now()
	var slow []*wire
	for i := range most {
		c := dial(t, address)
		if i%2 == 0 {
			c.send("GET /v2/company HTTP/1.1\r\nHost: localhost\r\n")
			go dribble(c)
		}
		slow = append(slow, c)
	}
	if resp, _ := dial(t, address).send(keepAlive).answer(http.MethodGet); resp.StatusCode != http.StatusOK {
		t.Errorf("a program got %s, want 200", resp.Status)
	}
	for _, c := range slow {
		if got := c.rest(); strings.HasPrefix(got, "HTTP/1.1 2") {
			t.Errorf("an unfinished request got %q", got)
		}
	}
	if took := time.Since(began); took > 2*headerPatience {
		t.Errorf("all were gone after %s, want %s", took, headerPatience)
	}
}

// dribble sends header lines as slowly as it can, as long as somebody takes them.
func dribble(c *wire) {
	for i := 0; ; i++ {
		if _, err := fmt.Fprintf(c.Conn, "X-%d: x\r\n", i); err != nil {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// A header of more than 64 KB is 431, a body that stops coming 408; an answer that nobody takes is cut off.
func TestSlowAndLarge(t *testing.T) {
	t.Parallel()
	w, _, address := newCrowded(t, 100, time.Second)
	resp, _ := dial(t, address).send(lines("GET /v2/company HTTP/1.1", "Host: localhost", "X-Long: "+strings.Repeat("x", 80<<10))).answer(http.MethodGet)
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge || !resp.Close {
		t.Errorf("a long header got %s", resp.Status)
	}
	resp, _ = dial(t, address).send(lines("POST /v2/contacts HTTP/1.1", "Host: localhost", "Content-Length: 100") + "half").answer(http.MethodPost)
	if resp.StatusCode != http.StatusRequestTimeout || !resp.Close {
		t.Errorf("half a body got %s", resp.Status)
	}
	if got := len(w.arrivals()); got != 0 {
		t.Fatalf("FreeAgent saw %d requests", got)
	}
	lazy := dial(t, address).send(lines("GET /v2/_sim_stream?bytes=1073741824 HTTP/1.1", "Host: localhost"))
	eventually(t, "FreeAgent's answer was cut off", func() bool { return w.sim.Stats().InFlight == 0 && len(w.arrivals()) == 1 })
	if n, _ := io.Copy(io.Discard, lazy.in); n >= 1<<30 {
		t.Error("all of the answer came")
	}
}

// Who takes an answer slowly, but never stops, is not cut off, however much of it the system would hold.
func TestSlowAndSteady(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	w, p, address := newCrowded(t, 100, timeout)
	for steady := false; !steady; { // one who was not given the machine for so long did stop, and another one tries
		slow := dial(t, address)
		_ = slow.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		slow.send(lines("GET /v2/_sim_stream?bytes=1073741824 HTTP/1.1", "Host: localhost"))
		began := time.Now()
		last, err := began, error(nil)
		steady = true
		for piece := make([]byte, 8<<10); err == nil && steady && time.Since(began) < 4*timeout; time.Sleep(20 * time.Millisecond) {
			_, err = io.ReadFull(slow.Conn, piece)
			steady = time.Since(last) < timeout/2
			last = time.Now()
		}
		if cut := err != nil || w.sim.Stats().InFlight != 1; cut && steady {
			t.Errorf("it was cut off: %v; %s", err, &p.stderr)
		}
		_ = slow.Close()
		eventually(t, "its end", func() bool { return w.sim.Stats().InFlight == 0 })
	}
}

// Open files are shared out among listeners, not among clients.
func TestListeners(t *testing.T) {
	three := inheritedSockets{count: "3"}
	for _, c := range []struct {
		cfg  Config
		want int
	}{
		{Config{Listen: []string{"127.0.0.1:0"}}, 1},
		{Config{Listen: []string{"127.0.0.1:0", "unix:/s"}, Inherited: three}, 2},
		{Config{Listen: []string{"systemd"}, Inherited: three}, 3},
		{Config{Listen: []string{"systemd:a", "127.0.0.1:0"}, Inherited: three}, 4},
		{Config{Listen: []string{"127.0.0.1:0"}, Clients: map[string]ClientConfig{"a": {Listen: "unix:/a"}, "b": {CIDRs: []string{"10.0.0.1"}}}}, 2},
	} {
		if got := c.cfg.listeners(); got != c.want {
			t.Errorf("%v: got %d, want %d", c.cfg, got, c.want)
		}
	}
}
