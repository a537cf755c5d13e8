package admin_test

import (
	"context"
	"fmt"
	"html"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/admin"
)

// text is what a person reads of the page that shows a Status.
func text(t *testing.T, s admin.Status) string {
	t.Helper()
	w := httptest.NewRecorder()
	req := httptest.NewRequest("GET", "http://localhost/live", nil)
	admin.New(admin.Config{Status: func(context.Context, bool) admin.Status { return s }}).ServeHTTP(w, req)
	plain := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(w.Body.String(), " ")
	return html.UnescapeString(regexp.MustCompile(`\s+`).ReplaceAllString(plain, " "))
}

func TestTimesInWords(t *testing.T) {
	now := time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, test := range []struct {
		got, ends, refresh time.Duration // from now
		want               string
	}{
		{-23 * time.Minute, 37 * time.Minute, 7304 * day, "Access token 23 minutes old , ends in 37 minutes Refresh token 7,304 days left"},
		{-90 * time.Second, 90 * time.Second, 47 * time.Hour, "Access token 90 seconds old , ends in 90 seconds Refresh token 47 hours left"},
		{-119 * time.Minute, -59 * time.Minute, -3 * day, "Access token 119 minutes old , ended 59 minutes ago Refresh token ended 3 days ago"},
		{-time.Second, time.Second, 48 * time.Hour, "Access token 1 second old , ends in 1 second Refresh token 2 days left"},
		{time.Second, 0, 800 * day, "Access token 0 seconds old , ends now Refresh token 800 days left"},
	} {
		at := func(d time.Duration) *time.Time { t := now.Add(d); return &t }
		s := admin.Status{Now: now, Accounts: []admin.Account{{
			Name: "acme", State: "ok", AccessObtainedAt: at(test.got), AccessExpiresAt: at(test.ends), RefreshExpiresAt: at(test.refresh),
		}}}
		if got := text(t, s); !strings.Contains(got, test.want) {
			t.Errorf("%+v: got %s", test, got)
		}
	}
}

// An account of which nothing is known yet, and what an old or a new proxy may say, make a page, too.
func TestSparseStatus(t *testing.T) {
	for _, state := range []string{"ok", "reauthorise", "unauthorised", "trouble", "novel", ""} {
		s := admin.Status{Accounts: []admin.Account{{Name: "acme", State: state}}, Egress: &admin.Budget{}, Incidents: []admin.Incident{{}}}
		s.Accounts[0].Windows = []admin.Window{{}, {Requests: 10, Per: "90s", Remaining: 99}, {Requests: 10, Per: "100ms", Remaining: -5, UsedBy: map[string]int{"a": 99}}}
		got := text(t, s)
		if !strings.Contains(got, "acme") || strings.Contains(got, "%!") || strings.Contains(got, "<nil>") {
			t.Errorf("%q: %s", state, got)
		}
		if state == "ok" && !strings.Contains(got, "In any 90 seconds 10 of 10 left In any 100ms 0 of 10 left") {
			t.Errorf("%q: %s", state, got)
		}
	}
	if got := text(t, admin.Status{}); !strings.Contains(got, "No accounts are configured") || !strings.Contains(got, "None since this proxy started") {
		t.Error(got)
	}
}

// A budget that is smaller than its window, replicas that are cut off, and what happened often.
func TestWorseThanUsual(t *testing.T) {
	got := text(t, admin.Status{
		Store: admin.Store{Kind: "redis", Up: true, State: "linked", Replicas: 2, Silent: 1},
		Accounts: []admin.Account{{Name: "acme", State: "ok", Budget: admin.Budget{
			Windows: []admin.Window{{Requests: 120, Allowed: 60, Per: "1m", Remaining: 12}},
		}}},
		Incidents: []admin.Incident{{Reason: "over the limit", Count: 1200}, {Reason: "not found", Count: 1}},
	})
	for _, want := range []string{"12 left, 60 of 120 allowed now", "2 replicas; 1 more cannot reach it", "over the limit (1200 times)"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	if strings.Contains(got, "(1 times)") {
		t.Error(got)
	}
}

// A store that fails is not said to work.
func TestStoreInWords(t *testing.T) {
	for want, store := range map[string]admin.Store{
		"File store works": {Kind: "file", Up: true, State: "local"},
		"File store fails An authorisation cannot be read or written; the account says why": {Kind: "file", State: "local"},
		"Redis does not answer Requests go on from memory":                                  {Kind: "redis", State: "alone"},
	} {
		if got := text(t, admin.Status{Store: store}); !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

// Many clients, as a flood of names may make, are a list that ends.
func TestManyClients(t *testing.T) {
	used := map[string]int{}
	for n := range 500 {
		used[fmt.Sprintf("client-%03d", n)] = 1
	}
	s := admin.Status{Accounts: []admin.Account{{Name: "acme", State: "ok", Budget: admin.Budget{Windows: []admin.Window{{Requests: 3600, Per: "1h", Remaining: 3100, UsedBy: used}}}}}}
	if got := text(t, s); !strings.Contains(got, "client-011") || strings.Contains(got, "client-012") || !strings.Contains(got, "and 488 more") {
		t.Error(got)
	}
}

func TestManyCompanies(t *testing.T) {
	practice := admin.Account{Name: "practice", State: "ok"}
	for n := range 1234 {
		practice.Companies = append(practice.Companies, admin.Company{Subdomain: fmt.Sprintf("company-%04d", n)})
	}
	got := text(t, admin.Status{Accounts: []admin.Account{practice}})
	if !strings.Contains(got, "1234 of its clients") || !strings.Contains(got, "company-0199") || strings.Contains(got, "company-0200") || !strings.Contains(got, "and 1034 more") {
		t.Errorf("%.3000s", got)
	}
}
