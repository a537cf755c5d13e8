package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/tokens"
)

// redisWorld is a world whose store is given as YAML, with an authorised account.
func redisWorld(t *testing.T, store string) *world {
	t.Helper()
	w := newSimulated(t, simNoLimits, "")
	w.env = append(w.env, "FREEAGENT_PROXY_KEY="+tokens.NewKey(), "FREEAGENT_PROXY_REDIS_PASSWORD="+userPassword)
	w.shared(store)
	return w
}

// shared configures a store in Redis.
func (w *world) shared(store string) {
	w.t.Helper()
	w.configure(w.simURL, fmt.Sprintf("listen: 127.0.0.1:0\nstore: {redis: {%s}}\nencryption: {keys: [{id: tests, env: FREEAGENT_PROXY_KEY}]}\n", store))
}

// run runs the program in this process, with the world's configuration unless another is named.
func (w *world) run(stdin string, args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	var out, err bytes.Buffer
	if !slices.Contains(args, "--config") {
		args = append(args, "--config", filepath.Join(w.folder, "config.yaml"))
	}
	code = run(w.t.Context(), args, w.getenv, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

// getenv is the world's environment.
func (w *world) getenv(name string) string {
	for _, pair := range w.env {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// expect runs the program and expects its exit code, and patterns in what it prints.
func (w *world) expect(want int, stdin string, args []string, patterns ...string) (stdout string) {
	w.t.Helper()
	code, stdout, stderr := w.run(stdin, args...)
	printed := stdout + stderr
	if code != want {
		w.t.Fatalf("%v: exit code %d, want %d; printed:\n%s", args, code, want, printed)
	}
	for _, pattern := range patterns {
		if !regexp.MustCompile("(?m)" + pattern).MatchString(printed) {
			w.t.Errorf("%v: no %q in what it printed:\n%s", args, pattern, printed)
		}
	}
	for _, never := range []string{mark, tokenBegin, userPassword} {
		if strings.Contains(printed, never) {
			w.t.Errorf("%v printed %q:\n%s", args, never, printed)
		}
	}
	return stdout
}

func (w *world) imported() {
	w.t.Helper()
	w.expect(exitOK, w.sim.Authorize("owner"), []string{"accounts", "import", account})
}

var checkOnline = []string{"check", "--online"}

const userPassword = "its-" + mark + "-password"

// documentedRules are those of the line in docs/redis.md.
func documentedRules(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^\s*user freeagent-proxy on >\S+ (.*)$`).FindSubmatch(text)
	if found == nil {
		t.Fatal("docs/redis.md has no line for an ACL user")
	}
	return strings.Fields(string(found[1]))
}

// A persistent Redis with a user that may do what is documented is fine, and so is a whole serve with it: tokens,
// limits, messages, heartbeat.
func TestRedisDocumentedUser(t *testing.T) {
	t.Parallel()
	rules := documentedRules(t)
	if got, want := strings.Join(rules, " "), strings.Join(redisRules(), " "); got != want {
		t.Errorf("docs/redis.md has the rules\n%s\nwant\n%s", got, want)
	}
	server := redistest.Start(t, redistest.Persistent(), redistest.User("proxy", userPassword, rules...))
	w := redisWorld(t, fmt.Sprintf("addresses: [%q], username: proxy, password_env: FREEAGENT_PROXY_REDIS_PASSWORD", server.Addr()))
	w.imported()
	stdout := w.expect(exitOK, "", checkOnline, `^redis \S+: fine \(Redis 7\S*, 0 replicas\)$`, `^store: fine$`, `^account acme: fine`)
	if strings.Contains(stdout, "warning") {
		t.Errorf("it warns:\n%s", stdout)
	}

	f := &fleet{world: w, client: w.client(false)}
	first, second := f.join(), f.join()
	for _, r := range []*replica{first, second} {
		if status, body, err := f.get(r); status != 200 {
			t.Fatal(status, body, err)
		}
	}
	w.expect(exitOK, w.sim.Authorize("owner"), []string{"accounts", "import", account}) // is told to both
	for _, r := range []*replica{first, second} {
		if _, err := r.await(&r.stderr, `"grant adopted"`); err != nil {
			t.Error(err)
		}
		if strings.Contains(r.stderr.String(), "NOPERM") {
			t.Errorf("it may not do all: %s", &r.stderr)
		}
	}
	w.expect(exitOK, "", checkOnline)
	w.expect(exitOK, "", []string{"accounts", "list"}, `^acme +authorised`)
	w.expect(exitOK, "", []string{"accounts", "remove", account})
	log := server.Client(t).ACLLog(t.Context(), 100).Val()
	denied := slices.DeleteFunc(log, func(e *redis.ACLLogEntry) bool { return strings.HasPrefix(e.Object, "config") })
	for _, e := range denied {
		t.Errorf("it was denied: %s %s", e.Reason, e.Object)
	}
}

// Each rule that is missing is named.
func TestRedisMissingRules(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.User("proxy", userPassword))
	admin := server.Client(t)
	for _, missing := range redisRules() {
		switch missing {
		case "-@all", "+auth", "+hello", "+cluster|slots", "+command": // anybody may, or only a Cluster is asked
			continue
		}
		rules := slices.DeleteFunc(redisRules(), func(rule string) bool { return rule == missing })
		args := []any{"acl", "setuser", "proxy", "reset", "on", ">" + userPassword}
		for _, rule := range rules {
			args = append(args, rule)
		}
		if err := admin.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
		o := server.Options()
		o.Username, o.Password, o.ClientName = "proxy", userPassword, "freeagent-proxy"
		node := redisNode{Client: redis.NewClient(o), key: probeKey(0)}
		if got, err := node.missing(t.Context()); err != nil || !slices.Equal(got, []string{missing}) {
			t.Errorf("without %s: %v, %v", missing, got, err)
		}
		node.Close()
	}
	if left := admin.Keys(t.Context(), "*absent*").Val(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestRedisCheckRefuses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.User("proxy", userPassword, "~fap:v1:*", "-@all", "+ping", "+get", "+client"))
	w := redisWorld(t, fmt.Sprintf("addresses: [%q], username: proxy, password_env: FREEAGENT_PROXY_REDIS_PASSWORD", server.Addr()))
	w.expect(exitFailed, "", checkOnline,
		`^freeagent-proxy: store: redis \S+: its user may not do all that is needed; run on it: ACL SETUSER proxy \+del .*\+setrange .*\+wait \(docs/redis\.md`)

	w = redisWorld(t, fmt.Sprintf("addresses: [%q], username: proxy", server.Addr()))
	w.expect(exitFailed, "", checkOnline, `^freeagent-proxy: store: .*user and password`)

	w = redisWorld(t, `url: "redis://127.0.0.1:1"`)
	w.expect(exitFailed, "", checkOnline, `^freeagent-proxy: store: .*see that Redis runs and can be reached`)
}

// What could cost a grant or a limit is told, and is no failure.
func TestRedisCheckWarns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options []redistest.Option
		store   string
		want    string
	}{
		"nothing on disk":  {nil, "", `it keeps nothing on disk: .*; set appendonly yes, or store\.redis\.backup`},
		"evicts grants":    {[]redistest.Option{redistest.Persistent(), redistest.Set("maxmemory", "50mb"), redistest.Set("maxmemory-policy", "allkeys-lru")}, "", `forgets authorisations; set maxmemory-policy noeviction`},
		"evicts locks":     {[]redistest.Option{redistest.Persistent(), redistest.Set("maxmemory", "50mb"), redistest.Set("maxmemory-policy", "volatile-ttl")}, "", `limits may be broken.*; set maxmemory-policy noeviction`},
		"too few replicas": {[]redistest.Option{redistest.Persistent()}, ", wait_replicas: 2", `wait_replicas is 2, but it has 0 replicas`},
		"no fsync":         {[]redistest.Option{redistest.Set("appendonly", "yes"), redistest.Set("appendfsync", "no")}, "", `appendfsync is no: .*set appendfsync everysec`},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, c.options...)
			w := redisWorld(t, fmt.Sprintf(`url: "redis://%s"%s`, server.Addr(), c.store))
			w.imported()
			stdout := w.expect(exitOK, "", checkOnline, `^warning: redis 127\.0\.0\.1:\d+: .*`+c.want, `^store: fine$`)
			if n := strings.Count(stdout, "warning: "); n != 1 {
				t.Errorf("%d warnings, want 1:\n%s", n, stdout)
			}
		})
	}
}

// A backup is as good as Redis's own disk, and a running proxy that has it is in nobody's way.
func TestRedisCheckBesideServe(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := redisWorld(t, fmt.Sprintf(`url: "redis://%s", backup: backup`, server.Addr()))
	w.imported()
	w.serve()
	for range 2 {
		stdout := w.expect(exitOK, "", checkOnline, `^account acme: fine`)
		if strings.Contains(stdout, "warning") {
			t.Errorf("it warns:\n%s", stdout)
		}
		w.imported()
	}
}

func TestRedisCheckForms(t *testing.T) {
	t.Parallel()
	t.Run("TLS", func(t *testing.T) {
		server := redistest.Start(t, redistest.TLS(), redistest.Persistent())
		files := server.Files()
		w := redisWorld(t, fmt.Sprintf(`url: "rediss://%s", tls: {ca: %q, cert: %q, key: %q}`, server.Addr(), files.CA, files.Cert, files.Key))
		w.imported()
		w.expect(exitOK, "", checkOnline, `^redis \S+: fine`)
		w.shared(fmt.Sprintf(`url: "rediss://%s", tls: {ca: %q}`, server.Addr(), files.CA))
		w.expect(exitFailed, "", checkOnline, `^freeagent-proxy: store: .*certificate`) // told by Redis, or, if it was quicker to hang up, by us
		w.shared(fmt.Sprintf(`url: "redis://%s"`, server.Addr()))
		w.expect(exitFailed, "", checkOnline, `^freeagent-proxy: store: .*; Redis closed the connection: if it runs, it may want TLS`)
	})
	t.Run("Sentinel", func(t *testing.T) {
		watched := redistest.Sentinel(t, redistest.Persistent())
		w := redisWorld(t, fmt.Sprintf(`url: "redis-sentinel://%s/%s", wait_replicas: 1`, watched.Addrs()[0], redistest.MasterName))
		w.imported()
		w.expect(exitOK, "", checkOnline, `^warning: redis master fap: min-replicas-to-write is 0: .* spent twice; set min-replicas-to-write 1 `)
		if err := watched.Master.Client(t).ConfigSet(t.Context(), "min-replicas-to-write", "1").Err(); err != nil {
			t.Fatal(err)
		}
		stdout := w.expect(exitOK, "", checkOnline, `^redis master fap: fine \(Redis 7\S*, 1 replica\)$`)
		if strings.Contains(stdout, "warning") {
			t.Errorf("it warns:\n%s", stdout)
		}
		w.shared(fmt.Sprintf(`url: "redis://%s"`, watched.Replica.Addr()))
		w.expect(exitFailed, "", checkOnline, `it is a replica, which cannot be written; name its master, or the Sentinels`)
	})
	t.Run("Cluster", func(t *testing.T) {
		nodes := redistest.Cluster(t)
		args := []any{"acl", "setuser", "proxy", "on", ">" + userPassword}
		for _, rule := range documentedRules(t) {
			args = append(args, rule)
		}
		for _, s := range nodes.Servers {
			if err := s.Client(t).Do(t.Context(), args...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		w := redisWorld(t, fmt.Sprintf(`url: "redis-cluster://%s", username: proxy, password_env: FREEAGENT_PROXY_REDIS_PASSWORD`, strings.Join(nodes.Addrs(), ",")))
		w.imported()
		stdout := w.expect(exitOK, "", checkOnline)
		if n := len(regexp.MustCompile(`(?m)^redis \S+: fine`).FindAllString(stdout, -1)); n != len(nodes.Servers) {
			t.Errorf("%d masters are fine, want %d:\n%s", n, len(nodes.Servers), stdout)
		}
		w.shared(fmt.Sprintf(`url: "redis://%s"`, nodes.Addrs()[0]))
		w.expect(exitFailed, "", checkOnline, `part of a Redis Cluster; name it in its Cluster form`)
	})
}

func TestRedisVersion(t *testing.T) {
	for text, want := range map[string]bool{
		"redis_version:6.2.14\r\n":                        true,
		"redis_version:7.0.15\r\n":                        false,
		"redis_version:7.2.4\r\nvalkey_version:8.1.0\r\n": false,
		"redis_version:10.0.0\r\n":                        false,
		"":                                                false, // it does not say
	} {
		if err := readInfo(text).tooOld(); (err != nil) != want {
			t.Errorf("%q: %v, want too old: %v", text, err, want)
		}
	}
}
