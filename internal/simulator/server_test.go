package simulator_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

func TestTLSAndHTTP2(t *testing.T) {
	s := simulator.New(simulator.Config{})
	plain, err := s.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	secure, err := s.StartTLS("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer secure.Close()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Root())
	for name, test := range map[string]struct {
		url, proto string
		protocols  func(*http.Protocols)
	}{
		"h1":     {plain.URL(), "HTTP/1.1", func(p *http.Protocols) { p.SetHTTP1(true) }},
		"h2c":    {plain.URL(), "HTTP/2.0", func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }},
		"tls h1": {secure.URL(), "HTTP/1.1", func(p *http.Protocols) { p.SetHTTP1(true) }},
		"tls h2": {secure.URL(), "HTTP/2.0", func(p *http.Protocols) { p.SetHTTP2(true) }},
	} {
		t.Run(name, func(t *testing.T) {
			protocols := &http.Protocols{}
			test.protocols(protocols)
			transport := &http.Transport{Protocols: protocols, TLSClientConfig: tlsConfig(roots)}
			defer transport.CloseIdleConnections()
			r, err := http.NewRequest("GET", test.url+"/v2/company", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+s.AccessToken(""))
			resp, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			equal(t, fmt.Sprint("protocol ", err), resp.Proto, test.proto)
			equal(t, "url", strings.HasPrefix(string(body), `{"company":{"url":"`+test.url+`/`), true)
		})
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	s := simulator.New(simulator.Config{})
	server, err := s.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []simulator.Fault{
		{Kind: simulator.FaultStall, Match: simulator.Match{PathPrefix: "/v2/company"}},
		{Kind: simulator.FaultLatency, Delay: simulator.Duration(time.Hour), Match: simulator.Match{PathPrefix: "/v2/users"}},
	} {
		if _, err := s.Fault(f); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, path := range []string{"/v2/company", "/v2/users/me"} {
		wg.Go(func() {
			if resp, err := client.Get(server.URL() + path); err == nil {
				resp.Body.Close()
				t.Error("answered")
			}
		})
	}
	wait(t, func() bool { return s.Stats().InFlight == 2 })
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	equal(t, "in flight after Close", s.Stats().InFlight, 0)
	wg.Wait()
	if _, err := s.Start("256.0.0.1:0"); err == nil {
		t.Error("started on an address that cannot be")
	}
}

// TestManyConnections: 1,000 connections at once, half of them posting, with
// faults and tokens changing underneath: every request is counted, every hash is right.
func TestManyConnections(t *testing.T) {
	const connections, rounds = 1000, 2
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff, RequestLog: connections * rounds})
	s.client.Transport.(*http.Transport).MaxIdleConnsPerHost = connections
	var gate, wg sync.WaitGroup
	gate.Add(1)
	for i := range connections {
		wg.Go(func() {
			gate.Wait()
			for round := range rounds {
				body, want := "", 200
				if i%2 == 0 {
					body, want = fmt.Sprintf(`{"first_name":"%d of %d %s"}`, round, i, strings.Repeat("x", i*20)), 201
				}
				method := map[int]string{200: "GET", 201: "POST"}[want]
				a, err := s.try(method, "/v2/contacts?per_page=1", body)
				if err != nil || a.StatusCode != want {
					t.Errorf("%s: %v %v", method, err, a.Response)
					return
				}
			}
		})
	}
	wg.Go(func() {
		gate.Wait()
		for range 10 {
			s.RevokeAccess("nobody")
			s.Stats()
			s.Requests(0)
			cfg := s.Config()
			if err := s.Configure(cfg); err != nil {
				t.Error(err)
			}
		}
	})
	gate.Done()
	wg.Wait()
	stats := s.Stats()
	equal(t, "requests", stats.Requests, connections*rounds)
	equal(t, "of the user", stats.Users[0].Requests, connections*rounds)
	equal(t, "acted", stats.Writes.Acted, connections*rounds/2)
	equal(t, "duplicates", stats.Writes.Duplicates, 0)
	equal(t, "in flight", stats.InFlight, 0)
	hashes := map[string]bool{}
	for _, r := range s.Requests(0) {
		hashes[r.BodySHA256] = true
	}
	for i := 0; i < connections; i += 2 {
		for round := range rounds {
			sum := sha256.Sum256([]byte(fmt.Sprintf(`{"first_name":"%d of %d %s"}`, round, i, strings.Repeat("x", i*20))))
			if !hashes[hex.EncodeToString(sum[:])] {
				t.Fatalf("body %d of %d did not arrive whole", round, i)
			}
		}
	}
}

// BenchmarkGet is one small GET over 64 connections, client included.
func BenchmarkGet(b *testing.B) {
	s := simulator.New(simulator.Config{Enforcement: simulator.EnforceOff})
	server, err := s.Start("127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	defer transport.CloseIdleConnections()
	token := s.AccessToken("")
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := http.NewRequest("GET", server.URL()+"/v2/users/me", nil)
			if err != nil {
				b.Error(err)
				return
			}
			r.Header.Set("Authorization", "Bearer "+token)
			resp, err := transport.RoundTrip(r)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
				b.Error(resp.StatusCode, err)
			}
			resp.Body.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}
