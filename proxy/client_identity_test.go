package proxy_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/proxy"
)

// clients are named, with the policy of the tests' configuration where they say nothing else.
func clients(named ...proxy.Client) func(*proxy.Config) {
	return func(c *proxy.Config) {
		for _, n := range named {
			n.MaxWait, n.Weight = max(n.MaxWait, time.Second), 1
			c.Clients = append(c.Clients, n)
		}
	}
}

func trusted(networks ...string) func(*proxy.Config) {
	return func(c *proxy.Config) { c.TrustedProxies = prefixes(networks...) }
}

func prefixes(texts ...string) (made []netip.Prefix) {
	for _, text := range texts {
		made = append(made, netip.MustParsePrefix(text))
	}
	return made
}

func digestsOf(keys ...string) (digests [][sha256.Size]byte) {
	for _, key := range keys {
		digests = append(digests, sha256.Sum256([]byte(key)))
	}
	return digests
}

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// from asks from another address of this machine.
func (r *rig) from(local, request string) *answer {
	r.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}
	conn, err := dialer.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := &client{t: r.t, TCPConn: conn.(*net.TCPConn), in: bufio.NewReader(conn)}
	return c.send(request).answer("GET")
}

// A client is known by its key, in three places, and by where it calls from. No key goes on to FreeAgent.
func TestIdentity(t *testing.T) {
	r, u := withUpstream(t, well, clients(
		proxy.Client{Name: "billing", Keys: digestsOf("MARKED-key", "MARKED-next")},
		proxy.Client{Name: "shop", Keys: digestsOf("MARKED:with:colons")},
		proxy.Client{Name: "net", Networks: prefixes("127.0.2.0/24")},
		proxy.Client{Name: "wide", Networks: prefixes("127.0.2.0/23")},
		proxy.Client{Name: "host", Networks: prefixes("127.0.2.7/32")},
	))
	const nobody = "127.0.0.1"
	cases := []struct {
		from    string
		headers []string
		want    string // "": 401
	}{
		{nobody, nil, ""},
		{nobody, []string{"Authorization: Bearer MARKED-key"}, "billing"},
		{nobody, []string{"authorization: bearer  MARKED-next "}, "billing"},
		{nobody, []string{basic("whoever", "MARKED-key")}, "billing"},
		{nobody, []string{basic("", "MARKED-key")}, "billing"},
		{nobody, []string{strings.TrimRight(basic("a", "MARKED-next"), "=")}, "billing"},
		{nobody, []string{basic("a", "MARKED:with:colons")}, "shop"},
		{nobody, []string{"X-Api-Key: MARKED-key"}, "billing"},
		{nobody, []string{"X-Api-Key: MARKED-key", "Authorization: Bearer MARKED:with:colons"}, "billing"},
		{nobody, []string{"X-Api-Key:", "Authorization: Bearer MARKED-key"}, "billing"},
		{nobody, []string{"Authorization: Bearer marked-key"}, ""},
		{nobody, []string{"Authorization: Bearer"}, ""},
		{nobody, []string{"Authorization: Basic"}, ""},
		{nobody, []string{"Authorization: Basic !!!"}, ""},
		{nobody, []string{basic("MARKED-key", "")}, ""},
		{nobody, []string{"Authorization: MARKED-key"}, ""},
		{nobody, []string{"Authorization: Digest MARKED-key"}, ""},
		{nobody, []string{"Authorization: Bearer 73475cb40a568e8da8a045ced110137e159f890ac4da883b6b17dc651b3a8049"}, ""},
		{"127.0.2.9", nil, "net"},
		{"127.0.2.7", nil, "host"},
		{"127.0.3.1", nil, "wide"},
		{"127.0.4.1", nil, ""},
		{"127.0.2.9", []string{"Authorization: Bearer left-over"}, "net"},
		{"127.0.2.9", []string{basic("left", "over")}, "net"},
		{"127.0.2.9", []string{"Authorization: Bearer MARKED-key"}, "billing"},
		{"127.0.2.9", []string{"X-Api-Key: unknown"}, ""},
		{"127.0.2.9", []string{"X-Api-Key: unknown", "Authorization: Bearer MARKED-key"}, ""},
		{nobody, []string{"X-Forwarded-For: 127.0.2.7", "Forwarded: for=127.0.2.7"}, ""},
	}
	passed := 0
	for i, c := range cases {
		got := r.from(c.from, r.request("GET", "/v2/company", "", c.headers...))
		if equal(t, "client of "+strings.Join(c.headers, ", "), r.logged(i + 1)["client"], any(c.want)); c.want != "" {
			passed++
			got.passed(t, 200, fine)
			continue
		}
		got.refused(t, 401, "in X-Api-Key")
		equal(t, "WWW-Authenticate", got.header.Get("WWW-Authenticate"), `Basic realm="freeagent-proxy"`)
	}
	equal(t, "upstream", len(u.all()), passed)
	for _, q := range u.all() {
		if strings.Contains(q.head, "MARKED") || strings.Contains(q.head, "left") || strings.Contains(strings.ToLower(q.head), "api-key") {
			t.Errorf("a client's credential went upstream: %q", q.head)
		}
	}
	if strings.Contains(r.log.String(), "MARKED") {
		t.Error("a key is in the log")
	}
}

// Without clients a key is nobody's, and does no harm.
func TestKeysWithoutClients(t *testing.T) {
	r, _ := withUpstream(t, well)
	r.get("/v2/company", "X-Api-Key: unknown").passed(t, 200, fine)
	r.get("/v2/company", "Authorization: Bearer unknown").passed(t, 200, fine)
	equal(t, "client", r.logged(2)["client"], any("anonymous"))
}

// A key opens by whatever name we are called; a web page is kept out, key or not.
func TestKeysAtTheDoor(t *testing.T) {
	r, _ := withUpstream(t, well, clients(
		proxy.Client{Name: "billing", Keys: digestsOf("key")},
		proxy.Client{Name: "local", Networks: prefixes("127.0.0.0/8")},
	))
	const key = "Authorization: Bearer key"
	r.ask(text("GET /v2/company HTTP/1.1", "Host: proxy.example", key)).passed(t, 200, fine)
	r.ask(text("GET /v2/company HTTP/1.1", "Host: proxy.example")).refused(t, 421, "allowed_hosts")
	r.ask(text("GET /v2/company HTTP/1.1", "Host: proxy.example", "Authorization: Bearer other")).refused(t, 421, "allowed_hosts")
	r.get("/v2/company", key, "Sec-Fetch-Site: cross-site").refused(t, 403, "web page")
	r.get("/v2/company", key, "Origin: http://evil.example").refused(t, 403, "web page")
	r.do("TRACE", "/v2/company", "", key).refused(t, 405, "")
	r.get("http://api.freeagent.com/v2/company", key).passed(t, 200, fine)
}

// A proxy in front of us says who calls; nobody else does.
func TestForwarded(t *testing.T) {
	r, _ := withUpstream(t, well, trusted("127.0.0.1/32", "10.9.0.0/16"), clients(
		proxy.Client{Name: "office", Networks: prefixes("10.1.0.0/16", "2001:db8::/32")},
		proxy.Client{Name: "front", Networks: prefixes("127.0.0.1/32")},
		proxy.Client{Name: "inner", Networks: prefixes("10.9.0.0/16")},
	))
	const front = "front" // the connection's own address
	cases := []struct {
		headers []string
		want    string
	}{
		{nil, front},
		{[]string{"X-Forwarded-For: 10.1.2.3"}, "office"},
		{[]string{"X-Forwarded-For: 10.1.2.3:4711"}, "office"},
		{[]string{"X-Forwarded-For: ::ffff:10.1.2.3"}, "office"},
		{[]string{"X-Forwarded-For: 2001:db8::1"}, "office"},
		{[]string{"X-Forwarded-For: [2001:db8::1]:80"}, "office"},
		{[]string{"X-Forwarded-For: 192.0.2.1"}, ""},
		{[]string{"X-Forwarded-For: 10.1.2.3, 192.0.2.1"}, ""},       // what the client made up stands in front
		{[]string{"X-Forwarded-For: 192.0.2.1, 10.1.2.3"}, "office"}, //
		{[]string{"X-Forwarded-For: nonsense, 10.1.2.3, 10.9.1.1"}, "office"},
		{[]string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 10.1.2.3"}, "office"},
		{[]string{"X-Forwarded-For: 10.9.3.3, 10.9.1.1"}, "inner"},
		{[]string{"X-Forwarded-For: 10.1.2.3, nonsense"}, front},
		{[]string{"X-Forwarded-For: 10.1.2.3, "}, front},
		{[]string{"X-Forwarded-For: unknown, 10.9.1.1"}, front},
		{[]string{"X-Forwarded-For:"}, front},
		{[]string{"Forwarded: for=10.1.2.3"}, "office"},
		{[]string{`Forwarded: For="[2001:db8::1]:4711";proto=http;by=10.9.1.1`}, "office"},
		{[]string{`Forwarded: proto=http; for=10.1.2.3, for=10.9.1.1`}, "office"},
		{[]string{`Forwarded: for=10.1.2.3, for=192.0.2.1`}, ""},
		{[]string{`Forwarded: for="10.1.2.3, for=192.0.2.1"`}, front},
		{[]string{`Forwarded: for=10.1.2.3, by=10.9.1.1`}, front},
		{[]string{`Forwarded: for=unknown`}, front},
		{[]string{`Forwarded: for=_hidden, for=10.9.1.1`}, front},
		{[]string{`Forwarded: for="`}, front},
		{[]string{`Forwarded: for=10.1.2.3;x=", for=192.0.2.1`}, front},
		{[]string{`Forwarded: for=10.1.2.3;x=", for="192.0.2.1"`}, front},
		{[]string{`Forwarded: for=10.1.2.3;x="`, `Forwarded: for=192.0.2.1`}, front},
		{[]string{`Forwarded: for=10.1.2.3;x="\"", for=10.9.1.1`}, front},
		{[]string{"Forwarded: for=10.1.2.3", "X-Forwarded-For: 10.1.2.3"}, "office"},
		{[]string{"Forwarded: for=10.1.2.3", "X-Forwarded-For: 192.0.2.1"}, front}, // a front that writes one passes on the other
		{[]string{"Forwarded: for=192.0.2.1", "X-Forwarded-For: 10.1.2.3"}, front},
	}
	for i, c := range cases {
		got := r.get("/v2/company", c.headers...)
		equal(t, "client of "+strings.Join(c.headers, ", "), r.logged(i + 1)["client"], any(c.want))
		if c.want == "" {
			got.refused(t, 401, "")
		}
	}
	got := r.from("127.0.0.5", r.request("GET", "/v2/company", "", "X-Forwarded-For: 10.1.2.3"))
	got.refused(t, 401, "") // not a trusted proxy
}

// A listener of its own makes whoever comes in its client, unless he shows another's key.
func TestListenersOfTheirOwn(t *testing.T) {
	r, _ := withUpstream(t, well, clients(
		proxy.Client{Name: "billing", Keys: digestsOf("key")},
		proxy.Client{Name: "legacy"},
		proxy.Client{Name: "local", Networks: prefixes("127.0.0.0/8")},
	))
	n := 0
	at := func(handler http.Handler, want string, headers ...string) int {
		t.Helper()
		server := httptest.NewServer(handler)
		defer server.Close()
		request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, server.URL+"/v2/company", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, header := range headers {
			name, value, _ := strings.Cut(header, ": ")
			request.Header.Set(name, value)
		}
		resp, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		n++
		equal(t, "client", r.logged(n)["client"], any(want))
		return resp.StatusCode
	}
	equal(t, "its own", at(r.proxy.For("legacy"), "legacy"), 200)
	equal(t, "left over", at(r.proxy.For("legacy"), "legacy", "Authorization: Bearer left-over"), 200)
	equal(t, "another's key", at(r.proxy.For("legacy"), "billing", "Authorization: Bearer key"), 200)
	equal(t, "a wrong key", at(r.proxy.For("legacy"), "", "X-Api-Key: wrong"), 401)
	equal(t, "everyone's", at(r.proxy, "local"), 200)
	equal(t, "the operator's", at(r.proxy.ForOperator(), "operator"), 200)
}

// A verified certificate is as good as a key.
func TestCertificates(t *testing.T) {
	r, _ := withUpstream(t, well, clients(
		proxy.Client{Name: "by-uri", Certificate: "spiffe://corp/billing"},
		proxy.Client{Name: "by-dns", Certificate: "reports.internal"},
		proxy.Client{Name: "by-name", Certificate: "Nightly Feed"},
		proxy.Client{Name: "by-key", Keys: digestsOf("key")},
		proxy.Client{Name: "local", Networks: prefixes("127.0.0.0/8")},
	))
	ca := newAuthority(t)
	server := httptest.NewUnstartedServer(r.proxy)
	server.TLS = &tls.Config{ClientCAs: ca.pool, ClientAuth: tls.VerifyClientCertIfGiven}
	server.StartTLS()
	defer server.Close()
	for i, c := range []struct {
		certificate *x509.Certificate
		key, want   string
	}{
		{nil, "", "local"},
		{&x509.Certificate{Subject: pkix.Name{CommonName: "Nightly Feed"}}, "", "by-name"},
		{&x509.Certificate{Subject: pkix.Name{CommonName: "Nightly Feed"}, DNSNames: []string{"x", "reports.internal"}}, "", "by-dns"},
		{&x509.Certificate{DNSNames: []string{"reports.internal"}, URIs: []*url.URL{mustURL("spiffe://corp/billing")}}, "", "by-uri"},
		{&x509.Certificate{DNSNames: []string{"reports.internal"}}, "key", "by-key"},
		{&x509.Certificate{DNSNames: []string{"reports.internal"}}, "left-over", "by-dns"},
		{&x509.Certificate{Subject: pkix.Name{CommonName: "somebody"}}, "", "local"},
	} {
		transport := server.Client().Transport.(*http.Transport).Clone()
		if c.certificate != nil {
			transport.TLSClientConfig.Certificates = []tls.Certificate{ca.issue(t, c.certificate)}
		}
		request, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, server.URL+"/v2/company", nil)
		if c.key != "" {
			request.Header.Set("Authorization", "Bearer "+c.key)
		}
		if request.Host = "proxy.example"; c.want == "local" {
			request.Host = "localhost" // who shows nothing must know our name
		}
		resp, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		transport.CloseIdleConnections()
		equal(t, "status for "+c.want, resp.StatusCode, 200)
		equal(t, "client", r.logged(i + 1)["client"], any(c.want))
	}
}

// authority is a CA for clients' certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pool        *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	ca := &authority{pool: x509.NewCertPool()}
	made := ca.issue(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	ca.certificate, ca.key = made.Leaf, made.PrivateKey.(*ecdsa.PrivateKey)
	ca.pool.AddCert(ca.certificate)
	return ca
}

// issue signs a certificate; the first one signs itself.
func (ca *authority) issue(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	parent, signer := ca.certificate, ca.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
