package simulator_test

import (
	"bufio"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

// A GOAWAY tells a client in HTTP/2 whether FreeAgent acted: Go's sends again what it did not act on, and nothing else. In
// HTTP/1.1 the connection just ends.
func TestGoAway(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	server, err := s.StartTLS("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Root())
	for _, c := range []struct {
		name         string
		http2, after bool
		status       int // 0: no answer
		arrived      int
		acted        int64
	}{
		{"HTTP/2, before", true, false, 201, 2, 1},
		{"HTTP/2, after", true, true, 0, 1, 1},
		{"HTTP/1.1, before", false, false, 0, 1, 0},
		{"HTTP/1.1, after", false, true, 0, 1, 1},
	} {
		s.ResetStats()
		s.arm(simulator.Fault{Kind: simulator.FaultGoAway, After: c.after, Match: simulator.Match{Method: "POST", Times: 1}})
		protocols := &http.Protocols{}
		protocols.SetHTTP1(!c.http2)
		protocols.SetHTTP2(c.http2)
		transport := &http.Transport{Protocols: protocols, TLSClientConfig: tlsConfig(roots)}
		before := len(s.Requests(0))
		status := 0
		for _, method := range []string{"GET", "POST"} { // the second on a connection in use
			status = 0
			r, err := http.NewRequest(method, server.URL()+"/v2/contacts", strings.NewReader(`{"first_name":"`+c.name+`"}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+s.token)
			if resp, err := transport.RoundTrip(r); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				status = resp.StatusCode
			}
		}
		transport.CloseIdleConnections()
		equal(t, c.name+": status", status, c.status)
		equal(t, c.name+": arrived", len(s.Requests(0))-before, 1+c.arrived)
		equal(t, c.name+": acted", s.Stats().Writes.Acted, c.acted)
		s.ClearFaults()
	}
}

// An idle connection is reset without notice, some time after an answer that was whole.
func TestIdleClose(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	const delay = time.Second // longer than the answer needs to leave
	s.arm(simulator.Fault{Kind: simulator.FaultIdleClose, Delay: simulator.Duration(delay)})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	if _, err := io.WriteString(conn, "GET /v2/company HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+s.token+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || resp.Close || len(body) == 0 {
		t.Errorf("%d %q, closes %v, %v", resp.StatusCode, body, resp.Close, err)
	}
	if _, err := reader.ReadByte(); !errors.Is(err, syscall.ECONNRESET) || time.Since(began) < delay {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

// Of a HEAD the header is cut: after a whole one the connection would be as good as ever.
func TestResetCutsTheHeader(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	s.arm(simulator.Fault{Kind: simulator.FaultReset, Match: simulator.Match{Method: "HEAD"}})
	s.client.Transport.(*http.Transport).DisableKeepAlives = true // or Go's client asks again
	if got, err := s.try("HEAD", "/v2/company", ""); err == nil {
		t.Errorf("answered %d", got.StatusCode)
	}
	s.must(200, "GET", "/v2/company", "")
}
