package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestConfigEveryProblemAtOnce(t *testing.T) {
	const file = `listen: [0.0.0.0:8080, 127.0.0.1:8081, "8080"]
public_url: freeagent.internal
publik_url: x
admin: {listen: 127.0.0.1:8081}
upstream:
  base_url: http://api.freeagent.com
  timeout: 75
  timeout: 80s
store: [a]
encryption:
  keys:
    - {id: a, env: SHORT}
    - {id: a}
apps:
  main:
    client_id: abc
    client_secret: hunter2
  other:
    client_secret_env: UNSET
accounts:
  Acme: {app: main, default: yes}
  beta: {app: missing, default: true}
  gamma: {app: other, default: true}
limits:
  api: [{requests: 0, per: 1m}, {requests: many}]
  guard: 2m
log: {level: loud}
`
	_, err := fromFile("config.yaml", []byte(file), fakeEnv("SHORT=c2hvcnQ="))
	wantProblems(t, err,
		`config.yaml:1: listen[0]: "0.0.0.0:8080" is reachable from other machines, which needs named clients; add clients, or listen on 127.0.0.1`,
		`config.yaml:1: listen[2]: "8080" is not an address; write host:port such as 127.0.0.1:8080`,
		`config.yaml:2: public_url: must be a whole URL such as https://api.freeagent.com`,
		`config.yaml:3: publik_url: unknown key; did you mean public_url?`,
		`config.yaml:4: admin.listen: "127.0.0.1:8081" is in listen too; choose another port for one of them`,
		`config.yaml:6: upstream.base_url: must begin with https://, because the access token goes there; http:// is for loopback only`,
		`config.yaml:7: upstream.timeout: "75" is not a duration; write it as 75s`,
		`config.yaml:8: upstream.timeout: given twice; it is on line 7 already`,
		`config.yaml:9: store: must be a section of "key: value" lines, not a list`,
		"config.yaml:12: encryption.keys[0]: the key must be 32 random bytes in standard base64 (44 characters), as `freeagent-proxy keygen` prints one",
		`config.yaml:13: encryption.keys[1].env: missing: the environment variable, or with file the file, that holds the key`,
		`config.yaml:13: encryption.keys[1].id: "a" is the id of encryption.keys[0] too; each key needs its own`,
		`config.yaml:17: apps.main.client_secret: a secret is not written here; keep it in the environment or a file, and name that with client_secret_env or client_secret_file`,
		`config.yaml:18: apps.other.client_id: missing: the app's OAuth identifier, from https://dev.freeagent.com`,
		`config.yaml:19: apps.other.client_secret_env: the environment variable UNSET is not set`,
		`config.yaml:21: accounts.Acme: an account's name is 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit`,
		`config.yaml:21: accounts.Acme.default: must be true or false, without quotes, not text`,
		`config.yaml:22: accounts.beta.app: there is no app "missing"; name one of ["main" "other"]`,
		`config.yaml:22: accounts.beta.default: 2 accounts are marked default; keep one`,
		`config.yaml:23: accounts.gamma.default: 2 accounts are marked default; keep one`,
		`config.yaml:25: limits.api[0].requests: 0 must be from 1 to 100000`,
		`config.yaml:25: limits.api[1].per: missing: in which time, such as 1m`,
		`config.yaml:25: limits.api[1].requests: must be a whole number such as 120, without quotes, not text`,
		`config.yaml:26: limits.guard: 2m0s must be from 0s to 1m0s`,
		`config.yaml:27: log.level: "loud" must be one of debug, info, warn, error`,
	)
}

// TestConfigProblems has what is not shown above, one mistake each: the yaml stands in line 1.
func TestConfigProblems(t *testing.T) {
	const sealed = "\nencryption: {keys: [{id: a, env: KEY}]}"
	long := "unix:/" + strings.Repeat("x", maxSocketPath)
	tests := []struct{ yaml, want string }{
		{`tracing: {otlp_endpoint: "collector:4318"}`, `tracing.otlp_endpoint: must be a whole URL`},
		{`tracing: {otlp_endpoint: "grpc://collector:4317"}`, `tracing.otlp_endpoint: must be http:// or https://`},
		{`tracing: {otlp_endpoint: "https://user:hunter2@collector"}`, `tracing.otlp_endpoint: must be http:// or https://`},
		{`tracing: {otlp_endpoint: "https://collector/?key=hunter2"}`, `tracing.otlp_endpoint: must be http:// or https://`},
		{`tracing: {otlp_endpoint: "http://collector:99999"}`, `tracing.otlp_endpoint: must be http:// or https://`},
		{`tracing: {sample: 1.5}`, `tracing.sample: must be from 0 to 1`},
		{`tracing: {sample: .nan}`, `tracing.sample: must be`},
		{`tracing: {headers: "api-key=hunter2"}`, `tracing.headers: a secret is not written here`},
		{`tracing: {headers_env: KEY}`, `tracing.headers_env: must hold headers as name=value`},
		{`listen: []`, `listen: the list is empty`},
		{`listen: {}`, `listen: must be text, not a section`},
		{`listen: [[a]]`, `listen[0]: must be text, not a list`},
		{`listen: ['']`, `listen[0]: "" is not an address`},
		{`listen: 127.0.0.1:http`, `listen: "127.0.0.1:http" has no usable port`},
		{`listen: 127.0.0.1:65536`, `listen: "127.0.0.1:65536" has no usable port`},
		{`listen: :8080`, `listen: ":8080" is reachable from other machines`},
		{`listen: '[::]:8080'`, `listen: "[::]:8080" is reachable from other machines`},
		{`listen: freeagent:8080`, `listen: "freeagent:8080" is reachable from other machines`},
		{`listen: 10.0.0.1:8080`, `listen: "10.0.0.1:8080" is reachable from other machines`},
		{`listen: [127.0.0.1:80, 127.0.0.1:80]`, `listen[1]: "127.0.0.1:80" is in the list twice`},
		{`listen: 'unix:'`, `listen: no path behind unix:`},
		{`listen: ` + long, `listen: the socket's path is 101 bytes long`},
		{`listen: 'systemd:'`, `listen: "systemd:" is no name of a socket`},
		{`listen: 'systemd:a:b'`, `listen: "systemd:a:b" is no name of a socket`},
		{`listen: [systemd, systemd]`, `listen[1]: "systemd" is in the list twice`},
		{`listen: [systemd:api, systemd]`, `listen[0]: systemd alone takes all sockets already`},
		{`writes: {one_at_a_time: [GET /v2/invoices]}`, `writes.one_at_a_time[0]: "GET /v2/invoices" only reads`},
		{`writes: {one_at_a_time: post /v2/invoices}`, `writes.one_at_a_time: "post /v2/invoices" must be POST, PUT, PATCH or DELETE`},
		{`writes: {one_at_a_time: [POST /v2/bills, "POST  /v2/invoices"]}`, `writes.one_at_a_time[1]: "POST  /v2/invoices" must be`},
		{`writes: {one_at_a_time: [POST /v2/invoices/]}`, `writes.one_at_a_time[0]: "POST /v2/invoices/" must be`},
		{`writes: {one_at_a_time: [POST /v2/invoices.json]}`, `writes.one_at_a_time[0]: "POST /v2/invoices.json" must be`},
		{`writes: {one_at_a_time: [POST /v2/invoices?a=b]}`, `writes.one_at_a_time[0]: "POST /v2/invoices?a=b" must be`},
		{`writes: {one_at_a_time: [POST /invoices]}`, `writes.one_at_a_time[0]: "POST /invoices" must be`},
		{`writes: {one_at_a_time: [POST /v2]}`, `writes.one_at_a_time[0]: "POST /v2" must be`},
		{`writes: {one_at_a_time: [/v2/invoices]}`, `writes.one_at_a_time[0]: "/v2/invoices" must be`},
		{`writes: {one_at_a_time: [POST /v2/bills, POST /v2/bills]}`, `writes.one_at_a_time[1]: "POST /v2/bills" is in the list twice`},
		{`writes: {one_at_a_time: [POST /v2/token_endpoint]}`, `writes.one_at_a_time[0]: "POST /v2/token_endpoint" is OAuth`},
		{`writes: {one_at_time: []}`, `writes.one_at_time: unknown key; did you mean one_at_a_time?`},
		{`max_connections: 0`, `max_connections: 0 must be from 1 to 1000000`},
		{`max_connections: 1000001`, `max_connections: 1000001 must be from 1 to 1000000`},
		{`tls: {key: /absent}`, `tls.cert: missing: the file with the proxy's certificate`},
		{`tls: {client_ca: /absent}`, `tls.cert: missing: the file with the proxy's certificate`},
		{`tls: {cert: /absent}`, `tls.key: missing: the file with the key of tls.cert`},
		{`tls: {cert: /absent, key: /absent}`, `tls.cert: open /absent`},
		{`admin: {listen: 0.0.0.0:8081}`, `admin.password_env: missing: "0.0.0.0:8081" is reachable from other machines`},
		{`admin: {public_url: 'https://admin.lan'}`, `admin.password_env: missing: by admin.public_url the page is reachable from other machines`},
		{`admin: {public_url: 'https://admin.lan/page', password_env: SECRET}`, `admin.public_url: must be http:// or https:// and a host, without path or query`},
		{`admin: {public_url: 'ftp://admin.lan', password_env: SECRET}`, `admin.public_url: must be http:// or https:// and a host`},
		{`admin: {listen: ':8081', password_env: UNSET}`, `admin.password_env: the environment variable UNSET is not set`},
		{`admin: {listen: ':8081', password_file: nowhere}`, `admin.password_file: the file that this names cannot be read`},
		{`admin: {password: x}`, `admin.password: a secret is not written here; keep it in the environment or a file, and name that with password_env`},
		{`admin: {listen: unix:/run/admin}`, `admin.listen: "unix:/run/admin" has no usable port`},
		{`public_url: ftp://host`, `public_url: must be http:// or https://`},
		{`public_url: http://host/path`, `public_url: must be http:// or https://`},
		{`public_url: http://host?`, `public_url: must be http:// or https://`},
		{`allowed_hosts: http://host`, `allowed_hosts: "http://host" is not a host name`},
		{`allowed_hosts: ['host:80']`, `allowed_hosts[0]: "host:80" is not a host name`},
		{`upstream: {base_url: 'https://api.freeagent.com/v2'}`, `upstream.base_url: must be scheme and host only`},
		{`upstream: {base_url: 'https://user:pw@api.freeagent.com'}`, `upstream.base_url: must be scheme and host only`},
		{`upstream: {base_url: 'https://api.freeagent.com#a'}`, `upstream.base_url: must be scheme and host only`},
		{`upstream: {base_url: 'https://api.freeagent.com:99999'}`, `upstream.base_url: must be scheme and host only`},
		{`upstream: {base_url: 'http://127.0.0.1.example.com'}`, `upstream.base_url: must begin with https://`},
		{`upstream: {base_url: true}`, `upstream.base_url: must be text, not true or false`},
		{`upstream: {base_url: 'https://:443'}`, `upstream.base_url: must be a whole URL`},
		{`upstream: {timeout: 0}`, `upstream.timeout: "0" is not a duration; write it as 0s`},
		{`upstream: {timeout: '1 minute'}`, `upstream.timeout: "1 minute" is not a duration; write it like 30s, 10m or 1h`},
		{`upstream: {timeout: [1s]}`, `upstream.timeout: must be a duration such as 30s, not a list`},
		{`upstream: {timeout: 900ms}`, `upstream.timeout: 900ms must be from 1s to 10m0s`},
		{`upstream: {user_agent: "a\nX-Evil: b"}`, `upstream.user_agent: a header takes printable ASCII only`},
		{`encryption: {keys: {id: a}}`, `encryption.keys: must be a list, not a section`},
		{`encryption: {keys: [a]}`, `encryption.keys[0]: must be a section of "key: value" lines, not text`},
		{`encryption: {keys: [{id: a, key: AAAA}]}`, `encryption.keys[0].key: a secret is not written here`},
		{`encryption: {keys: [{id: a, env: KEY, file: f}]}`, `encryption.keys[0].file: env is given already; keep one of the two`},
		{`limits: {api: []}`, `limits.api: the list is empty`},
		{`limits: {refresh: [{requests: 0x10, per: 1m}]}`, `limits.refresh[0].requests: "0x10" is not a whole number`},
		{`limits: {egress: [{requests: 100001, per: 1m}]}`, `limits.egress[0].requests: 100001 must be from 1 to 100000`},
		{`limits: {egress: [{requests: 1, per: 25h}]}`, `limits.egress[0].per: 25h0m0s must be from 100ms to 24h0m0s`},
		{`limits: {max_wait: 61m}`, `limits.max_wait: 1h1m0s must be from 0s to 1h0m0s`},
		{`limits: {guard: -1s}`, `limits.guard: -1s must be from 0s to 1m0s`},
		{`log: {format: xml}`, `log.format: "xml" must be one of json, console`},
		{`log: &anchor {level: info}`, `log: must be a section of "key: value" lines, not an anchor, alias or tag, which are not supported`},
		{`log: {level: !!str info}`, `log.level: must be text, not an anchor, alias or tag, which are not supported`},
		{`log: {true: x}`, `log: a key must be text, not true or false`},
		{`log: {format: json, format: json}`, `log.format: given twice; it is on line 1 already`},
		{`log: {"for\nmat": json}`, `log."for\nmat": unknown key; did you mean format?`},
		{`zebra: {}`, `zebra: unknown key; known here: listen, public_url, allowed_hosts, trusted_proxies, clients, admin`},
		{`store: {redis: {uri: x}}`, `store.redis.uri: unknown key; did you mean url?`},
		{`store: {redis: {url: 'redis://localhost'}}`, `encryption.keys: missing: in Redis grants are always sealed`},
		{`store: {file: x, redis: {url: 'redis://localhost'}}` + sealed, `store.file: grants are kept in store.redis already; keep one of the two`},
		{`store: {redis: {url: 'http://localhost'}}` + sealed, `store.redis.url: must begin with redis://`},
		{`store: {redis: {url: 'redis://user:secret@local host'}}` + sealed, `store.redis.url: is not a URL`},
		{`store: {redis: {url: x}}` + sealed, `store.redis.url: must begin with redis://`},
		{`store: {redis: {url: 'redis://'}}` + sealed, `store.redis.url: has no host`},
		{`store: {redis: {url: 'redis://localhost/x'}}` + sealed, `store.redis.url: has no usable database`},
		{`store: {redis: {url: 'redis://localhost?pool=3'}}` + sealed, `store.redis.url: has an unknown parameter "pool"`},
		{`store: {redis: {url: 'redis-sentinel://localhost'}}` + sealed, `store.redis.url: names no master`},
		{`store: {redis: {url: 'redis-cluster://a,b/3'}}` + sealed, `store.redis.url: names a database, but a Cluster has the one numbered 0 only`},
		{`store: {redis: {url: 'redis://localhost', addresses: [a]}}` + sealed, `store.redis.addresses: the URL says where Redis is already`},
		{`store: {redis: {addresses: [a], master: m, cluster: true}}` + sealed, `store.redis.cluster: Sentinel's master is named already`},
		{`store: {redis: {addresses: [a], database: -1}}` + sealed, `store.redis.database: -1 is none`},
		{`store: {redis: {addresses: [a], wait_replicas: 11}}` + sealed, `store.redis.wait_replicas: 11 must be from 0 to 10`},
		{`store: {redis: {addresses: [a], tls: {ca: /absent}}}` + sealed, `store.redis.tls.ca: open /absent`},
		{`store: {redis: {addresses: [a], tls: {cert: /absent}}}` + sealed, `store.redis.tls.cert: cert and key do not make a client certificate`},
		{`limits: {replicas: 0}`, `limits.replicas: must be auto or a number from 1`},
		{`limits: {replicas: many}`, `limits.replicas: must be auto or a number from 1`},
		{`a: [`, `not YAML: `},
	}
	for _, test := range tests {
		_, err := fromFile("config.yaml", []byte(test.yaml+minimalConfig), fakeEnv("KEY="+strings.Repeat("A", 43)+"="))
		if err == nil {
			t.Errorf("%s: no problem, want %q", test.yaml, test.want)
			continue
		}
		if got := err.Error(); !strings.HasPrefix(got, "config.yaml:1: "+test.want) || strings.Contains(got, "\n") {
			t.Errorf("%s: got\n%s\nwant one line\nconfig.yaml:1: %s…", test.yaml, got, test.want)
		}
	}
}

func TestConfigProblemsOfTheWholeFile(t *testing.T) {
	const (
		noAccounts = "accounts: none; add one such as acme: {app: main}"
		noApps     = "apps: none; add the app that is registered at https://dev.freeagent.com"
	)
	tests := []struct {
		yaml string
		want []string
	}{
		{"", []string{"config.yaml:1: " + noAccounts, "config.yaml:1: " + noApps}},
		{"# nothing\n", []string{"config.yaml:1: " + noAccounts, "config.yaml:1: " + noApps}},
		{"apps:\naccounts: {}\n", []string{"config.yaml:1: " + noApps, "config.yaml:2: " + noAccounts}},
		{"- a\n", []string{
			`config.yaml:1: must be a section of "key: value" lines, not a list`, "config.yaml:1: " + noAccounts, "config.yaml:1: " + noApps,
		}},
		{minimalConfig + "---\na: b\n", []string{"config.yaml:5: a second YAML document begins here; a configuration is one"}},
		{"log: {level: x}\nbad:\n\tlevel: info\n", []string{`config.yaml:3: not YAML: found character '\t' that cannot start any token; indent with spaces, not with tabs`}},
		{"apps: {main: }\naccounts:\n  a.b:\n", []string{
			"config.yaml:1: apps.main.client_id: missing: the app's OAuth identifier, from https://dev.freeagent.com",
			"config.yaml:1: apps.main.client_secret_env: missing: the environment variable, or with client_secret_file the file, that holds the app's OAuth secret",
			`config.yaml:3: accounts."a.b".app: missing: the name of one of the apps`,
		}},
		{"apps: 5\naccounts: {acme: {app: main}}\n", []string{`config.yaml:1: apps: must be a section of "key: value" lines, not a number`}},
	}
	for _, test := range tests {
		_, err := fromFile("config.yaml", []byte(test.yaml), fakeEnv())
		wantProblems(t, err, test.want...)
	}
}

func TestConfigSecretFiles(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		path := filepath.Join(folder, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("private", "s3cret\r\n", 0o600)
	write("open", "s3cret\n", 0o644)
	write("empty", "\n", 0o600)
	write("large", strings.Repeat("x", maxSecretFile+1), 0o600)
	load := func(source string) (Config, error) {
		file := "accounts: {acme: {app: main}}\napps:\n  main:\n    client_id: abc\n    " + source + "\n"
		return fromFile(filepath.Join(folder, "config.yaml"), []byte(file), fakeEnv())
	}
	where := filepath.Join(folder, "config.yaml") + ":5: apps.main."

	for name, wantNotes := range map[string]int{"private": 0, "open": 1} {
		for _, path := range []string{name, filepath.Join(folder, name)} {
			c, err := load("client_secret_file: " + path)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Apps["main"].ClientSecret.Reveal(); got != "s3cret" {
				t.Errorf("%s: got secret %q, want s3cret", path, got)
			}
			if len(c.Notes) != wantNotes {
				t.Errorf("%s: got notes %q, want %d", path, c.Notes, wantNotes)
			}
		}
	}
	for source, want := range map[string]string{
		"client_secret_file: empty":  "client_secret_file: the file that this names is empty",
		"client_secret_file: large":  "client_secret_file: the file that this names is too large for a secret",
		"client_secret_file: .":      "client_secret_file: what this names is not a regular file",
		"client_secret_file: absent": "client_secret_file: the file that this names cannot be read: no such file or directory; a relative path starts at the configuration file's folder",
		"client_secret_file: [a]":    "client_secret_file: must be text, not a list",
		"client_secret_env: hunter2": "client_secret_env: no environment variable has this name; give the name of one that holds the secret, not the secret",
	} {
		_, err := load(source)
		wantProblems(t, err, where+want)
	}
}

// TestConfigProblemsRepeatNoSecret: a secret in the wrong place must not end up in a log.
func TestConfigProblemsRepeatNoSecret(t *testing.T) {
	for _, line := range []string{
		"encryption: {main: {client_secret: MARKED}}",
		"encryption: {keys: [{id: a, key: MARKED}, {id: b, env: xMARKED}, {id: c, file: MARKED}]}",
		"admin: {password: MARKED}",
		"upstream: {base_url: 'http://me:MARKED@host/'}",
		"public_url: 'http://me:MARKED@ho st'",
		"upstream: {user_agent: \"MARKED\\n\"}",
	} {
		_, err := fromFile("config.yaml", []byte(line+minimalConfig), fakeEnv())
		if err == nil || strings.Contains(err.Error(), "MARKED") {
			t.Errorf("%s: got %v, want problems that do not repeat the secret", line, err)
		}
	}
}

// FuzzConfig: whatever a file holds, it gives a usable configuration, or problems that say where.
func FuzzConfig(f *testing.F) {
	example, err := os.ReadFile("../../config.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(example), minimalConfig, "", "a: [", "- a", "? [a]\n: b", "listen: &a x\nadmin: *a\n<<: *a", "log: !!map {level: >-\n  info\n}",
		"\ufefflisten: [a, {b: c}]\r\n---\n%YAML 1.2", "limits: {api: [{requests: .inf, per: 1e9}]}",
	} {
		f.Add([]byte(seed))
	}
	where := regexp.MustCompile(`^config\.yaml:[1-9][0-9]*: .`)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := fromFile("config.yaml", data, fakeEnv("FREEAGENT_CLIENT_SECRET=s"))
		if err == nil {
			if len(c.Apps) == 0 || len(c.Accounts) == 0 || len(c.Listen) == 0 || c.Upstream.BaseURL == nil {
				t.Errorf("no problem, yet not usable: %+v", c)
			}
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !where.MatchString(line) {
				t.Errorf("a problem without its place: %q", line)
			}
		}
	})
}
