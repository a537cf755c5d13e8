package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/admin"
	"freeagent-proxy/internal/simulator"
)

// observed is a proxy whose operator looks at it.
type observed struct {
	*world
	url, admin string
}

func newObserved(w *world) *observed {
	w.t.Helper()
	p, url := w.serve()
	addresses, err := p.listening()
	if err != nil {
		w.t.Fatal(err)
	}
	return &observed{w, url, "http://" + addresses[len(addresses)-1]}
}

// look is the answer of /api/status, in which there must be no secret.
func (s *observed) look() (now admin.Status, raw []byte) {
	s.t.Helper()
	status, raw, err := get(s.admin + "/api/status")
	if err != nil || status != http.StatusOK {
		s.t.Fatalf("/api/status: status %d, %v: %s", status, err, raw)
	}
	for _, never := range []string{mark, tokenBegin, clientSecret} {
		if strings.Contains(string(raw), never) {
			s.t.Errorf("%q in /api/status: %s", never, raw)
		}
	}
	if err := json.Unmarshal(raw, &now); err != nil {
		s.t.Fatalf("/api/status: %v: %s", err, raw)
	}
	return now, raw
}

// visit looks at the page, for which FreeAgent is asked for names.
func (s *observed) visit() {
	s.t.Helper()
	if status, page, err := get(s.admin + "/"); err != nil || status != http.StatusOK {
		s.t.Fatalf("the page: status %d, %v: %s", status, err, page)
	}
}

// of is one of its accounts.
func (s *observed) of(account string) admin.Account {
	s.t.Helper()
	now, _ := s.look()
	for _, a := range now.Accounts {
		if a.Name == account {
			return a
		}
	}
	s.t.Fatalf("no account %q in %+v", account, now.Accounts)
	return admin.Account{}
}

// ask sends so many requests of a client's, one after the other, each with more header lines, and returns the last status.
func (s *observed) ask(ctx context.Context, n int, client, path string, header ...string) (status int) {
	s.t.Helper()
	for range n {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		req.Header.Set("X-Api-Key", mark+client)
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Set(name, value)
		}
		resp, err := oneShot.Do(req)
		if ctx.Err() != nil {
			return 0
		}
		if err != nil {
			s.t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		status = resp.StatusCode
	}
	return status
}

const statusClients = `clients:
  billing: {key_sha256: %s, weight: 4}
  nightly: {key_sha256: %s}
`

func twoClients() string {
	return fmt.Sprintf(statusClients, hexDigest(mark+"billing"), hexDigest(mark+"nightly"))
}

// newManyAccounts makes a world with one account for each state.
func newManyAccounts(t *testing.T) *observed {
	w := newSimulated(t, simulator.Config{Enforcement: simulator.EnforceOff, PracticeUsers: []string{"practice"}}, "")
	config := fmt.Sprintf(`listen: 127.0.0.1:0
admin: {listen: 127.0.0.1:0}
upstream: {base_url: %s}
store: {file: store}
apps: {main: {client_id: tests, client_secret_env: FREEAGENT_CLIENT_SECRET}}
accounts:
  acme: {app: main, default: true}
  dead: {app: main}
  never: {app: main}
  paused: {app: main, rate_limit_test: true}
  practice: {app: main, practice: true}
limits: {api: [{requests: 20, per: 1m}, {requests: 400, per: 1h}], max_wait: 10m}
`, w.simURL) + twoClients()
	if err := os.WriteFile(filepath.Join(w.folder, "config.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"acme", "dead", "paused", "practice"} {
		p := w.start("accounts", "import", name)
		_, _ = io.WriteString(p.stdin, w.sim.Authorize(name))
		p.stdin.Close()
		if code, err := p.wait(); err != nil || code != exitOK {
			t.Fatalf("%s: exit code %d, %v; stderr: %s", p, code, err, &p.stderr)
		}
	}
	return newObserved(w)
}

// windowsText is what is left of windows, and who used it.
func windowsText(b admin.Budget) string {
	var text []string
	for _, w := range b.Windows {
		text = append(text, fmt.Sprintf("%d of %d in %s, %v", w.Remaining, w.Requests, w.Per, w.UsedBy))
	}
	return strings.Join(text, "; ")
}

// What the operator of one process is told, with two clients, a practice, and an account in each state.
func TestStatus(t *testing.T) {
	t.Parallel()
	s := newManyAccounts(t)
	ctx, stop := context.WithCancel(t.Context())
	before, _ := s.look()
	asked := func() (n int) {
		for _, r := range s.arrivals() {
			if r.Target == "/v2/company" {
				n++
			}
		}
		return n
	}
	for range 10 {
		if s.look(); asked() != 0 {
			t.Fatal("a program that watches /api/status has cost a request")
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.visit()
	eventually(t, "the company's name", func() bool {
		return s.of("acme").Company == "Acme Ltd" && s.of("dead").Company == "Dead Ltd" && s.of("paused").Company == "Paused Ltd"
	})
	s.ask(ctx, 3, "billing", "/v2/contacts")
	s.ask(ctx, 2, "nightly", "/v2/contacts")
	s.ask(ctx, 2, "nightly", "/accounts/practice/v2/contacts", "X-Subdomain: One")
	s.ask(ctx, 1, "billing", "/accounts/practice/v2/contacts", "X-Subdomain: two")
	s.sim.RevokeAll("dead")
	if got := s.ask(ctx, 1, "nightly", "/accounts/dead/v2/contacts"); got != http.StatusServiceUnavailable {
		t.Errorf("status %d of a dead grant, want 503", got)
	}
	s.awaitIncidents("dead", 1) // which may come after the answer
	if got := s.ask(ctx, 3, "nightly", "/accounts/never/v2/contacts"); got != http.StatusServiceUnavailable {
		t.Errorf("status %d without a grant, want 503", got)
	}
	s.awaitIncidents("never", 3)
	if _, err := s.sim.Fault(simulator.Fault{Match: simulator.Match{PathPrefix: "/v2/projects"}, Kind: simulator.FaultRateLimited, RetryAfter: 100}); err != nil {
		t.Fatal(err)
	}
	if got := s.ask(ctx, 1, "billing", "/accounts/paused/v2/projects", "X-Request-Id: the-429", "Prefer: wait=10"); got != http.StatusTooManyRequests {
		t.Errorf("status %d, want FreeAgent's 429", got)
	}
	s.awaitIncidents("paused", 1)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer stop()
	for range 2 {
		waiting.Go(func() { s.ask(ctx, 1, "nightly", "/accounts/paused/v2/contacts") })
	}
	eventually(t, "two wait", func() bool { return s.of("paused").Queue == 2 })
	s.checkAccounts()
	s.checkTokens(before)
	s.checkIncidents()
	for range 10 {
		s.look()
	}
	if n := asked(); n != 3 {
		t.Errorf("FreeAgent was asked %d times for a company's name, want 3: once for each account that has one", n)
	}
}

// awaitIncidents waits until so many requests of an account that came to nothing are told of.
func (s *observed) awaitIncidents(account string, want int) {
	s.t.Helper()
	eventually(s.t, "trouble of "+account, func() bool {
		n := 0
		now, _ := s.look()
		for _, i := range now.Incidents {
			if i.Status != 0 && i.Account == account {
				n += i.Count
			}
		}
		return n == want
	})
}

func (s *observed) checkAccounts() {
	s.t.Helper()
	for name, want := range map[string][2]string{
		"acme":     {"ok", "14 of 20 in 1m, map[billing:3 freeagent-proxy:1 nightly:2]; 394 of 400 in 1h, map[billing:3 freeagent-proxy:1 nightly:2]"},
		"never":    {"unauthorised", "20 of 20 in 1m, map[]; 400 of 400 in 1h, map[]"},
		"practice": {"ok", "20 of 20 in 1m, map[]; 400 of 400 in 1h, map[]"},
		"dead":     {"reauthorise", "18 of 20 in 1m, map[freeagent-proxy:1 nightly:1]; 398 of 400 in 1h, map[freeagent-proxy:1 nightly:1]"},
		"paused":   {"ok", "0 of 20 in 1m, map[billing:1 freeagent-proxy:1]; 0 of 400 in 1h, map[billing:1 freeagent-proxy:1]; 0 of 5 in 1m, map[billing:1 freeagent-proxy:1]"},
	} {
		a := s.of(name)
		if got := windowsText(a.Budget); a.State != want[0] || got != want[1] {
			s.t.Errorf("%s is %s, with %s; want %s, with %s", name, a.State, got, want[0], want[1])
		}
		if (a.Reason == "") != (a.State == "ok") || a.Default != (name == "acme") || a.App != "main" {
			s.t.Errorf("%s: %+v", name, a)
		}
		for _, w := range a.Windows {
			if shrunk := w.Allowed < w.Requests; shrunk != (name == "paused") { // FreeAgent's limit was reached before ours
				s.t.Errorf("%s: %d of %d are allowed", name, w.Allowed, w.Requests)
			}
		}
		if paused := a.PausedUntil != nil; paused != (name == "paused") {
			s.t.Errorf("%s is paused: %v", name, paused)
		}
	}
	if until := time.Until(*s.of("paused").PausedUntil); until < 50*time.Second || until > 100*time.Second {
		s.t.Errorf("paused for another %s, want nearly 100 s", until)
	}
	var companies []string
	for _, c := range s.of("practice").Companies {
		companies = append(companies, c.Subdomain+": "+windowsText(c.Budget))
	}
	want := []string{
		"one: 18 of 20 in 1m, map[nightly:2]; 398 of 400 in 1h, map[nightly:2]",
		"two: 19 of 20 in 1m, map[billing:1]; 399 of 400 in 1h, map[billing:1]",
	}
	if fmt.Sprint(companies) != fmt.Sprint(want) {
		s.t.Errorf("companies %q, want %q", companies, want)
	}
}

// checkTokens looks at times.
func (s *observed) checkTokens(before admin.Status) {
	s.t.Helper()
	now, _ := s.look()
	if !now.Ready || now.Store != (admin.Store{Kind: "file", Up: true, State: local}) || now.Version != version {
		s.t.Errorf("%+v", now)
	}
	if up := now.Now.Sub(now.StartedAt); !now.StartedAt.Equal(before.StartedAt) || up < 0 || up > time.Minute || time.Since(now.Now).Abs() > time.Minute {
		s.t.Errorf("started at %s, then at %s; now %s", before.StartedAt, now.StartedAt, now.Now)
	}
	a, never := s.of("acme"), s.of("never")
	if age := now.Now.Sub(*a.AccessObtainedAt); age < 0 || age > time.Minute {
		s.t.Errorf("the access token is %s old", age)
	}
	if life := a.AccessExpiresAt.Sub(*a.AccessObtainedAt); life < 59*time.Minute || life > time.Hour {
		s.t.Errorf("the access token lives %s", life)
	}
	if a.RefreshExpiresAt == nil || !a.RefreshExpiresAt.After(*a.AccessExpiresAt) || a.LastRefresh == nil || a.LastRefresh.Outcome != "ok" {
		s.t.Errorf("acme: %+v", a)
	}
	if never.AccessObtainedAt != nil || never.AccessExpiresAt != nil || never.RefreshExpiresAt != nil || never.LastRefresh != nil {
		s.t.Errorf("never: %+v", never)
	}
	if dead := s.of("dead"); dead.LastRefresh == nil || dead.LastRefresh.Outcome != "refused" || dead.NextTry == nil {
		s.t.Errorf("dead: %+v", dead)
	}
	used := now.Egress.Windows[0].UsedBy
	if total := len(s.arrivals()); now.Egress.Windows[0].Requests-now.Egress.Windows[0].Remaining != total+used["refresh"] || used["nightly"] == 0 {
		s.t.Errorf("egress: %+v, of %d requests", now.Egress, total)
	}
}

func (s *observed) checkIncidents() {
	s.t.Helper()
	now, _ := s.look()
	var got []string
	for _, i := range now.Incidents {
		if i.Status != 0 {
			got = append(got, fmt.Sprint(i.Status, " ", i.Client, " ", i.Account, " ", i.Method, " ", i.Path, " ", i.Count))
		}
		if i.RequestID == "" && i.Status != 0 || i.Reason == "" || i.At.IsZero() {
			s.t.Errorf("%+v", i)
		}
	}
	want := []string{
		"429 billing paused GET /accounts/paused/v2/projects 1",
		"503 nightly never GET /accounts/never/v2/contacts 3",
		"503 nightly dead GET /accounts/dead/v2/contacts 1",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Errorf("incidents %q, want %q", got, want)
	}
	warned := slices.ContainsFunc(now.Incidents, func(i admin.Incident) bool {
		return i.Account == "dead" && strings.HasPrefix(i.Reason, "FreeAgent refuses the grant; run `freeagent-proxy authorize`")
	})
	if !warned || now.Incidents[0].RequestID != "the-429" {
		s.t.Errorf("the log's error is there: %v; the newest is %+v", warned, now.Incidents[0])
	}
}

// The names that others' programs read, as they are promised.
func TestStatusContract(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, "")
	w.authorise(w.sim.Authorize("owner"))
	s := newObserved(w)
	_, raw := s.look()
	var got struct {
		Accounts []map[string]json.RawMessage `json:"accounts"`
		Store    map[string]json.RawMessage   `json:"store"`
	}
	if err := json.Unmarshal(raw, &got); err != nil || len(got.Accounts) != 1 {
		t.Fatalf("%v: %s", err, raw)
	}
	has := func(what string, object map[string]json.RawMessage, names ...string) {
		t.Helper()
		for _, name := range names {
			if _, ok := object[name]; !ok {
				t.Errorf("%s has no %s: %s", what, name, raw)
			}
		}
	}
	object := func(raw json.RawMessage) (o map[string]json.RawMessage) {
		t.Helper()
		if err := json.Unmarshal(raw, &o); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		return o
	}
	a := got.Accounts[0]
	has("an account", a, "name", "state", "reason", "access_expires_at", "refresh_expires_at", "last_refresh", "budget", "paused_until", "queue")
	has("the last refresh", object(a["last_refresh"]), "at", "outcome")
	has("the store", got.Store, "kind", "up")
	var windows []map[string]json.RawMessage
	if err := json.Unmarshal(a["budget"], &windows); err != nil || len(windows) != 2 {
		t.Fatalf("%v: %s", err, raw)
	}
	has("a window", windows[0], "requests", "per", "remaining", "used_by")
	for what, want := range map[string]string{"requests": "120", "per": `"1m"`, "remaining": "120", "used_by": "{}"} {
		if got := string(windows[0][what]); got != want {
			t.Errorf("%s is %s, want %s", what, got, want)
		}
	}
	if string(a["paused_until"]) != "null" || string(a["queue"]) != "0" || string(object(raw)["incidents"]) != "[]" {
		t.Errorf("what is not there is not said as promised: %s", raw)
	}
}
