package admin_test

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

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
		return []admin.Window{
			{Requests: 120, Allowed: 120, Per: "1m", Remaining: minute, UsedBy: used},
			{Requests: 3600, Allowed: 3600, Per: "1h", Remaining: hour, UsedBy: more},
		}
	}
	years := 7304 * 24 * time.Hour
	return admin.Status{
		Version: "1.4.0", StartedAt: now.Add(-75 * time.Hour), Now: now, Ready: true,
		Store: admin.Store{Kind: "redis", Up: true, State: "linked", Replicas: 3},
		Egress: &admin.Budget{Windows: []admin.Window{
			{Requests: 1000, Allowed: 1000, Per: "1m", Remaining: 893, UsedBy: map[string]int{"billing": 61, "nightly": 40, "refresh": 6}},
		}},
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
			{now.Add(-4 * time.Second), 1, "6f1c0a52-11", "nightly", "beta", "GET", "/v2/bank_transactions", 429, "the budget is used up for longer than the request may wait"},
			{now.Add(-2 * time.Minute), 1, "6f1c0a52-10", evil, "acme", "GET", "/v2/" + evil, 403, evil},
			{At: now.Add(-3 * time.Minute), Account: "practice", Reason: "the newest tokens could not be stored and serve from memory; see to the store before the proxy stops"},
			{now.Add(-40 * time.Minute), 1, "6f1c0a52-09", "billing", "acme", "POST", "/v2/invoices", 504, "FreeAgent did not answer in time; it may have acted"},
		},
	}
}

// serve is a page that shows what status says.
func serve(t *testing.T, status func() admin.Status) string {
	t.Helper()
	upstream, _ := url.Parse("https://api.freeagent.com")
	server := httptest.NewServer(admin.New(admin.Config{Status: func(context.Context, bool) admin.Status { return status() }, FreeAgent: upstream}))
	t.Cleanup(server.Close)
	return server.URL
}

// The page fits on a desk and on a phone, light and dark, and nothing in it runs that is not its own. Its pictures are artifacts.
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
			browsertest.Evaluate[bool](t, ctx, `document.querySelector("details").open = true`)
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

// Where all cells of a column are empty, its heading is not broken within a word.
func TestHeadingsStayWhole(t *testing.T) {
	t.Parallel()
	now := time.Now()
	page := serve(t, func() admin.Status {
		return admin.Status{Version: "1.4.0", StartedAt: now, Now: now, Incidents: []admin.Incident{
			{At: now, Reason: "the configuration cannot be used, the former one holds on; correct it, `freeagent-proxy check` shows the same, and reload again"},
		}}
	})
	ctx := browsertest.Start(t)
	browsertest.Look(t, ctx, 1280, "light")
	browsertest.Open(t, ctx, page)
	broken := browsertest.Evaluate[string](t, ctx, `[...document.querySelectorAll("thead th")].filter(th => {
		const text = document.createRange();
		text.selectNodeContents(th);
		return text.getClientRects().length > th.textContent.split(" ").length;
	}).map(th => th.textContent).join(", ")`)
	if broken != "" {
		t.Errorf("broken headings: %s", broken)
	}
}

// What moves is brought up to date in place: the same nodes, nothing jumps, focus and what was opened stay, and a change of state is
// said to who cannot see it. When the proxy is gone the page says so, and goes on when it is back.
func TestLive(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var mu sync.Mutex
	status, fails := everything(now), false
	change := func(f func()) {
		mu.Lock()
		defer mu.Unlock()
		f()
	}
	inner := admin.New(admin.Config{Status: func(context.Context, bool) admin.Status {
		mu.Lock()
		defer mu.Unlock()
		return status
	}})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var failing bool
		change(func() { failing = fails })
		if failing {
			panic(http.ErrAbortHandler)
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	ctx := browsertest.Start(t)
	browsertest.Look(t, ctx, 1280, "light")
	browsertest.Open(t, ctx, server.URL+"/")
	browsertest.Evaluate[bool](t, ctx, `
		window.moved = 0;
		new PerformanceObserver(l => l.getEntries().forEach(e => window.moved += e.value)).observe({type: "layout-shift", buffered: true});
		window.card = document.querySelector("[data-key=acme]");
		window.bar = card.querySelector(".free");
		window.button = card.querySelector("button");
		button.focus();
		document.querySelector("details").open = true;
		window.moved = 0;
		true`)
	change(func() {
		acme := &status.Accounts[0]
		acme.Windows = slices.Clone(acme.Windows)
		acme.Windows[0].Remaining = 12
		acme.State, acme.Reason = "reauthorise", ""
		status.Ready = false
		status.Incidents = append([]admin.Incident{{At: now, RequestID: "newest", Status: 503, Reason: "no token"}}, status.Incidents...)
	})
	browsertest.Await(t, ctx, `card.innerText.includes("12 of 120 left")`)
	for _, expression := range []string{
		`card === document.querySelector("[data-key=acme]") && bar === card.querySelector(".free") && bar.getAttribute("width") === "100"`,
		`card.querySelector("[role=meter]").getAttribute("aria-valuenow") === "12"`,
		`button === document.activeElement && button.className === "primary"`,
		`document.querySelector("details").open`,
		`document.querySelector(".incidents tbody tr").innerText.includes("newest")`,
		`document.getElementById("said").textContent === "The proxy: Not ready. Account acme: Must be reconnected"`,
		`document.title === "freeagent-proxy: not ready"`,
		`moved < 0.01`,
	} {
		if !browsertest.Evaluate[bool](t, ctx, expression) {
			t.Errorf("not so: %s (moved %v)", expression, browsertest.Evaluate[float64](t, ctx, "moved"))
		}
	}
	change(func() { fails = true })
	browsertest.Await(t, ctx, `!document.getElementById("lost").hidden && document.getElementById("lost").textContent.startsWith("The proxy does not answer.")`)
	change(func() { fails = false; status.Accounts = status.Accounts[1:] })
	browsertest.Await(t, ctx, `document.getElementById("lost").hidden && !document.querySelector("[data-key=acme]") && document.querySelector("[data-key=beta]")`)
}

// Everything can be reached and pressed by the keyboard, and is seen to have the focus.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ctx := browsertest.Start(t)
	browsertest.Open(t, ctx, serve(t, func() admin.Status { return everything(now) }))
	var visited []string
	for range 40 {
		if err := chromedp.Do(ctx, chromedp.KeyEvent(kb.Tab)); err != nil {
			t.Fatal(err)
		}
		at := browsertest.Evaluate[string](t, ctx, `(e => e === document.body ? "" : [
			e.ariaLabel || e.textContent.trim(), getComputedStyle(e).outlineStyle].join("|"))(document.activeElement)`)
		if at == "" {
			break
		}
		name, outline, _ := strings.Cut(at, "|")
		if outline != "solid" {
			t.Errorf("%s has the focus, and nobody sees it", name)
		}
		visited = append(visited, name)
	}
	for _, want := range []string{"Skip to the accounts", "Reconnect acme to FreeAgent", "Connect new to FreeAgent", "/api/status"} {
		if !slices.Contains(visited, want) {
			t.Errorf("Tab does not lead to %q, but to %q", want, visited)
		}
	}
}

// Text has the contrast that WCAG 2.2 AA asks for, 4.5 to 1, on each ground that it stands on; what is free of a bar, which
// is no text, 3 to 1.
func TestContrast(t *testing.T) {
	css, err := os.ReadFile("page.css")
	if err != nil {
		t.Fatal(err)
	}
	light, dark, ok := strings.Cut(string(css), "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("no dark colours")
	}
	for name, text := range map[string]string{"light": light, "dark": dark} {
		colours := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z0-9-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(text, -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		for least, pairs := range map[float64]string{
			4.5: "ink/page ink/card soft/page soft/card link/page link/card primary/card on-primary/primary good/good-back warn/warn-back " +
				"bad/bad-back good/card ink/good-back ink/warn-back ink/bad-back",
			3: "free-good/track free-warn/track free-bad/track free-good/card free-warn/card free-bad/card primary/page",
		} {
			for pair := range strings.FieldsSeq(pairs) {
				front, back, _ := strings.Cut(pair, "/")
				if _, ok := colours[front]; !ok {
					t.Errorf("%s: no colour %s", name, front)
				}
				if _, ok := colours[back]; !ok {
					t.Errorf("%s: no colour %s", name, back)
				}
				if got := (max(colours[front], colours[back]) + 0.05) / (min(colours[front], colours[back]) + 0.05); got < least {
					t.Errorf("%s: %s has a contrast of %.2f, want %v", name, pair, got, least)
				}
			}
		}
	}
}

// luminance is the relative one of a colour (WCAG 2.2).
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		part := float64(n) / 255
		if part <= 0.04045 {
			part /= 12.92
		} else {
			part = math.Pow((part+0.055)/1.055, 2.4)
		}
		sum += weight * part
	}
	return sum
}
