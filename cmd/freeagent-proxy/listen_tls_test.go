package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// secured is a world whose proxy speaks TLS.
type secured struct {
	*world
	ca, clients *authority
}

const tlsSettings = "tls: {cert: server.pem, key: server.key, client_ca: clients.pem}\n"

func newSecured(t *testing.T) *secured {
	s := &secured{newSimulated(t, simNoLimits, tlsSettings+noLimits), newAuthority(t, "servers"), newAuthority(t, "clients")}
	s.show("first", 24*time.Hour)
	s.write("clients.pem", s.clients.pem())
	s.authorise(s.sim.Authorize("owner"))
	return s
}

// show renews the proxy's certificate.
func (s *secured) show(name string, life time.Duration) {
	made := s.ca.issue(name, life)
	s.write("server.pem", append(made.cert, s.ca.pem()...))
	s.write("server.key", made.key)
}

func (s *secured) serveTLS() (p *process, address string) {
	p, url := s.serve()
	return p, strings.TrimPrefix(url, "http://")
}

// ask makes one request on a connection of its own.
func (s *secured) ask(address string, config *tls.Config) (*http.Response, error) {
	config.RootCAs = s.ca.pool()
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + address + "/v2/company")
	if err == nil {
		resp.Body.Close()
	}
	return resp, err
}

// shown is the name on the certificate that a new connection gets.
func (s *secured) shown(address string) string {
	s.t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: s.ca.pool()})
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// Programs by TLS speak HTTP/1.1 or HTTP/2, in TLS 1.2 or newer; plain HTTP gets a word, and sockets go on in it.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := newSecured(t)
	_, address := s.serveTLS()
	for proto, config := range map[string]*tls.Config{
		"HTTP/2.0": {},
		"HTTP/1.1": {NextProtos: []string{"http/1.1"}, MaxVersion: tls.VersionTLS12},
	} {
		var resp *http.Response
		var err error
		if proto == "HTTP/1.1" {
			c := over(t, s.tlsConn(address, config)).send(lines("GET /v2/company HTTP/1.1", "Host: "+address))
			resp, _ = c.answer(http.MethodGet)
		} else if resp, err = s.ask(address, config); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK || resp.Proto != proto || resp.Header.Get("Strict-Transport-Security") != "" {
			t.Errorf("got %s %s %v, want %s 200", resp.Proto, resp.Status, resp.Header, proto)
		}
	}
	if _, err := s.ask(address, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was let in")
	}
	if got := dial(t, address).send(lines("GET /v2/company HTTP/1.1", "Host: "+address)).rest(); !strings.HasPrefix(got, "HTTP/1.0 400 ") {
		t.Errorf("plain HTTP got %q, want 400", got)
	}
	resp, _ := dial(t, unixPrefix+s.folder+"/proxy.sock").send(lines("GET /v2/company HTTP/1.1", "Host: localhost")).answer(http.MethodGet)
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the socket got %s, want 200", resp.Status)
	}
	if got := len(s.arrivals()); got != 3 {
		t.Errorf("FreeAgent saw %d requests, want 3", got)
	}
}

func (s *secured) tlsConn(address string, config *tls.Config) *tls.Conn {
	s.t.Helper()
	config.RootCAs = s.ca.pool()
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// A program need not show a certificate; one that does must have it from client_ca, whichever that is now.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	s := newSecured(t)
	p, address := s.serveTLS()
	known, foreign := s.clients.issue("billing", time.Hour), s.ca.issue("billing", time.Hour)
	shows := func(i issued) *tls.Config { // whoever signed it: a Go client holds back what the server did not ask for
		pair := i.pair(t)
		return &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}
	}
	for name, config := range map[string]*tls.Config{"none": {}, "known": shows(known)} {
		if resp, err := s.ask(address, config); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %v %v, want 200", name, resp, err)
		}
	}
	for name, config := range map[string]*tls.Config{"foreign": shows(foreign), "expired": shows(s.clients.issue("billing", -time.Minute))} {
		if _, err := s.ask(address, config); err == nil {
			t.Errorf("%s: was let in", name)
		}
	}
	s.write("clients.pem", s.ca.pem())
	eventually(t, "the other authority counts", func() bool {
		_, err := s.ask(address, shows(foreign))
		return err == nil
	})
	if _, err := s.ask(address, shows(known)); err == nil {
		t.Errorf("the former authority still counts; stderr: %s", &p.stderr)
	}
}

// A client may be known by its certificate alone, by any host name, in HTTP/1.1 and HTTP/2.
func TestClientByCertificate(t *testing.T) {
	t.Parallel()
	s := newSecured(t)
	s.configure(s.simURL, "listen: 127.0.0.1:0\nstore: {file: store}\nclients: {reports: {certificate: billing, read_only: true}}\n"+tlsSettings+noLimits)
	_, address := s.serveTLS()
	for name, want := range map[string]int{"billing": http.StatusOK, "another": http.StatusUnauthorized} {
		for _, protocol := range []string{"http/1.1", "h2"} {
			config := &tls.Config{Certificates: []tls.Certificate{s.clients.issue(name, time.Hour).pair(t)}, RootCAs: s.ca.pool(), NextProtos: []string{protocol}}
			transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: protocol == "h2"}
			client := &http.Client{Transport: transport, Timeout: patience}
			if status, body := call(t, client, http.MethodGet, "https://"+address+"/v2/company"); status != want {
				t.Errorf("%s by %s: %d %s, want %d", name, protocol, status, body, want)
			}
			if status, body := call(t, client, http.MethodPost, "https://"+address+"/v2/contacts"); status < http.StatusUnauthorized {
				t.Errorf("%s by %s may write: %d %s", name, protocol, status, body)
			}
			transport.CloseIdleConnections()
		}
	}
	if got := len(s.arrivals()); got != 2 {
		t.Errorf("FreeAgent saw %d requests, want 2", got)
	}
}

// Certificates are renewed without a restart and without an end to connections. Files that are no pair change nothing.
func TestCertificatesReload(t *testing.T) {
	t.Parallel()
	s := newSecured(t)
	p, address := s.serveTLS()
	request := lines("GET /v2/company HTTP/1.1", "Host: "+address)
	held := over(t, s.tlsConn(address, &tls.Config{}))
	held.send(request).answer(http.MethodGet)
	errors := func() int { return strings.Count(p.stderr.String(), `"changed TLS files cannot be used`) }

	s.write("server.pem", s.ca.issue("half", time.Hour).cert) // its key is missing
	eventually(t, "an error in the log", func() bool {
		if got := s.shown(address); got != "first" {
			t.Fatalf("shows %q, want the former certificate", got)
		}
		return errors() == 1
	})
	s.show("second", time.Hour)
	eventually(t, "the second certificate", func() bool { return s.shown(address) == "second" })
	before := errors() // of the moment between the two files, there may have been another

	s.write("server.key", []byte("no key"))
	eventually(t, "an error in the log", func() bool { return s.shown(address) == "second" && errors() == before+1 })
	for began := time.Now(); time.Since(began) < 3*reloadEvery; time.Sleep(reloadEvery / 4) {
		s.shown(address)
	}
	if got := errors(); got != before+1 {
		t.Errorf("the log has %d errors, want one for each change that cannot be used", got)
	}
	s.show("third", time.Hour)
	eventually(t, "the third certificate", func() bool { return s.shown(address) == "third" })
	if resp, _ := held.send(request).answer(http.MethodGet); resp.StatusCode != http.StatusOK {
		t.Errorf("the connection of before got %s", resp.Status)
	}
}

// check reads the files, warns before the certificate ends, and finds its way to a proxy that speaks TLS.
func TestCheckTLS(t *testing.T) {
	t.Parallel()
	s := newSecured(t)
	check := func(want int, pattern string, args ...string) {
		t.Helper()
		s.expect(want, "", append([]string{"check"}, args...), pattern)
	}
	check(exitOK, `^note: \S*config\.yaml:\d+: tls\.cert: the certificate ends on \d{4}-\d\d-\d\d; put a new one`, "--online")
	s.show("long", 20*24*time.Hour)
	check(exitOK, `^configuration: fine`)
	s.show("over", -time.Minute)
	check(exitOK, `tls\.cert: the certificate has ended, on`)
	p, _ := s.serveTLS()
	check(exitOK, `account acme: fine`, "--online")
	if code, err := p.stop(syscall.SIGTERM); err != nil || code != exitOK {
		t.Fatalf("exit code %d, %v", code, err)
	}
	s.write("server.key", s.ca.issue("other", time.Hour).key)
	check(exitFailed, `tls\.cert: cert and key do not make a server's certificate`)
	s.show("good", 20*24*time.Hour)
	s.write("clients.pem", []byte(fmt.Sprintln("nothing")))
	check(exitFailed, `tls\.client_ca: the file holds no certificate`)
}
