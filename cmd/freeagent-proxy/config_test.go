package main

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fakeEnv is a getenv for tests. Unless told otherwise it has what a file needs.
func fakeEnv(pairs ...string) func(string) string {
	values := map[string]string{"HOME": "/home/op", "SECRET": "s3cret"}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		values[name] = value
	}
	return func(name string) string { return values[name] }
}

// minimalConfig is the least that a file must say; tests put their lines above it.
const minimalConfig = `
apps: {main: {client_id: abc, client_secret_env: SECRET}}
accounts: {acme: {app: main}}
`

func TestConfigDefaults(t *testing.T) {
	got, err := fromFile("config.yaml", []byte(minimalConfig), fakeEnv())
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Listen:         []string{"127.0.0.1:8080"},
		Admin:          AdminConfig{Listen: "127.0.0.1:8081"},
		MaxConnections: 10_000,
		Upstream:       UpstreamConfig{BaseURL: &url.URL{Scheme: "https", Host: "api.freeagent.com"}, Timeout: 75 * time.Second},
		Store:          StoreConfig{File: "/home/op/.local/state/freeagent-proxy"},
		Apps:           map[string]AppConfig{"main": {ClientID: "abc", ClientSecret: newSecret("s3cret")}},
		Accounts:       map[string]AccountConfig{"acme": {App: "main"}},
		Limits: LimitsConfig{
			API:     []WindowConfig{{120, time.Minute}, {3600, time.Hour}},
			Refresh: []WindowConfig{{15, time.Minute}},
			Egress:  []WindowConfig{{1000, time.Minute}},
			Guard:   time.Second,
			MaxWait: 20 * time.Second,
		},
		Writes:  WritesConfig{OneAtATime: []string{"POST /v2/invoices", "POST /v2/estimates", "POST /v2/credit_notes"}},
		Tracing: TracingConfig{Sample: 1},
		Log:     LogConfig{Level: "info", Format: "json"},

		Variables: []string{"apps.main.client_secret_env"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestConfigValues(t *testing.T) {
	key := strings.Repeat("A", 43) + "="
	tests := []struct {
		name, yaml string
		got        func(Config) any
		want       any
	}{
		{"one listener", "listen: localhost:9000", func(c Config) any { return c.Listen }, []string{"localhost:9000"}},
		{"several listeners", "listen: ['[::1]:80', unix:/run/s, unix:s, 127.0.0.1:0, 127.0.0.1:0]", func(c Config) any { return c.Listen },
			[]string{"[::1]:80", "unix:/run/s", "unix:/etc/fap/s", "127.0.0.1:0", "127.0.0.1:0"}},
		{"inherited listeners", "listen: ['systemd:api', 'systemd:legacy', unix:/run/s]", func(c Config) any { return c.Listen },
			[]string{"systemd:api", "systemd:legacy", "unix:/run/s"}},
		{"connections", "max_connections: 1", func(c Config) any { return c.MaxConnections }, 1},
		{"a final slash", "upstream: {base_url: 'https://api.sandbox.freeagent.com/'}", func(c Config) any { return c.Upstream.BaseURL.String() }, "https://api.sandbox.freeagent.com"},
		{"http on loopback", "upstream: {base_url: 'http://127.1.2.3:99'}", func(c Config) any { return c.Upstream.BaseURL.Host }, "127.1.2.3:99"},
		{"public URL", "public_url: http://freeagent.internal:81/", func(c Config) any { return c.PublicURL.String() }, "http://freeagent.internal:81"},
		{"one host", "allowed_hosts: freeagent", func(c Config) any { return c.AllowedHosts }, []string{"freeagent"}},
		{"hosts", "allowed_hosts: [my_box.lan, 10.0.0.1, '::1']", func(c Config) any { return c.AllowedHosts }, []string{"my_box.lan", "10.0.0.1", "::1"}},
		{"admin off loopback with a password", "admin: {listen: ':8081', password_env: SECRET}", func(c Config) any { return c.Admin.Password.Reveal() }, "s3cret"},
		{"admin page behind a reverse proxy", "admin: {public_url: 'https://admin.lan:444/', password_env: SECRET}", func(c Config) any { return c.Admin.PublicURL.String() }, "https://admin.lan:444"},
		{"admin page by a name of loopback", "admin: {public_url: 'http://localhost:9000'}", func(c Config) any { return c.Admin.PublicURL.Host }, "localhost:9000"},
		{"durations", "upstream: {timeout: 1m30s}", func(c Config) any { return c.Upstream.Timeout }, 90 * time.Second},
		{"zero durations", "limits: {guard: 0s, max_wait: 0s}", func(c Config) any { return c.Limits.Guard + c.Limits.MaxWait }, time.Duration(0)},
		{"windows replace the default", "limits: {api: [{requests: 20, per: 2s}]}", func(c Config) any { return c.Limits.API }, []WindowConfig{{20, 2 * time.Second}}},
		{"a relative store", "store: {file: grants}", func(c Config) any { return c.Store.File }, "/etc/fap/grants"},
		{"digits as an id", "encryption: {keys: [{id: 2026, env: KEY}]}", func(c Config) any { return c.Encryption.Keys[0].ID + c.Encryption.Keys[0].Key.Reveal() }, "2026" + key},
		{"a block of text", "upstream:\n  user_agent: |-\n    billing (ops@example.com)", func(c Config) any { return c.Upstream.UserAgent }, "billing (ops@example.com)"},
		{"blank means left out", "listen:\nadmin:\nlog: {level: '', format: ~}\nlimits: {api: }", func(c Config) any {
			return []any{c.Listen[0], c.Admin.Listen, c.Log, len(c.Limits.API)}
		}, []any{"127.0.0.1:8080", "127.0.0.1:8081", LogConfig{"info", "json"}, 2}},
		{"no dollar expansion", "upstream: {user_agent: $SECRET}", func(c Config) any { return c.Upstream.UserAgent }, "$SECRET"},
		{"CRLF", "log:\r\n  level: warn\r\n", func(c Config) any { return c.Log.Level }, "warn"},
		{"byte order mark", "\ufefflog: {level: warn}", func(c Config) any { return c.Log.Level }, "warn"},
		{"document marker", "---\nlog: {level: warn}", func(c Config) any { return c.Log.Level }, "warn"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := fromFile("/etc/fap/config.yaml", []byte(test.yaml+minimalConfig), fakeEnv("KEY="+key))
			if err != nil {
				t.Fatal(err)
			}
			if got := test.got(c); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestConfigPath(t *testing.T) {
	write := func(path, level string) string {
		if err := os.WriteFile(path, []byte("log: {level: "+level+"}"+minimalConfig), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	folder := t.TempDir()
	t.Chdir(folder)
	named := write(filepath.Join(folder, "named.yaml"), "debug")
	variable := write(filepath.Join(folder, "variable.yaml"), "warn")
	load := func(path string, getenv func(string) string) string {
		t.Helper()
		c, err := loadConfig(path, getenv)
		if err != nil {
			t.Fatal(err)
		}
		return c.Log.Level
	}
	if got := load("", fakeEnv("FREEAGENT_CLIENT_ID=id", "FREEAGENT_CLIENT_SECRET=s")); got != "info" {
		t.Errorf("nothing there: got log.level %s, want the environment's info", got)
	}
	write("config.yaml", "error")
	if got := load("", fakeEnv()); got != "error" {
		t.Errorf("config.yaml there: got log.level %s, want its error", got)
	}
	if got := load("", fakeEnv(configVariable+"="+variable)); got != "warn" {
		t.Errorf("%s set: got log.level %s, want its file's warn", configVariable, got)
	}
	if got := load(named, fakeEnv(configVariable+"="+variable)); got != "debug" {
		t.Errorf("named: got log.level %s, want its debug", got)
	}
	if _, err := loadConfig("absent.yaml", fakeEnv()); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("absent file: got error %v, want one that names it", err)
	}
}

func TestConfigFromEnvironment(t *testing.T) {
	c, err := fromEnvironment(fakeEnv("FREEAGENT_CLIENT_ID=id", "FREEAGENT_CLIENT_SECRET=shh\n",
		"FREEAGENT_REFRESH_TOKEN=1abc=", "FREEAGENT_BASE_URL=http://localhost:9000/", "STATE_DIRECTORY=/var/lib/fap:/var/lib/other"))
	if err != nil {
		t.Fatal(err)
	}
	app := c.Apps["default"]
	got := []string{app.ClientID, app.ClientSecret.Reveal(), c.Seed.Reveal(), c.Upstream.BaseURL.String(), c.Accounts["default"].App, c.Store.File}
	want := []string{"id", "shh", "1abc=", "http://localhost:9000", "default", "/var/lib/fap"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConfigFromEnvironmentProblems(t *testing.T) {
	_, err := fromEnvironment(fakeEnv("HOME=", "FREEAGENT_BASE_URL=http://api.freeagent.com"))
	wantProblems(t, err,
		"FREEAGENT_BASE_URL: must begin with https://, because the access token goes there; http:// is for loopback only",
		"FREEAGENT_CLIENT_ID: not set; register an app at https://dev.freeagent.com and set this to its OAuth identifier, or write a config.yaml",
		"FREEAGENT_CLIENT_SECRET: not set; register an app at https://dev.freeagent.com and set this to its OAuth secret, or write a config.yaml",
		"STATE_DIRECTORY: no folder to keep grants in; set store.file, or STATE_DIRECTORY, XDG_STATE_HOME or HOME in the environment",
	)
	_, err = fromEnvironment(fakeEnv("FREEAGENT_CLIENT_ID=i", "FREEAGENT_CLIENT_SECRET=s", "FREEAGENT_BASE_URL=nonsense"))
	wantProblems(t, err, "FREEAGENT_BASE_URL: must be a whole URL such as https://api.freeagent.com")
}

func TestDefaultStore(t *testing.T) {
	tests := []struct {
		env  []string
		want string
	}{
		{[]string{"STATE_DIRECTORY=/a:/b", "XDG_STATE_HOME=/x"}, "/a"},
		{[]string{"XDG_STATE_HOME=/x"}, "/x/freeagent-proxy"},
		{[]string{"XDG_STATE_HOME=relative"}, "/home/op/.local/state/freeagent-proxy"},
		{[]string{"HOME=", "LOCALAPPDATA=/local"}, "/local/freeagent-proxy"},
		{nil, "/home/op/.local/state/freeagent-proxy"},
		{[]string{"HOME="}, ""},
	}
	for _, test := range tests {
		if got := defaultStore(fakeEnv(test.env...)); got != test.want {
			t.Errorf("%v: got %q, want %q", test.env, got, test.want)
		}
	}
}

func TestDefaultAccount(t *testing.T) {
	tests := []struct {
		name     string
		accounts map[string]AccountConfig
		want     string
		wantOK   bool
	}{
		{"the only one", map[string]AccountConfig{"a": {}}, "a", true},
		{"the marked one", map[string]AccountConfig{"a": {}, "b": {Default: true}}, "b", true},
		{"none marked", map[string]AccountConfig{"a": {}, "b": {}}, "", false},
	}
	for _, test := range tests {
		if got, ok := (Config{Accounts: test.accounts}).DefaultAccount(); got != test.want || ok != test.wantOK {
			t.Errorf("%s: got %q, %v, want %q, %v", test.name, got, ok, test.want, test.wantOK)
		}
	}
}

// wantProblems compares a *configError's lines.
func wantProblems(t *testing.T, err error, want ...string) {
	t.Helper()
	var problems *configError
	if !errors.As(err, &problems) {
		t.Fatalf("got error %v, want a *configError", err)
	}
	if got := err.Error(); got != strings.Join(want, "\n") {
		t.Errorf("got problems\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}
