package admin_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"freeagent-proxy/internal/admin"
)

// rig is a handler, and what it was asked to do.
type rig struct {
	t        *testing.T
	http     http.Handler
	begun    []string // "account redirect state" of each Begin
	finished []string // "account redirect code" of each Finish
	events   []admin.Event
	beginErr error
	finish   func() error // what Finish does; nil: nothing
}

// here is the address that the tests' requests come in at, by default.
const here = "127.0.0.1:8081"

func newRig(t *testing.T, change func(*admin.Config)) *rig {
	r := &rig{t: t}
	upstream, _ := url.Parse("https://api.freeagent.com")
	config := admin.Config{
		FreeAgent: upstream,
		Status: func(context.Context, bool) admin.Status {
			return admin.Status{Ready: true, Accounts: []admin.Account{{Name: "acme", State: "ok"}, {Name: "beta", State: "unauthorised"}}}
		},
		Begin: func(_ context.Context, account, redirect, state string) (string, error) {
			if account != "acme" && account != "beta" {
				return "", admin.ErrUnknown
			}
			r.begun = append(r.begun, fmt.Sprint(account, " ", redirect, " ", state))
			return "https://api.freeagent.com/v2/approve_app?" + url.Values{"state": {state}}.Encode(), r.beginErr
		},
		Finish: func(_ context.Context, account, redirect, code string) error {
			r.finished = append(r.finished, fmt.Sprint(account, " ", redirect, " ", code))
			if r.finish != nil {
				return r.finish()
			}
			return nil
		},
		Observe: func(e admin.Event) { r.events = append(r.events, e) },
		Source:  func(r *http.Request) netip.Addr { return netip.MustParseAddr(r.Header.Get("Test-Source")) },
		Open: map[string]http.Handler{"/healthz": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "alive")
		})},
	}
	if change != nil {
		change(&config)
	}
	r.http = admin.New(config)
	return r
}

// ask sends a request with header lines. Host is one of them.
func (r *rig) ask(method, target string, lines ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	req := httptest.NewRequest(method, target, nil)
	req.Host = here
	req.Header.Set("Test-Source", "192.0.2.1")
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			req.Host = value
			continue
		}
		if name == "Test-Source" {
			req.Header.Del(name)
		}
		req.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	r.http.ServeHTTP(w, req)
	return w
}

// press is what the page's button sends.
func (r *rig) press(account string, lines ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	return r.ask("POST", "/accounts/"+account+"/connect", append([]string{"Origin: http://" + here, "Sec-Fetch-Site: same-origin"}, lines...)...)
}

func TestGuard(t *testing.T) {
	public, _ := url.Parse("https://proxy.example.com")
	r := newRig(t, func(c *admin.Config) { c.PublicURL, c.Hosts = public, []string{"box.lan:8080"} })
	const (
		ours     = "Origin: http://" + here
		same     = "Sec-Fetch-Site: same-origin"
		cross    = "Sec-Fetch-Site: cross-site"
		navigate = "Sec-Fetch-Mode: navigate"
		document = "Sec-Fetch-Dest: document"
		connect  = "/accounts/acme/connect"
	)
	for _, test := range []struct {
		method, target string
		lines          []string
		want           int
	}{
		// Names: ours, and those that a page may have pointed at us.
		{"GET", "/", nil, 200},
		{"GET", "/", []string{"Host: localhost:8081"}, 200},
		{"GET", "/", []string{"Host: LOCALHOST.:8081"}, 200},
		{"GET", "/", []string{"Host: [::1]:8081"}, 200},
		{"GET", "/", []string{"Host: box.lan:8081"}, 200},
		{"GET", "/", []string{"Host: proxy.example.com"}, 200},
		{"GET", "/", []string{"Host: evil.test:8081"}, 421},
		{"GET", "/", []string{"Host: 127.0.0.1.evil.test"}, 421},
		{"GET", "/", []string{"Host: 10.0.0.9:8081"}, 421},
		{"GET", "/api/status", []string{"Host: evil.test"}, 421},
		{"GET", "/live", []string{"Host: evil.test"}, 421},
		{"GET", "/callback?state=x&code=y", []string{"Host: evil.test"}, 421},
		{"POST", connect, []string{"Host: evil.test", "Origin: http://evil.test", same}, 421},
		{"GET", "/healthz", []string{"Host: evil.test"}, 200}, // probes and scrapers use any

		// What other sites' pages make a browser send.
		{"GET", "/api/status", []string{cross}, 403},
		{"GET", "/api/status", []string{"Sec-Fetch-Site: same-site"}, 403}, // another port of this machine
		{"GET", "/api/status", []string{"Origin: http://evil.test"}, 403},
		{"GET", "/api/status", []string{"Origin: null"}, 403},
		{"GET", "/api/status", []string{same, cross}, 403},
		{"GET", "/api/status", []string{ours, "Origin: http://evil.test"}, 403},
		{"GET", "/api/status", []string{cross, navigate, document}, 403},
		{"GET", "/", []string{cross}, 403},
		{"GET", "/", []string{cross, navigate, "Sec-Fetch-Dest: iframe"}, 403},
		{"GET", "/", []string{cross, navigate, document}, 200}, // a link to the page
		{"GET", "/callback", []string{cross, "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, 403},
		{"GET", "/callback", []string{cross, navigate, document}, 400}, // FreeAgent's redirect comes in; this one has no state
		{"GET", "/callback", []string{"Origin: null"}, 400},            // by plain HTTP off loopback, from a browser that sends it with a redirected form
		{"GET", "/", []string{"Origin: null"}, 403},
		{"GET", "/api/status", []string{"Sec-Fetch-Site: none"}, 200},
		{"GET", "/api/status", nil, 200},

		// Actions: from our own page, and it must say so.
		{"POST", connect, []string{ours, same}, 303},
		{"POST", connect, []string{ours}, 303}, // no Sec-Fetch-Site but on https and loopback
		{"POST", connect, []string{same}, 303},
		{"POST", connect, []string{"Host: proxy.example.com", "Origin: https://proxy.example.com", same}, 303},
		{"POST", connect, []string{"Origin: https://proxy.example.com"}, 303}, // through a proxy that puts our address as Host
		{"POST", connect, nil, 403},
		{"POST", connect, []string{"Sec-Fetch-Site: none"}, 403},
		{"POST", connect, []string{"Origin: null"}, 403},
		{"POST", connect, []string{"Origin: null", same}, 403},
		{"POST", connect, []string{"Origin: http://127.0.0.1:8082"}, 403},
		{"POST", connect, []string{"Origin: http://localhost:8081"}, 403},
		{"POST", connect, []string{"Origin: http://evil.test", cross, navigate, document}, 403},
		{"POST", connect, []string{ours, cross}, 403},
		{"POST", connect, []string{ours, "Sec-Fetch-Site: same-site"}, 403},

		// What there is, and how to ask for it.
		{"HEAD", "/", nil, 200},
		{"POST", "/", []string{ours, same}, 405},
		{"PUT", "/api/status", nil, 405},
		{"DELETE", "/healthz", nil, 405},
		{"OPTIONS", "/live", nil, 405},
		{"GET", connect, nil, 405},
		{"HEAD", connect, nil, 405},
		{"HEAD", "/callback?state=x", nil, 405},
		{"POST", "/callback", []string{ours, same}, 405},
		{"GET", "/favicon.ico", nil, 404},
		{"GET", "//evil.test/", nil, 404},
		{"GET", "/accounts//connect", nil, 404},
		{"POST", "/accounts/a/b/connect", []string{ours, same}, 404},
		{"POST", "/accounts/nobody/connect", []string{ours, same}, 404},
		{"POST", "/accounts/acme%0d%0aX-Evil:1/connect", []string{ours, same}, 404},
	} {
		w := r.ask(test.method, test.target, test.lines...)
		what := fmt.Sprint(test.method, " ", test.target, " ", test.lines)
		if w.Code != test.want {
			t.Errorf("%s: got %d %.200s, want %d", what, w.Code, w.Body, test.want)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "X-Frame-Options": "DENY",
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
				"form-action 'self' https://api.freeagent.com https://*.freeagent.com; frame-ancestors 'none'; base-uri 'none'",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", what, name, got, want)
			}
		}
		if w.Header().Get("X-Evil") != "" || strings.ContainsAny(w.Header().Get("Location"), "\r\n") {
			t.Errorf("%s: headers %q", what, w.Header())
		}
		plain := strings.HasSuffix(w.Body.String(), ".\n") && strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain")
		if w.Code > 400 && !plain {
			t.Errorf("%s: %q is no plain sentence", what, w.Body)
		}
	}
}

// The redirect URI has the name and port that the browser used, which must be what is registered at FreeAgent, letter by letter.
func TestRedirectURI(t *testing.T) {
	public, _ := url.Parse("https://proxy.example.com")
	for _, test := range []struct{ host, origin, want string }{
		{"127.0.0.1:8081", "http://127.0.0.1:8081", "http://127.0.0.1:8081/callback"},
		{"LocalHost:9000", "http://localhost:9000", "http://localhost:9000/callback"},
		{"localhost", "http://localhost", "http://localhost/callback"},
		{"[::1]:8081", "http://[::1]:8081", "http://[::1]:8081/callback"},
		{"[::1]", "http://[::1]", "http://[::1]/callback"},
		{"proxy.example.com", "https://proxy.example.com", "https://proxy.example.com/callback"},
		{"proxy.example.com:443", "https://proxy.example.com", "https://proxy.example.com/callback"},
		{"127.0.0.1:8081", "https://proxy.example.com", "https://proxy.example.com/callback"},
	} {
		r := newRig(t, func(c *admin.Config) { c.PublicURL = public })
		w := r.ask("POST", "/accounts/acme/connect", "Host: "+test.host, "Origin: "+test.origin)
		if len(r.begun) != 1 || !strings.HasPrefix(r.begun[0], "acme "+test.want+" ") {
			t.Errorf("%+v: got %d %q", test, w.Code, r.begun)
		}
		secure := strings.HasPrefix(test.want, "https:")
		if cookie := w.Header().Get("Set-Cookie"); strings.Contains(cookie, "Secure") != secure {
			t.Errorf("%+v: the cookie is %q", test, cookie)
		}
		page := r.ask("GET", "/", "Host: "+test.host).Body.String()
		if test.origin != public.String() && !strings.Contains(page, "<code>"+test.want+"</code>") {
			t.Errorf("%+v: the page does not say so", test)
		}
	}
}

// Whatever names hold is text on the page.
func TestEscaping(t *testing.T) {
	r := newRig(t, func(c *admin.Config) {
		c.Status = func(context.Context, bool) admin.Status {
			s := admin.Status{Reason: evil, Version: evil, Store: admin.Store{Kind: evil, State: evil}}
			s.Accounts = []admin.Account{{
				Name: evil, App: evil, Company: evil, State: evil, Reason: evil, LastRefresh: &admin.LastRefresh{Outcome: evil},
				Budget:    admin.Budget{Windows: []admin.Window{{Requests: 10, Allowed: 10, Per: evil, Remaining: 5, UsedBy: map[string]int{evil: 5}}}},
				Companies: []admin.Company{{Subdomain: evil}},
			}}
			s.Incidents = []admin.Incident{{RequestID: evil, Client: evil, Account: evil, Method: evil, Path: evil, Reason: evil}}
			return s
		}
	})
	for _, path := range []string{"/", "/live"} {
		page := r.ask("GET", path).Body.String()
		if strings.Contains(page, "<img") || strings.Contains(page, "<script>") || strings.Contains(page, `"">`) {
			t.Errorf("%s: %s", path, page)
		}
	}
	if got := r.ask("GET", "/api/status").Body.String(); strings.Contains(got, "<") {
		t.Error(got)
	}
}
