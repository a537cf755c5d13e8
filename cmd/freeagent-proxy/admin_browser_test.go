package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"freeagent-proxy/internal/browsertest"
	"freeagent-proxy/internal/simulator"
)

// decide waits for FreeAgent's approve page and presses one of its buttons.
func decide(t *testing.T, ctx context.Context, decision string) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.Click(`button[name=decision][value=`+decision+`]`)); err != nil {
		t.Fatal(err)
	}
	browsertest.Await(t, ctx, `document.querySelector(".message")`)
}

// press presses the button of an account on the proxy's page.
func press(t *testing.T, ctx context.Context, account string) {
	t.Helper()
	if err := chromedp.Do(ctx, chromedp.Click(`[data-key="`+account+`"] form button`)); err != nil {
		t.Fatal(err)
	}
}

// pictures shows the page as it is, on a desk and a phone, light and dark.
func pictures(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	for _, look := range []struct {
		name, scheme string
		width        int64
	}{{"desk-light", "light", 1280}, {"desk-dark", "dark", 1280}, {"phone-light", "light", 360}, {"phone-dark", "dark", 360}} {
		browsertest.Look(t, ctx, look.width, look.scheme)
		browsertest.Picture(t, ctx, name+"-"+look.name)
	}
	browsertest.Look(t, ctx, 1280, "light")
}

// With only the simulator: start, press Connect, be authorised, see a request counted.
func TestFirstStartInBrowser(t *testing.T) {
	t.Parallel()
	// What is left is looked at for longer than a minute, on a busy machine.
	w := newSimulated(t, simulator.Config{}, "limits: {api: [{requests: 120, per: 30m}, {requests: 3600, per: 1h}]}\n")
	p, url := w.serve()
	page := operatorURL(t, p)
	// At FreeAgent a redirect URI must be registered, letter by letter.
	if err := w.sim.Configure(simulator.Config{Apps: []simulator.App{{
		ClientID: "tests", ClientSecrets: []string{clientSecret}, RedirectURIs: []string{page + "/callback"},
	}}}); err != nil {
		t.Fatal(err)
	}
	ctx := browsertest.Start(t)
	complaints := browsertest.Complaints(ctx)
	browsertest.Look(t, ctx, 1280, "light")

	browsertest.Open(t, ctx, page+"/")
	for _, want := range []string{"Not connected", "Not ready", page + "/callback"} {
		browsertest.Await(t, ctx, `document.body.innerText.includes("`+want+`")`)
	}
	pictures(t, ctx, "1-start")

	press(t, ctx, account)
	decide(t, ctx, "approve")
	browsertest.Await(t, ctx, `document.querySelector(".message.good").innerText.includes("acme is connected to FreeAgent")`)
	browsertest.Await(t, ctx, `location.href === "`+page+`/"`)
	browsertest.Await(t, ctx, `document.querySelector("[data-key=acme] .badge").innerText === "Connected"`)
	browsertest.Await(t, ctx, `document.querySelector("[data-key=ready]").innerText === "Ready"`)
	// One request has been the proxy's own, for the company's name.
	browsertest.Await(t, ctx, `document.querySelector("[data-key=acme]").innerText.includes("Owner Ltd")`)
	browsertest.Await(t, ctx, `document.body.innerText.includes("119 of 120 left") && document.body.innerText.includes("3,599 of 3,600 left")`)
	browsertest.Await(t, ctx, `/freeagent-proxy\s+1\s+1/.test(document.querySelector("[data-key=acme] .spent").innerText)`)
	pictures(t, ctx, "2-connected")

	browsertest.Evaluate[bool](t, ctx, `window.notLoadedAgain = true`)
	if status, body := call(t, w.client(false), http.MethodGet, url+"/v2/company", "User-Agent: curl/8.14.1"); status != http.StatusOK {
		t.Fatalf("got %d %s", status, body)
	}
	browsertest.Await(t, ctx, `document.body.innerText.includes("118 of 120 left") && document.body.innerText.includes("3,598 of 3,600 left")`)
	browsertest.Await(t, ctx, `/anonymous\s+1\s+1/.test(document.querySelector("[data-key=acme] .spent").innerText)`)
	if !browsertest.Evaluate[bool](t, ctx, `window.notLoadedAgain === true`) {
		t.Error("the page was loaded again")
	}
	pictures(t, ctx, "3-counted")

	press(t, ctx, account) // Reconnect, and think better of it
	decide(t, ctx, "deny")
	browsertest.Await(t, ctx, `document.querySelector(".message.warn").innerText.includes("acme was not connected, and nothing was changed")`)
	browsertest.Await(t, ctx, `document.querySelector("[data-key=acme] .badge").innerText === "Connected"`)
	pictures(t, ctx, "4-denied")

	for _, complaint := range complaints() {
		if !strings.Contains(complaint, w.simURL) { // the simulator's page has no icon
			t.Errorf("the browser complains: %s", complaint)
		}
	}
	if got := w.sim.Stats().Tokens; got.Exchanges != 1 || got.Refused != 0 {
		t.Errorf("%d codes were exchanged, %d refused; want 1 and none", got.Exchanges, got.Refused)
	}
}

// What an operator is called for, each really so: a grant that FreeAgent refuses, which Reconnect cures, a pause, a token endpoint in
// trouble.
func TestTroubleInBrowser(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simulator.Config{}, "")
	config := readText(t, filepath.Join(w.folder, "config.yaml"))
	config = strings.Replace(config, "accounts: {acme: {app: main}}", "accounts: {acme: {app: main, default: true}, beta: {app: main}, gamma: {app: main}}", 1)
	if err := os.WriteFile(filepath.Join(w.folder, "config.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"acme", "beta", "gamma"} {
		p := w.start("accounts", "import", name)
		if _, err := p.stdin.Write([]byte(w.sim.Authorize(name))); err != nil {
			t.Fatal(err)
		}
		p.stdin.Close()
		if code, err := p.wait(); err != nil || code != exitOK {
			t.Fatalf("%s: %d, %v; %s", p, code, err, &p.stderr)
		}
	}
	imported := time.Now()
	p, url := w.serve()
	page, client := operatorURL(t, p), w.client(false)
	try := func(account string) (status int, body string) {
		return call(t, client, http.MethodGet, url+"/v2/company", "X-FreeAgent-Account: "+account, "Prefer: wait=0")
	}
	ask := func(account string, want int) {
		t.Helper()
		if status, body := try(account); status != want {
			t.Fatalf("%s: got %d %s", account, status, body)
		}
	}
	fault := func(f simulator.Fault) {
		t.Helper()
		if _, err := w.sim.Fault(f); err != nil {
			t.Fatal(err)
		}
	}
	ctx := browsertest.Start(t)
	complaints := browsertest.Complaints(ctx)
	browsertest.Look(t, ctx, 1280, "light")
	browsertest.Open(t, ctx, page+"/")
	badge := func(account, want string) {
		t.Helper()
		browsertest.Await(t, ctx, `document.querySelector("[data-key=`+account+`] .badge").innerText === "`+want+`"`)
	}
	badge("acme", "Connected")

	fault(simulator.Fault{Kind: simulator.FaultRateLimited, RetryAfter: 300, Match: simulator.Match{Times: 1, PathPrefix: "/v2/company"}})
	ask("beta", http.StatusTooManyRequests)
	badge("beta", "Connected, paused")

	time.Sleep(time.Until(imported.Add(6 * time.Second))) // a token is renewed when it is 5 s old
	w.sim.RevokeAll("acme")
	ask("acme", http.StatusServiceUnavailable)
	badge("acme", "Must be reconnected")

	fault(simulator.Fault{Kind: simulator.FaultStatus, Match: simulator.Match{PathPrefix: "/v2/token_endpoint"}})
	w.sim.RevokeAccess("gamma")
	ask("gamma", http.StatusServiceUnavailable)
	badge("gamma", "In trouble, trying again")
	pictures(t, ctx, "trouble")

	w.sim.ClearFaults()
	press(t, ctx, "acme")
	decide(t, ctx, "approve")
	badge("acme", "Connected")
	ask("acme", http.StatusOK)
	eventually(t, "gamma's next try", func() bool { status, _ := try("gamma"); return status == http.StatusOK })
	badge("gamma", "Connected")
	for _, complaint := range complaints() {
		if !strings.Contains(complaint, w.simURL) {
			t.Errorf("the browser complains: %s", complaint)
		}
	}
}

// schemer is what a page of another origin can try at the admin page, in the browser of an operator who is logged in there.
const schemer = `<!DOCTYPE html><title>schemer</title><iframe name="sink"></iframe><script>
const attempt = async (f) => { try { return await f() } catch (e) { return "failed" } };
const loaded = (tag, url) => new Promise(done => {
	const e = document.createElement(tag);
	e.onload = () => done("loaded");
	e.onerror = () => done("failed");
	e.src = url;
	document.body.appendChild(e);
});
const scheme = async (page) => {
	const options = {mode: "no-cors", credentials: "include"};
	const form = document.createElement("form");
	form.method = "POST"; form.action = page + "/accounts/acme/connect"; form.target = "sink";
	document.body.appendChild(form);
	const frame = document.querySelector("iframe");
	const posted = new Promise(done => frame.onload = () => done("loaded"));
	form.submit();
	await posted;
	const frames = await loaded("iframe", page + "/");
	return {
		form: await attempt(() => "read: " + frame.contentDocument.body.innerText),
		frame: await attempt(() => "read: " + document.querySelectorAll("iframe")[1].contentDocument.body.innerText),
		read: await attempt(async () => "read: " + await (await fetch(page + "/api/status", {credentials: "include"})).text()),
		post: await attempt(async () => (await fetch(page + "/accounts/acme/connect", {...options, method: "POST"})).type),
		callback: await loaded("img", page + "/callback?state=x&code=y"),
		script: await loaded("script", page + "/page.js"),
	};
};
</script>`

// Off loopback, where browsers speak plain HTTP to a name and send no Sec-Fetch headers, Connect works with the password; and a page of
// another origin, of the same site or not, can do nothing in that browser.
func TestPasswordInBrowser(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, "")
	w.env = append(w.env, "ADMIN_PASSWORD=operators")
	config := readText(t, filepath.Join(w.folder, "config.yaml"))
	config = strings.Replace(config, "admin: {listen: 127.0.0.1:0}", "admin: {listen: 127.0.0.1:0, password_env: ADMIN_PASSWORD}\nallowed_hosts: [proxy.evil.test]", 1)
	if err := os.WriteFile(filepath.Join(w.folder, "config.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p, _ := w.serve()
	page := strings.Replace(operatorURL(t, p), "127.0.0.1", "proxy.evil.test", 1)
	if err := w.sim.Configure(simulator.Config{Apps: []simulator.App{{ClientID: "tests", RedirectURIs: []string{page + "/callback"}}}}); err != nil {
		t.Fatal(err)
	}
	ctx := browsertest.Start(t)
	complaints := browsertest.Complaints(ctx)
	browsertest.Open(t, ctx, strings.Replace(page, "http://", "http://operator:operators@", 1)+"/")
	press(t, ctx, account)
	decide(t, ctx, "approve")
	browsertest.Await(t, ctx, `document.querySelector(".message.good").innerText.includes("acme is connected")`)
	browsertest.Evaluate[bool](t, ctx, `window.asOf = document.querySelector("header time").innerText; true`)
	browsertest.Await(t, ctx, `document.querySelector("header time").innerText !== asOf && document.getElementById("lost").hidden`)
	browsertest.Await(t, ctx, `document.querySelector("[data-key=acme]").innerText.includes("Owner Ltd")`) // the proxy has asked for it
	for _, complaint := range complaints() {
		if !strings.Contains(complaint, w.simURL) {
			t.Errorf("the browser complains: %s", complaint)
		}
	}

	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, schemer) }))
	t.Cleanup(pages.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(pages.URL, "http://"), ":")
	seen := len(w.sim.Requests(0))
	for _, host := range []string{"evil.test:" + port, "127.0.0.1:" + port} {
		browsertest.Open(t, ctx, "http://"+host+"/")
		for how, got := range browsertest.Evaluate[map[string]string](t, ctx, `scheme("`+page+`")`) {
			if got != "failed" && got != "opaque" {
				t.Errorf("from %s, %s: the page got %.300q", host, how, got)
			}
		}
	}
	if got := len(w.sim.Requests(0)); got != seen {
		t.Errorf("FreeAgent saw %d more requests", got-seen)
	}
	if n := strings.Count(p.stderr.String(), "the admin page sends its user to FreeAgent"); n != 1 {
		t.Errorf("Connect was pressed %d times, want once", n)
	}
}
