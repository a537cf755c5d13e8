package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"freeagent-proxy/internal/browsertest"
)

// evilPage is what a page of another origin can try from a browser on the proxy's machine. Each attempt ends with what the
// page could read, or why it could not.
const evilPage = `<!DOCTYPE html><title>evil</title><iframe name="sink"></iframe><script>
const attempt = async (f) => { try { return await f() } catch (e) { return "failed: " + e } };
const read = (url, options) => attempt(async () => {
	const r = await fetch(url, options);
	return r.type == "opaque" ? "opaque" : r.status + " " + await r.text();
});
const ended = (element, place) => new Promise(done => {
	element.onload = () => done("loaded");
	element.onerror = () => done("failed: error");
	if (place) document.body.appendChild(element);
});
const post = (url) => {
	const form = document.createElement("form");
	form.method = "POST"; form.action = url; form.target = "sink"; form.enctype = "text/plain";
	form.innerHTML = '<input name=\'{"contact":{"organisation_name":"\' value=\'Evil"}}\'>';
	document.body.appendChild(form);
	const frame = document.querySelector("iframe");
	const loaded = ended(frame);
	form.submit();
	return loaded.then(() => attempt(() => "read: " + frame.contentDocument.body.innerText));
};
const asElement = (tag, url) => {
	const e = document.createElement(tag);
	e.src = url;
	return ended(e, true);
};
const attack = async (proxy) => ({
	fetch: await read(proxy + "/v2/contacts"),
	noCors: await read(proxy + "/v2/contacts", {mode: "no-cors"}),
	noCorsPost: await read(proxy + "/v2/contacts", {mode: "no-cors", method: "POST", body: '{"contact":{"organisation_name":"Evil"}}'}),
	put: await read(proxy + "/v2/contacts/1", {method: "PUT", headers: {"Content-Type": "application/json"}, body: "{}"}),
	form: await post(proxy + "/v2/contacts"),
	script: await asElement("script", proxy + "/v2/contacts"),
	image: await asElement("img", proxy + "/v2/contacts"),
	beacon: await attempt(() => "sent: " + navigator.sendBeacon(proxy + "/v2/contacts", "{}")),
});
</script>`

// attack opens a page and lets it try.
func attack(t *testing.T, ctx context.Context, page, proxy string) map[string]string {
	t.Helper()
	return evaluate[map[string]string](t, ctx, page, fmt.Sprintf("attack(%q)", proxy))
}

// evaluate opens a page and runs a script in it.
func evaluate[T any](t *testing.T, ctx context.Context, page, script string) T {
	t.Helper()
	browsertest.Open(t, ctx, page)
	return browsertest.Evaluate[T](t, ctx, script)
}

// A web page that tries to reach the proxy from a browser on its machine gets nothing: no request of it reaches FreeAgent,
// and it reads nothing, neither from another origin nor from a name of its own that it has pointed at the proxy.
func TestBrowser(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, noLimits)
	w.authorise(w.sim.Authorize("owner"))
	p, url := w.serve()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, evilPage) }))
	defer pages.Close()
	_, pagePort, _ := net.SplitHostPort(pages.Listener.Addr().String())
	ctx := browsertest.Start(t)

	for _, c := range []struct{ page, proxy string }{
		{"http://evil.test:" + pagePort, url},                                // another site
		{"http://127.0.0.1:" + pagePort, url},                                // the same site, another port
		{"http://evil.test:" + pagePort, "http://localhost:" + port},         // another of the proxy's names
		{"http://evil.test:" + pagePort, "http://rebound.evil.test:" + port}, // a name of the page's own site
	} {
		refused := strings.Count(p.stderr.String(), `"reason":"http_request_denied: `)
		for how, got := range attack(t, ctx, c.page, c.proxy) {
			if !strings.HasPrefix(got, "failed: ") && got != "opaque" && got != "sent: true" {
				t.Errorf("%s → %s, %s: the page got %.300q", c.page, c.proxy, how, got)
			}
		}
		// All eight did come as far as the proxy, or this would show nothing. The beacon may be on its way still.
		eventually(t, "the proxy refused them", func() bool {
			return strings.Count(p.stderr.String(), `"reason":"http_request_denied: `) >= refused+8
		})
	}
	rebound(t, ctx, port)
	if got := w.arrivals(); len(got) != 0 {
		t.Errorf("FreeAgent saw %+v", got)
	}
}

// rebound is DNS rebinding's last step: the page's own name leads to the proxy now, so for the browser they are one origin.
func rebound(t *testing.T, ctx context.Context, port string) {
	t.Helper()
	origin := "http://evil.test:" + port
	for _, options := range []string{`{}`, `{method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"}`} {
		script := fmt.Sprintf(`fetch("/v2/contacts", %s).then(async r => r.status + " " + await r.text())`, options)
		read := evaluate[string](t, ctx, origin+"/v2/contacts", script)
		if !strings.HasPrefix(read, "421 ") || !strings.Contains(read, "not one of the proxy's names") {
			t.Errorf("%s: the page read %.300q, want our 421", options, read)
		}
	}
}
