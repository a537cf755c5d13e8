package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const (
	digestA = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	digestB = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
)

func TestConfigClients(t *testing.T) {
	folder := t.TempDir()
	ca := newAuthority(t, "all")
	server := ca.issue("server", time.Hour)
	for name, content := range map[string][]byte{"cert.pem": server.cert, "key.pem": server.key, "ca.pem": ca.pem()} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := `listen: [0.0.0.0:8080, unix:all.sock]
tls: {cert: ` + folder + `/cert.pem, key: ` + folder + `/key.pem, client_ca: ` + folder + `/ca.pem}
trusted_proxies: [10.0.0.1, 2001:db8::/32]
apps: {main: {client_id: abc, client_secret_env: SECRET}}
accounts: {acme: {app: main}, practice: {app: main, practice: true}}
clients:
  billing: {key_sha256: ` + digestA + `, accounts: acme, weight: 4}
  nightly: {key_sha256: [` + digestB + `], cidrs: [10.1.7.0/24, 10.1.8.9], share: 0.8, max_wait: 10m}
  legacy: {listen: unix:legacy.sock, methods: [GET, POST], paths: [/v2/invoices, /v2/bank_*/], read_only: true, subdomain: one, max_wait: 0s}
  tls.1: {certificate: "spiffe://corp/billing", urls: passthrough, share: 1, weight: }
`
	c, err := fromFile("/etc/fap/config.yaml", []byte(file), fakeEnv())
	if err != nil {
		t.Fatal(err)
	}
	tenMinutes, none := 10*time.Minute, time.Duration(0)
	want := map[string]ClientConfig{
		"billing": {KeySHA256: []string{digestA}, Accounts: []string{"acme"}, URLs: "rewrite", Weight: 4, Share: 1},
		"nightly": {KeySHA256: []string{digestB}, CIDRs: []string{"10.1.7.0/24", "10.1.8.9"}, URLs: "rewrite", Weight: 1, Share: 0.8, MaxWait: &tenMinutes},
		"legacy": {Listen: "unix:/etc/fap/legacy.sock", Methods: []string{"GET", "POST"}, Paths: []string{"/v2/invoices", "/v2/bank_*/"},
			ReadOnly: true, Subdomain: "one", URLs: "rewrite", Weight: 1, Share: 1, MaxWait: &none},
		"tls.1": {Certificate: "spiffe://corp/billing", URLs: "passthrough", Weight: 1, Share: 1},
	}
	if !reflect.DeepEqual(c.Clients, want) {
		t.Errorf("got  %+v\nwant %+v", c.Clients, want)
	}
	if !c.Accounts["practice"].Practice || c.Accounts["acme"].Practice {
		t.Errorf("got %+v, want practice to be one", c.Accounts)
	}
	waits := map[string]time.Duration{}
	for _, made := range proxyClients(c) {
		waits[made.Name] = made.MaxWait
	}
	if want := (map[string]time.Duration{"billing": 20 * time.Second, "nightly": tenMinutes, "legacy": 0, "tls.1": 20 * time.Second}); !reflect.DeepEqual(waits, want) {
		t.Errorf("got waits %v, want %v", waits, want)
	}
}

func TestConfigClientsEveryProblemAtOnce(t *testing.T) {
	const file = `trusted_proxies: [10.0.0.0/8, nonsense]
apps: {main: {client_id: abc, client_secret_env: SECRET}}
accounts: {acme: {app: main}}
clients:
  a: {key_sha256: ` + digestA + `}
  b:
    key_sha256: [` + digestA + `, 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF, MARKED]
    cidrs: [10.1.7.5/24, 10.1.7.0/24, 300.1.1.1]
  c: {cidrs: 10.1.7.0/24, listen: 127.0.0.1:8080, accounts: [acme, beta], methods: [get], paths: []}
  d:
  e: {certificate: x, paths: [invoices, /v1/x, /v2, /v2/a?b, /v2/a//b, /v2/../x, /v2/a*b, /v2/%41]}
  f: {certificate: x, listen: 0.0.0.0:8081, subdomain: a.b, urls: both, weight: 0, share: 0, max_wait: 2h}
  g: {listen: 127.0.0.1:9000, share: 1.5, weight: 1001}
  h: {listen: "[::]:9000", share: "0.5", weight: 1.5}
  i: {listen: nowhere, share: .nan, key: x}
  Upper: {listen: 127.0.0.1:0}
  anonymous: {listen: 127.0.0.1:0}
  operator: {listen: 127.0.0.1:0}
  refresh: {listen: unix:s}
  unknown: {listen: unix:t}
  freeagent-proxy: {listen: unix:u}
`
	_, err := fromFile("config.yaml", []byte(file), fakeEnv())
	const digest = "must be the key's SHA-256 in 64 lower-case hex digits, as `freeagent-proxy clients new NAME` prints it"
	const path = " is not a path of FreeAgent's API; write it like /v2/invoices, with * for what ends a segment, as in /v2/invoices/*/pdf"
	wantProblems(t, err,
		`config.yaml:1: trusted_proxies[1]: "nonsense" is not a network; write it like 10.1.7.0/24, or a single address`,
		`config.yaml:7: clients.b.key_sha256[0]: this key belongs to clients.a already; keep one of the two`,
		`config.yaml:7: clients.b.key_sha256[1]: `+digest,
		`config.yaml:7: clients.b.key_sha256[2]: `+digest,
		`config.yaml:8: clients.b.cidrs[0]: "10.1.7.5/24" has bits behind its length; write 10.1.7.0/24`,
		`config.yaml:8: clients.b.cidrs[2]: "300.1.1.1" is not a network; write it like 10.1.7.0/24, or a single address`,
		`config.yaml:9: clients.c.accounts[1]: there is no account "beta"; name one of ["acme"]`,
		`config.yaml:9: clients.c.cidrs: this network belongs to clients.b already; keep one of the two`,
		`config.yaml:9: clients.c.listen: "127.0.0.1:8080" is taken by another of the configuration's listeners; choose another port`,
		`config.yaml:9: clients.c.methods[0]: "get" must be one of GET, HEAD, POST, PUT, DELETE, PATCH`,
		`config.yaml:9: clients.c.paths: the list is empty; leave it out to allow all of them`,
		"config.yaml:10: clients.d: nothing tells it from others; give it key_sha256, listen, cidrs or certificate. `freeagent-proxy clients new d` makes a key",
		`config.yaml:11: clients.e.certificate: no program is asked for its certificate; set tls.client_ca`,
		`config.yaml:11: clients.e.paths[0]: "invoices"`+path,
		`config.yaml:11: clients.e.paths[1]: "/v1/x"`+path,
		`config.yaml:11: clients.e.paths[2]: "/v2"`+path,
		`config.yaml:11: clients.e.paths[3]: "/v2/a?b"`+path,
		`config.yaml:11: clients.e.paths[4]: "/v2/a//b"`+path,
		`config.yaml:11: clients.e.paths[5]: "/v2/../x"`+path,
		`config.yaml:11: clients.e.paths[6]: "/v2/a*b"`+path,
		`config.yaml:11: clients.e.paths[7]: "/v2/%41"`+path,
		`config.yaml:12: clients.f.certificate: this name belongs to clients.e already; keep one of the two`,
		`config.yaml:12: clients.f.listen: "0.0.0.0:8081" is taken by another of the configuration's listeners; choose another port`,
		`config.yaml:12: clients.f.max_wait: 2h0m0s must be from 0s to 1h0m0s`,
		`config.yaml:12: clients.f.share: 0 must be above 0 and at most 1, such as 0.8`,
		`config.yaml:12: clients.f.subdomain: "a.b" is not a subdomain; it is 1 to 63 letters, digits and hyphens`,
		`config.yaml:12: clients.f.urls: "both" must be one of rewrite, passthrough`,
		`config.yaml:12: clients.f.weight: 0 must be from 1 to 1000`,
		`config.yaml:13: clients.g.share: 1.5 must be above 0 and at most 1, such as 0.8`,
		`config.yaml:13: clients.g.weight: 1001 must be from 1 to 1000`,
		`config.yaml:14: clients.h.listen: "[::]:9000" is taken by another of the configuration's listeners; choose another port`,
		`config.yaml:14: clients.h.share: must be a number such as 0.8, without quotes`,
		`config.yaml:14: clients.h.weight: must be a whole number such as 120, without quotes, not a number`,
		`config.yaml:15: clients.i.key: unknown key; known here: key_sha256, listen, cidrs, certificate, accounts, read_only, methods, paths, subdomain, urls, weight, share, max_wait`,
		`config.yaml:15: clients.i.listen: "nowhere" is not an address; write host:port such as 127.0.0.1:8080`,
		`config.yaml:15: clients.i.share: must be a number such as 0.8, without quotes`,
		`config.yaml:16: clients.Upper: a client's name is 1 to 63 of a-z, 0-9, '.', '_' and '-'`,
		`config.yaml:17: clients.anonymous: this name has a meaning of its own in the log; choose another one`,
		`config.yaml:18: clients.operator: this name has a meaning of its own in the log; choose another one`,
		`config.yaml:19: clients.refresh: this name has a meaning of its own in the log; choose another one`,
		`config.yaml:20: clients.unknown: this name has a meaning of its own in the log; choose another one`,
		`config.yaml:21: clients.freeagent-proxy: this name has a meaning of its own in the log; choose another one`,
	)
	if strings.Contains(err.Error(), "MARKED") {
		t.Error("what may be a key is repeated")
	}
}

// A listener of a client's own that others can reach is worth a word, and no problem.
func TestConfigOpenListenerOfAClient(t *testing.T) {
	c, err := fromFile("config.yaml", []byte("clients: {a: {listen: 0.0.0.0:9000}}"+minimalConfig), fakeEnv())
	if err != nil {
		t.Fatal(err)
	}
	if want := "config.yaml:1: clients.a.listen: whoever reaches 0.0.0.0:9000 is this client, with all that it may do"; len(c.Notes) != 1 || c.Notes[0] != want {
		t.Errorf("got notes %q, want %q", c.Notes, want)
	}
}

// A network of IPv4 addresses is one however it is written: connections' addresses are compared in the short form.
func TestParseNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.7.0/24":             "10.1.7.0/24",
		"10.1.8.9":                "10.1.8.9/32",
		"::ffff:10.1.8.9":         "10.1.8.9/32",
		"::ffff:10.1.7.0/120":     "10.1.7.0/24",
		"::ffff:0:0/96":           "0.0.0.0/0",
		"2001:db8::/32":           "2001:db8::/32",
		"fe80::1%eth0":            "fe80::1/128",
		"::/0":                    "::/0",
		"::ffff:255.255.255.0/95": "::ffff:255.255.255.0/95",
	} {
		if got, err := parseNetwork(text); err != nil || got.String() != want {
			t.Errorf("%s: got %s, %v; want %s", text, got, err, want)
		}
	}
}
