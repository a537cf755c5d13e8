package admin_test

import (
	"context"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"freeagent-proxy/internal/admin"
	"freeagent-proxy/internal/browsertest"
)

// evil is what a program can put where the page shows it, and an operator into a name.
const evil = `"><img src=x onerror="document.title='owned'"><script>document.title='owned'</script>{{.}}`

// everything is a Status with all that the page can show.
func everything(now time.Time) admin.Status {
	at := func(d time.Duration) *time.Time { t := now.Add(d); return &t }
	windows := func(minute, hour int, used map[string]int) []admin.Window {
		more := map[string]int{}
		for client, n := range used {
			more[client] = n * 11
		}
		return []admin.Window{{120, "1m", minute, used}, {3600, "1h", hour, more}}
	}
	years := 7304 * 24 * time.Hour
	return admin.Status{
		Version: "1.4.0", StartedAt: now.Add(-75 * time.Hour), Now: now, Ready: true,
		Store:  admin.Store{Kind: "redis", Up: true, State: "linked", Replicas: 3},
		Egress: &admin.Budget{Windows: []admin.Window{{1000, "1m", 893, map[string]int{"billing": 61, "nightly": 40, "refresh": 6}}}},
		Accounts: []admin.Account{
			{
				Name: "acme", Default: true, App: "main", Company: "Acme Widgets Ltd", State: "ok",
				AccessObtainedAt: at(-23 * time.Minute), AccessExpiresAt: at(37 * time.Minute), RefreshExpiresAt: at(years),
				LastRefresh: &admin.LastRefresh{At: now.Add(-23 * time.Minute), Outcome: "ok"},
				Budget:      admin.Budget{Windows: windows(61, 2951, map[string]int{"billing": 31, "nightly": 22, "reports": 6}), Queue: 4},
			},
			{
				Name: "beta", App: "main", Company: "Beta & Sons", State: "ok",
				AccessObtainedAt: at(-3 * time.Minute), AccessExpiresAt: at(57 * time.Minute), RefreshExpiresAt: at(years),
				LastRefresh: &admin.LastRefresh{At: now.Add(-3 * time.Minute), Outcome: "ok"},
				Budget: admin.Budget{
					Windows: windows(0, 402, map[string]int{"nightly": 120, "billing": 2}), Queue: 17, PausedUntil: at(42 * time.Second),
				},
			},
			{
				Name: "gone", App: "main", Company: "Gone Ltd", State: "reauthorise",
				Reason:           "FreeAgent refuses the grant; authorise again, or correct the app's client id and secret",
				AccessObtainedAt: at(-3 * time.Hour), AccessExpiresAt: at(-2 * time.Hour), RefreshExpiresAt: at(30 * time.Hour),
				LastRefresh: &admin.LastRefresh{At: now.Add(-90 * time.Second), Outcome: "refused"}, NextTry: at(4 * time.Minute),
				Budget: admin.Budget{Windows: windows(120, 3600, nil)},
			},
			{Name: "new", App: "second", State: "unauthorised", Reason: "the account was never authorised", Budget: admin.Budget{Windows: windows(120, 3600, nil)}},
			{
				Name: "practice", App: "main", Company: "Sums & Partners", State: "trouble", Unsaved: true, Reason: "the newest tokens could not be stored: disk full",
				AccessObtainedAt: at(-59 * time.Minute), AccessExpiresAt: at(61 * time.Second), RefreshExpiresAt: at(years),
				LastRefresh: &admin.LastRefresh{At: now.Add(-5 * time.Second), Outcome: "trouble"}, NextTry: at(3 * time.Second),
				Budget: admin.Budget{Windows: windows(119, 3001, map[string]int{"legacy": 1})},
				Companies: []admin.Company{
					{"client-one", admin.Budget{Windows: windows(17, 2800, map[string]int{"legacy": 103})}},
					{"client-two", admin.Budget{Windows: windows(119, 3001, map[string]int{"legacy": 1}), Queue: 2, PausedUntil: at(9 * time.Second)}},
				},
			},
		},
		Incidents: []admin.Incident{
			{now.Add(-4 * time.Second), "6f1c0a52-11", "nightly", "beta", "GET", "/v2/bank_transactions", 429, "the budget is used up for longer than the request may wait"},
			{now.Add(-2 * time.Minute), "6f1c0a52-10", evil, "acme", "GET", "/v2/" + evil, 403, evil},
			{At: now.Add(-3 * time.Minute), Account: "practice", Reason: "the newest tokens could not be stored and serve from memory; see to the store before the proxy stops"},
			{now.Add(-40 * time.Minute), "6f1c0a52-09", "billing", "acme", "POST", "/v2/invoices", 504, "FreeAgent did not answer in time; it may have acted"},
		},
	}
}

// serve is a page that shows what status says.
func serve(t *testing.T, status func() admin.Status) string {
	t.Helper()
	upstream, _ := url.Parse("https://api.freeagent.com")
	server := httptest.NewServer(admin.New(admin.Config{Status: func(context.Context) admin.Status { return status() }, FreeAgent: upstream}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestLooks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	page := serve(t, func() admin.Status { return everything(now) })
	ctx := browsertest.Start(t)
	complaints := browsertest.Complaints(ctx)
	for _, scheme := range []string{"light", "dark"} {
		for name, width := range map[string]int64{"desk": 1280, "phone": 360} {
			browsertest.Look(t, ctx, width, scheme)
			browsertest.Open(t, ctx, page)
			browsertest.Evaluate[any](t, ctx, `document.querySelector("details").open = true`)
			browsertest.Picture(t, ctx, name+"-"+scheme)
			if wide := browsertest.Evaluate[int64](t, ctx, "document.documentElement.scrollWidth"); wide > width {
				t.Errorf("%s: the page is %d wide in a window of %d", name, wide, width)
			}
		}
	}
	if title := browsertest.Evaluate[string](t, ctx, "document.title"); title != "freeagent-proxy: ready" {
		t.Errorf("the title is %q", title)
	}
	if got := complaints(); len(got) != 0 {
		t.Errorf("the browser complains: %q", got)
	}
}
