package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
)

// hexDigest is a key as the configuration has it.
func hexDigest(key string) string {
	digest := sha256.Sum256([]byte(key))
	return hex.EncodeToString(digest[:])
}

// call sends a request with these header lines; it is closed behind it.
func call(t *testing.T, client *http.Client, method, url string, headers ...string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	resp, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// dialling makes a client that connects to the address, whatever the URL says, from another one of this machine if told to.
func dialling(t *testing.T, network, address, from string) *http.Client {
	dialer := new(net.Dialer)
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, address)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 2 * patience}
}

// Each program gets what its policy gives it, by the whole way from its socket to FreeAgent.
func TestClients(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, "")
	config := fmt.Sprintf(`listen: 127.0.0.1:0
store: {file: store}
trusted_proxies: 127.0.0.9
clients:
  billing: {key_sha256: %s}
  reports: {cidrs: 127.0.0.2, read_only: true, paths: [/v2/contacts, /v2/invoices/*/pdf]}
  legacy: {listen: unix:legacy.sock, methods: [GET, POST], subdomain: client-one}
  old: {listen: 127.0.0.1:0, accounts: acme}
%s`, hexDigest(mark+"-key"), noLimits)
	w.configure(w.simURL, config)
	w.authorise(w.sim.Authorize("practice"))
	p := w.start("serve")
	addresses, err := p.listening()
	if err != nil {
		t.Fatal(err)
	}
	main, own := addresses[0], addresses[2]
	stranger, reports := dialling(t, "tcp", main, ""), dialling(t, "tcp", main, "127.0.0.2")
	front := dialling(t, "tcp", main, "127.0.0.9")
	legacy, old := dialling(t, "unix", filepath.Join(w.folder, addresses[1]), ""), dialling(t, "tcp", own, "")
	const key = "Authorization: Bearer " + mark + "-key"
	for _, c := range []struct {
		who       *http.Client
		request   string
		headers   []string
		status    int // of a refusal; 0: FreeAgent answers
		says      string
		subdomain string // that FreeAgent saw
	}{
		{stranger, "GET /v2/practice", nil, 401, "none of the proxy's clients", ""},
		{stranger, "GET /v2/practice", []string{"X-Api-Key: " + mark}, 401, "no client's", ""},
		{stranger, "GET /v2/practice", []string{"X-Forwarded-For: 127.0.0.2"}, 401, "none of the proxy's clients", ""},
		{stranger, "GET /v2/practice", []string{key}, 0, "", ""},
		{stranger, "DELETE /v2/contacts/1", []string{key, "X-Subdomain: two"}, 0, "", "two"},
		{stranger, "GET /v2/practice", []string{key, "Origin: http://evil.example"}, 403, "web page", ""},
		{reports, "GET /v2/contacts", []string{"X-Subdomain: two"}, 0, "", "two"},
		{reports, "GET /v2/invoices/7/pdf", []string{"X-Subdomain: two"}, 0, "", "two"},
		{reports, "GET /v2/invoices/7", nil, 403, `client \"reports\" may not use this path (paths)`, ""},
		{reports, "POST /v2/contacts", nil, 403, `client \"reports\" may only read (read_only)`, ""},
		{front, "GET /v2/contacts", []string{"X-Forwarded-For: 127.0.0.2", "X-Subdomain: two"}, 0, "", "two"},
		{front, "GET /v2/practice", []string{"Forwarded: for=127.0.0.2"}, 403, "(paths)", ""},
		{front, "GET /v2/practice", nil, 401, "none of the proxy's clients", ""},
		{legacy, "GET /v2/contacts", nil, 0, "", "client-one"},
		{legacy, "POST /v2/contacts", []string{"X-Subdomain: Client-One"}, 0, "", "client-one"},
		{legacy, "GET /v2/contacts", []string{"X-Subdomain: two"}, 403, `client \"legacy\" may use no subdomain but its own (subdomain)`, ""},
		{legacy, "DELETE /v2/contacts/1", nil, 403, `client \"legacy\" may not use DELETE (methods)`, ""},
		{legacy, "GET /v2/contacts", []string{key, "X-Subdomain: two"}, 0, "", "two"}, // billing, whose key it is
		{old, "GET /v2/practice", nil, 0, "", ""},
		{old, "GET /accounts/other/v2/practice", nil, 403, `client \"old\" may use no account of this name (accounts)`, ""},
	} {
		method, path, _ := strings.Cut(c.request, " ")
		before := len(w.arrivals())
		status, body := call(t, c.who, method, "http://localhost"+path, c.headers...)
		arrived := w.arrivals()[before:]
		name := fmt.Sprintf("%s %q", c.request, c.headers)
		if c.status != 0 {
			if status != c.status || !strings.Contains(body, c.says) || len(arrived) > 0 {
				t.Errorf("%s: got %d %s, and FreeAgent %d requests; want %d with %q", name, status, body, len(arrived), c.status, c.says)
			}
			continue
		}
		if len(arrived) != 1 || strings.Join(arrived[0].Header["X-Subdomain"], ",") != c.subdomain {
			t.Errorf("%s: got %d %s, and FreeAgent got %+v; want subdomain %q", name, status, body, arrived, c.subdomain)
		}
	}
}

// A share holds over all replicas, in one budget beside that which they all use.
func TestShareOverReplicas(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	const per, guard, share, windows = time.Second, time.Second, 16, 4
	settings := fmt.Sprintf(`limits: {api: [{requests: 20, per: %s}], guard: %s, max_wait: 1m}
clients:
  nightly: {key_sha256: %s, share: 0.8}
  billing: {key_sha256: %s}
`, per, guard, hexDigest("nightly"), hexDigest("billing"))
	f := newFleet(t, 2, simNoLimits, "redis://"+server.Addr(), settings)
	for _, r := range f.members {
		f.watch(t.Context(), r)
	}
	client := f.world.client(false)
	var asking sync.WaitGroup
	for i := range windows * share {
		asking.Go(func() {
			status, body := call(t, client, "GET", f.members[i%2].url+"/v2/contacts?nightly", "X-Api-Key: nightly")
			if status != http.StatusOK {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	asking.Wait()
	var at []time.Time
	for _, r := range f.arrivals() {
		if strings.HasSuffix(r.Target, "?nightly") {
			at = append(at, r.Time)
		}
	}
	for i, from := range at {
		n := 0
		for _, t := range at[i:] {
			if t.Sub(from) < per {
				n++
			}
		}
		if n > share {
			t.Fatalf("FreeAgent saw %d of nightly's requests within %s, want at most %d", n, per, share)
		}
	}
	// It had all of its share, or nearly so, while nobody else asked.
	from, to := at[0], at[len(at)-1]
	lost := f.lost(from, to)
	if took := to.Sub(from) - lost; took > (windows+1)*(per+guard) && !f.lostRedis() {
		t.Errorf("%d requests took %v, and %v that the machine was too busy", len(at), took, lost)
	}
}
