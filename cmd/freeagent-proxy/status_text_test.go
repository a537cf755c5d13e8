package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"freeagent-proxy/internal/admin"
)

// asked runs status, with a proxy at the configured address that answers so, and returns exit code and output.
func asked(t *testing.T, answer http.HandlerFunc, settings string, env ...string) (code int, stdout, stderr string) {
	t.Helper()
	server := httptest.NewServer(answer)
	defer server.Close()
	config := fmt.Sprintf(`admin: {listen: "%s"%s}
store: {file: store}
apps: {main: {client_id: tests, client_secret_env: FREEAGENT_CLIENT_SECRET}}
accounts: {acme: {app: main}}
`, strings.TrimPrefix(server.URL, "http://"), settings)
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, complaints bytes.Buffer
	getenv := fakeEnv(append(env, "FREEAGENT_CLIENT_SECRET=s", "HTTP_PROXY=http://127.0.0.1:1")...)
	code = run(t.Context(), []string{"status", "--config", path}, getenv, strings.NewReader(""), &out, &complaints)
	return code, out.String(), complaints.String()
}

// With the password it is let in, without it or with another one it says what to do, and never what the password is.
func TestStatusPassword(t *testing.T) {
	t.Parallel()
	const password = mark + "-password"
	guarded := func(w http.ResponseWriter, r *http.Request) {
		if _, shown, _ := r.BasicAuth(); shown != password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(admin.Status{Version: "1"})
	}
	tests := map[string]struct {
		answer   http.HandlerFunc
		settings string
		password string
		code     int
		stderr   string
	}{
		"right":   {guarded, ", password_env: P", password, exitOK, ""},
		"wrong":   {guarded, ", password_env: P", mark + "-wrong", exitFailed, "the running proxy does not take the admin password; what admin.password_env or admin.password_file names must hold what it holds for the proxy\n"},
		"none":    {guarded, "", "", exitFailed, "the running proxy wants the admin password, and this configuration names none; give this command the proxy's configuration, with what admin.password_env or admin.password_file names\n"},
		"not set": {guarded, ", password_env: P", "", exitFailed, "admin.password_env: the environment variable P is not set"},
		"throttled": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "too many wrong passwords;\nwait a minute", http.StatusTooManyRequests)
		}, ", password_env: P", password, exitFailed, "what answers on admin.listen says 429: too many wrong passwords; wait a minute\n"},
		"another program": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "", "", exitFailed,
			"what answers on admin.listen is no freeagent-proxy, or one of another version: "},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://example.com/", http.StatusFound)
		}, "", "", exitFailed,
			"what answers on admin.listen says 302: "},
	}
	for name, test := range tests {
		code, stdout, stderr := asked(t, test.answer, test.settings, "P="+test.password)
		if code != test.code || !strings.Contains(stderr, test.stderr) || (stderr == "") != (test.stderr == "") {
			t.Errorf("%s: exit code %d, want %d; %q, want %q", name, code, test.code, stderr, test.stderr)
		}
		if strings.Contains(stdout+stderr, mark) || (stdout != "") != (code == exitOK) {
			t.Errorf("%s: stdout %q, stderr %q", name, stdout, stderr)
		}
	}
}

// A bad night, word for word.
func TestStatusText(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 6, 3, 12, 14, 5, 0, time.UTC)
	at := func(d time.Duration) *time.Time {
		when := now.Add(d)
		return &when
	}
	window := func(requests, allowed, remaining int, used map[string]int) admin.Window {
		return admin.Window{Requests: requests, Per: "1m", Allowed: allowed, Remaining: remaining, UsedBy: used}
	}
	s := &admin.Status{
		Version: "1.2.3", StartedAt: now.Add(-73 * time.Hour), Now: now, Reason: "account acme: getting an access token",
		Store: admin.Store{Kind: "redis", State: "alone", Replicas: 3},
		Accounts: []admin.Account{
			{
				Name: "acme", Default: true, App: "main", Company: "Acme\x1b[2J Ltd", State: "trouble", Reason: "no refresh for now,\nit is tried again", Unsaved: true,
				AccessObtainedAt: at(-3 * time.Hour), AccessExpiresAt: at(-2 * time.Hour), RefreshExpiresAt: at(24 * time.Hour),
				LastRefresh: &admin.LastRefresh{At: *at(-5 * time.Minute), Outcome: "trouble"}, NextTry: at(8 * time.Second),
				Budget: admin.Budget{Queue: 1200, Windows: []admin.Window{window(120, 40, 3, map[string]int{
					"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": 7, "h": 1000,
				})}},
			},
			{
				Name: "dead", State: "reauthorise", Reason: "FreeAgent refuses the grant: token endpoint answered 401: authorise again, or check client id and secret", AccessExpiresAt: at(59 * time.Second), RefreshExpiresAt: at(-time.Hour),
				Budget: admin.Budget{PausedUntil: at(time.Hour), Windows: []admin.Window{window(120, 120, 0, nil)}},
				Companies: []admin.Company{
					{Subdomain: "one", Budget: admin.Budget{Windows: []admin.Window{window(120, 120, 119, nil)}}},
					{Subdomain: "twenty-two", Budget: admin.Budget{Queue: 1, Windows: []admin.Window{window(120, 120, 1, nil)}}},
				},
			},
		},
		Incidents: []admin.Incident{
			{At: *at(-time.Second), Count: 1, Reason: "Redis cannot be reached"},
			{At: *at(-90 * time.Minute), Count: 1234, Status: 504, Method: "POST", Path: "/v2/inv\x1boices", Client: "billing", Account: "acme", RequestID: "r1", Reason: "no progress"},
		},
	}
	for range shownIncidents {
		s.Incidents = append(s.Incidents, admin.Incident{At: now, Count: 1, Reason: "older"})
	}
	got := string(statusText(s))
	want := `freeagent-proxy 1.2.3, up for 3 days: NOT READY: account acme: getting an access token
store: redis, DOWN: requests go on within this replica's share of the limits, tokens cannot be renewed; see to Redis

account acme (Acme [2J Ltd), the default
  state          IN TROUBLE: no refresh for now, it is tried again
  access token   ended 2h 0m ago; renewed when a program calls
                 IN MEMORY ONLY: see to the store before this process ends
  refresh token  good for another 24h 0m, until 4 June 2026
  last refresh   5m ago: trouble
  next try       in 8s
  120 in 1m      [#.........] 3 left; used by h 1,000, g 7, f 6, e 5, d 4, c 3, and 2 more
                 ONLY 40 of 120 in 1m are ours now: each replica keeps to its share while Redis is away
                 1,200 requests waiting here

account dead
  state          MUST BE AUTHORISED AGAIN: FreeAgent refuses the grant: token endpoint answered 401: authorise again, or check client id and secret; press Reconnect on the admin page or run ` + "`freeagent-proxy authorize --account dead`" + `
  access token   good for another 59s
  refresh token  ENDED on 3 June 2026
  120 in 1m      [..........] 0 left
                 PAUSED for another 60m: FreeAgent answered 429
  companies in use (the 50 busiest)
    one         [#########.] 119 of 120 in 1m
    twenty-two  [#.........] 1 of 120 in 1m    1 request waiting here

recent trouble at this process, the newest first
  1s ago: Redis cannot be reached
  90m ago, 1,234 times: no progress
    504, POST /v2/inv oices, client billing, account acme, request r1
` + strings.Repeat("  0s ago: older\n", shownIncidents-2) + "  and 2 more; status --json has them\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Whatever answers on admin.listen moves no cursor of the operator's terminal, and adds no line.
func TestStatusTextOfAFolder(t *testing.T) {
	t.Parallel()
	for up, want := range map[bool]string{true: "store: file, up\n", false: "store: file, FAILS: a grant cannot be read or written; "} {
		text := string(statusText(&admin.Status{Store: admin.Store{Kind: "file", Up: up, State: local}}))
		if !strings.Contains(text, want) {
			t.Errorf("up %v: want %q in %s", up, want, text)
		}
	}
}

func TestStatusTextIsPlain(t *testing.T) {
	t.Parallel()
	say := func(text string) (all []string) {
		now := time.Now()
		window := admin.Window{Requests: 2, Per: text, Allowed: 1, UsedBy: map[string]int{text: 1}}
		budget := admin.Budget{Windows: []admin.Window{window}, Queue: 1}
		for _, state := range []string{"reauthorise", "unauthorised", text} {
			all = append(all, string(statusText(&admin.Status{
				Version: text, Now: now, StartedAt: now, Reason: text, Store: admin.Store{Kind: text, State: state}, Egress: &budget,
				Accounts: []admin.Account{{Name: text, App: text, Company: text, State: state, Reason: text, Budget: budget,
					LastRefresh: &admin.LastRefresh{At: now, Outcome: text}, Companies: []admin.Company{{Subdomain: text, Budget: budget}}}},
				Incidents: []admin.Incident{{At: now, RequestID: text, Client: text, Account: text, Method: text, Path: text, Status: 1, Reason: text}},
			})))
		}
		return all
	}
	plain, hostile := say("x"), say("x\x1b[2J\r\n\t\u009b2J\x7f\u202ex")
	for i, text := range hostile {
		if got, want := strings.Count(text, "\n"), strings.Count(plain[i], "\n"); got != want {
			t.Errorf("%d lines, want %d: %q", got, want, text)
		}
		if odd := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); odd >= 0 {
			t.Errorf("%q in %q", text[odd:odd+1], text)
		}
	}
}
