package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

// An account that is added gets its authorisation and works; one that is taken out is refused at once, and keeps its grant.
func TestReloadAccounts(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, "")
	configure := func(accounts string) {
		write(t, filepath.Join(w.folder, "config.yaml"), reloadable+fmt.Sprintf(`admin: {listen: 127.0.0.1:0}
upstream: {base_url: %s}
apps: {main: {client_id: tests, client_secret_env: FREEAGENT_CLIENT_SECRET}}
accounts: {%s}
%s`, w.simURL, accounts, noLimits))
	}
	configure("acme: {app: main, default: true}")
	w.authorise(w.sim.Authorize("owner"))
	r := &reloaded{world: w, client: w.client(false)}
	r.proxy, r.url = w.serve()
	s := r.scraped()
	r.gets(http.StatusNotFound, "/accounts/second/v2/company")

	configure("acme: {app: main, default: true}, second: {app: main}")
	r.says(`"changed":"account second added"`)
	r.gets(http.StatusServiceUnavailable, "/accounts/second/v2/company")
	s.come("added", map[string]float64{`reauthorisation_needed{account="second"}`: 1})
	p := w.start("accounts", "import", "second")
	_, _ = io.WriteString(p.stdin, w.sim.Authorize("another"))
	p.stdin.Close()
	if code, err := p.wait(); err != nil || code != exitOK {
		t.Fatalf("import: exit code %d, %v: %s", code, err, &p.stderr)
	}
	r.gets(http.StatusOK, "/accounts/second/v2/company")
	s.come("authorised", map[string]float64{`reauthorisation_needed{account="second"}`: 0, `refreshes_total{account="second",outcome="ok"}`: 0})

	configure("second: {app: main}")
	r.says(`"changed":"account acme removed"`)
	r.gets(http.StatusNotFound, "/accounts/acme/v2/company")
	r.gets(http.StatusOK, "/v2/company") // of the only one
	for name := range s.values() {
		if strings.Contains(name, `acme"`) {
			t.Errorf("the account that was taken out is still in /metrics: %s", name)
		}
	}
	configure("acme: {app: main, default: true}, second: {app: main}")
	r.says(`"changed":"account acme added"`, `"level":"info"`)
	r.gets(http.StatusOK, "/accounts/acme/v2/company") // its grant is still there
}

// A reload that leaves the page as it is leaves its users where they are: who guesses passwords is not forgotten, and who approves at
// FreeAgent comes back to a proxy that waits for him.
func TestReloadLeavesThePage(t *testing.T) {
	t.Parallel()
	const password = mark + "-password"
	w := newSimulated(t, approving(), "")
	w.configure(w.simURL, reloadable+noLimits)
	path := filepath.Join(w.folder, "config.yaml")
	write(t, path, strings.Replace(readText(t, path), "admin: {", "admin: {password_env: PASSWORD, ", 1))
	w.env = append(w.env, "PASSWORD="+password)
	r := &reloaded{world: w, client: w.client(false)}
	r.proxy, r.url = w.serve()
	page := operatorURL(t, r.proxy)
	as := func(password string) string { return strings.Replace(page, "http://", "http://x:"+password+"@", 1) }
	someone, callback := newPerson(t), ""
	someone.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasSuffix(req.URL.Path, "/callback") {
			callback = as(password) + req.URL.RequestURI()
			return http.ErrUseLastResponse
		}
		return nil
	}
	req, err := http.NewRequest(http.MethodPost, as(password)+"/accounts/"+account+"/connect", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", page)
	resp, err := someone.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	guess := func() (status int) {
		status, _ = call(t, r.client, http.MethodGet, as("wrong"))
		return status
	}
	for guess() != http.StatusTooManyRequests {
	}
	r.says(`"changed":"nothing"`)
	if status := guess(); status != http.StatusTooManyRequests {
		t.Errorf("a guess after a reload gets %d, want 429", status)
	}
	someone.CheckRedirect = nil
	if resp, err = someone.Get(callback); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	r.gets(http.StatusOK, "/v2/company")
}

// A request of an account that is taken out while it waits for a token gets the token that is on its way; where none is, it is told
// that the account is no more.
func TestReloadWhileRefreshing(t *testing.T) {
	t.Parallel()
	const life = 3 * time.Second
	r := newReloaded(t, simulator.Config{Enforcement: simulator.EnforceOff, AccessTokenLifetime: simulator.Duration(life)}, noLimits+"log: {level: debug}\n")
	path := filepath.Join(r.folder, "config.yaml")
	before := readText(t, path)
	without := strings.Replace(before, "{acme:", "{other:", 1)
	for _, test := range []struct {
		fault simulator.Fault
		want  int
	}{
		{simulator.Fault{Kind: simulator.FaultStatus}, http.StatusNotFound},
		{simulator.Fault{Kind: simulator.FaultLatency, Delay: simulator.Duration(time.Second)}, http.StatusOK},
	} {
		test.fault.Match = simulator.Match{PathPrefix: "/v2/token_endpoint"}
		if _, err := r.sim.Fault(test.fault); err != nil {
			t.Fatal(err)
		}
		time.Sleep(life) // the token of before has ended
		came := func() int { return strings.Count(r.proxy.stderr.String(), `"msg":"account chosen"`) }
		seen := came()
		var waiting sync.WaitGroup
		waiting.Go(func() { r.gets(test.want, "/accounts/acme/v2/company") })
		eventually(t, "a refresh", func() bool { return came() > seen && r.sim.Faults()[0].Hits > 0 })
		write(t, path, without)
		r.says("account acme removed")
		waiting.Wait()
		r.sim.ClearFaults()
		write(t, path, before)
		r.says("account acme added")
		r.gets(http.StatusOK, "/accounts/acme/v2/company")
	}
}

// FreeAgent keeps two secrets of an app: the next refresh uses the one that is in the file now.
func TestReloadClientSecret(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simulator.Config{
		Enforcement: simulator.EnforceOff, AccessTokenLifetime: simulator.Duration(time.Second),
		Apps: []simulator.App{{ClientID: "tests", ClientSecrets: []string{mark + "-former", mark + "-next"}}},
	}, "")
	secret := filepath.Join(w.folder, "client.secret")
	write(t, secret, mark+"-former\n")
	configure := func(app string) {
		write(t, filepath.Join(w.folder, "config.yaml"), reloadable+fmt.Sprintf(`admin: {listen: 127.0.0.1:0}
upstream: {base_url: %s}
apps: {main: {client_id: tests, %s}}
accounts: {acme: {app: main}}
%s`, w.simURL, app, noLimits))
	}
	configure("client_secret_file: client.secret")
	w.authorise(w.sim.Authorize("owner"))
	r := &reloaded{world: w, client: w.client(false)}
	r.proxy, r.url = w.serve()
	r.gets(http.StatusOK, "/v2/company")
	used := func() string {
		var last string
		for _, q := range w.sim.Requests(0) {
			if strings.HasPrefix(q.Target, "/v2/token_endpoint") {
				_, last, _ = (&http.Request{Header: q.Header}).BasicAuth()
			}
		}
		return last
	}
	if got := used(); got != mark+"-former" {
		t.Fatalf("refreshed by %q", got)
	}
	write(t, secret, mark+"-next\n")
	r.says(`"changed":"app main: client_secret"`)
	next := func(what string) {
		t.Helper()
		before := w.sim.Stats().Tokens.Refreshes
		eventually(t, what, func() bool {
			r.gets(http.StatusOK, "/v2/company")
			return w.sim.Stats().Tokens.Refreshes > before && used() == mark+"-next"
		})
	}
	next("a refresh by the next secret") // none by the former one is on its way any more
	cfg := w.sim.Config()
	cfg.Apps = []simulator.App{{ClientID: "tests", ClientSecrets: []string{mark + "-next"}}}
	if err := w.sim.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	next("another one, when FreeAgent has forgotten the former")
	write(t, secret, " \n")
	r.says(`"level":"error"`, "client_secret_file: the file that this names is empty")
}

// The log's level follows, and certificates are read at once, from another file, too.
func TestReloadLogLevelAndCertificates(t *testing.T) {
	t.Parallel()
	s := newSecured(t)
	p, address := s.serveTLS()
	r := &reloaded{world: s.world, proxy: p, client: s.world.client(false)}
	path := filepath.Join(r.folder, "config.yaml")
	before := readText(t, path)
	debug := func() int { return strings.Count(p.stderr.String(), `"level":"debug"`) }
	if s.shown(address); debug() != 0 {
		t.Error("lines at level debug at level info")
	}
	s.show("second", time.Hour)
	write(t, path, before+"log: {level: debug}\n")
	r.says(`log.level`, `the TLS files' content`)
	if got := s.shown(address); got != "second" {
		t.Errorf("shows %q, want the second certificate", got)
	}
	resp, err := s.ask(address, &tls.Config{})
	if err != nil || resp.StatusCode >= 500 {
		t.Fatal(resp, err)
	}
	eventually(t, "a decision in the log", func() bool { return strings.Contains(p.stderr.String(), `"msg":"client known"`) })
	made := s.ca.issue("third", time.Hour)
	s.write("third.pem", append(made.cert, s.ca.pem()...))
	s.write("third.key", made.key)
	write(t, path, strings.NewReplacer("server.pem", "third.pem", "server.key", "third.key").Replace(before))
	r.says(`tls.cert; tls.key`, `log.level`)
	if got := s.shown(address); got != "third" {
		t.Errorf("shows %q, want the third certificate", got)
	}
	seen := debug()
	if _, err := s.ask(address, &tls.Config{}); err != nil || debug() != seen {
		t.Errorf("%v, %d lines at level debug, want the %d of before", err, debug(), seen)
	}
}

// docs/configuration.md lists what needs a restart, and that is what does: each setting is changed, and looked whether the running
// process would take it.
func TestReloadTable(t *testing.T) {
	_, section, found := strings.Cut(readText(t, tablePath), "\n## Reloading\n")
	section, _, more := strings.Cut(section, "\nEverything else is reloaded.")
	if !found || !more {
		t.Fatal("docs/configuration.md does not say what needs a restart")
	}
	var listed []string
	for _, line := range regexp.MustCompile(`(?m)^- .*$`).FindAllString(section, -1) {
		for _, key := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(line, -1) {
			listed = append(listed, key[1])
		}
	}
	s := &server{own: map[string]string{}}
	for _, key := range settingsOf("", reflect.TypeFor[Config]()) {
		if strings.HasPrefix(key, "tls.") { // on and off, which TestReloadTurnsTLS looks at
			continue
		}
		old, next := filled(t), filled(t)
		change(t, reflect.ValueOf(&next).Elem(), key)
		applied := len(differences(old, s.within(next, old))) > 0
		isListed := slices.ContainsFunc(listed, func(l string) bool { return key == l || strings.HasPrefix(key, l+".") })
		if applied == isListed {
			t.Errorf("%s: applied: %v, listed as needing a restart: %v", key, applied, isListed)
		}
	}
	if !slices.Contains(listed, "tls") {
		t.Error("turning TLS on or off is not listed")
	}
}

func TestReloadTurnsTLS(t *testing.T) {
	s := &server{}
	plain, secure := Config{}, Config{TLS: ServerTLSConfig{Cert: "a", Key: "b"}}
	other := Config{TLS: ServerTLSConfig{Cert: "c", Key: "d"}}
	if got := s.within(secure, plain).TLS; got.given() {
		t.Errorf("turned on: %+v", got)
	}
	if got := s.within(plain, secure).TLS; got != secure.TLS {
		t.Errorf("turned off: %+v", got)
	}
	if got := s.within(other, secure).TLS; got != other.TLS {
		t.Errorf("other files: %+v", got)
	}
}

// filled is a configuration with one of everything that has a name or a number.
func filled(t *testing.T) Config {
	t.Helper()
	c := defaultConfig(fakeEnv())
	c.Apps = map[string]AppConfig{"NAME": {ClientID: "id", ClientSecret: newSecret("s")}}
	c.Accounts = map[string]AccountConfig{"NAME": {App: "NAME"}}
	c.Clients = map[string]ClientConfig{"NAME": {}}
	c.Encryption.Keys = []KeyConfig{{ID: "id", Key: newSecret("k")}}
	return c
}

// change gives the setting of that key another value, as settingsOf names it. A secret has one value, whichever key names it.
func change(t *testing.T, section reflect.Value, key string) {
	t.Helper()
	name, rest, _ := strings.Cut(key, ".")
	fields := fieldsOf(section)
	i := slices.IndexFunc(fields, func(f field) bool { return slices.Contains(f.keys(), strings.TrimSuffix(name, "[]")) })
	if i < 0 {
		t.Fatalf("no field for %s", key)
	}
	target := reflect.ValueOf(fields[i].target).Elem()
	switch {
	case rest == "":
		target.Set(another(t, target.Type()))
	case target.Kind() == reflect.Struct:
		change(t, target, rest)
	case target.Kind() == reflect.Slice:
		copied := reflect.MakeSlice(target.Type(), target.Len(), target.Len())
		reflect.Copy(copied, target)
		target.Set(copied)
		change(t, target.Index(0), rest)
	case target.Kind() == reflect.Map:
		_, rest, _ = strings.Cut(rest, ".")
		named := reflect.New(target.Type().Elem()).Elem()
		named.Set(target.MapIndex(reflect.ValueOf("NAME")))
		change(t, named, rest)
		target.SetMapIndex(reflect.ValueOf("NAME"), named)
	default:
		t.Fatalf("%s leads nowhere", key)
	}
}

// another is a value that no configuration has.
func another(t *testing.T, typ reflect.Type) reflect.Value {
	t.Helper()
	v := reflect.New(typ).Elem()
	switch {
	case typ == reflect.TypeFor[Secret]():
		v.Set(reflect.ValueOf(newSecret("another")))
	case typ.Kind() == reflect.Pointer:
		v.Set(reflect.New(typ.Elem()))
	case typ.Kind() == reflect.String:
		v.SetString("another")
	case typ.Kind() == reflect.Bool:
		v.SetBool(true)
	case typ.Kind() == reflect.Float64:
		v.SetFloat(0.123)
	case typ.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(typ, 7, 7))
	case v.CanInt():
		v.SetInt(123456789)
	default:
		t.Fatalf("no other %s", typ)
	}
	return v
}

// What is said of changes is words, and no value.
func TestReloadWords(t *testing.T) {
	a, b := filled(t), filled(t)
	b.Apps["NAME"] = AppConfig{ClientID: "other", ClientSecret: newSecret(mark)}
	b.Apps["more"] = AppConfig{}
	delete(b.Clients, "NAME")
	b.Limits.MaxWait++
	b.TrustedProxies = []string{"10.0.0.1"}
	got := strings.Join(words(differences(a, b)), "; ")
	if want := "trusted_proxies; client NAME removed; app NAME: client_id, client_secret; app more added; limits.max_wait"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := words(differences(b, b)); len(got) > 0 {
		t.Errorf("the same differs: %q", got)
	}
}

// A config.yaml that appears later does not replace the environment.
func TestReloadKeepsItsSource(t *testing.T) {
	t.Chdir(t.TempDir())
	c := &command{getenv: fakeEnv("FREEAGENT_CLIENT_ID=id", "FREEAGENT_CLIENT_SECRET=s")}
	load := c.pinConfig()
	if err := os.WriteFile("config.yaml", []byte("log: {level: debug}"+minimalConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := load()
	if _, fromEnvironment := cfg.Accounts["default"]; err != nil || !fromEnvironment {
		t.Errorf("got %+v, %v, want what the environment says", cfg.Accounts, err)
	}
}
