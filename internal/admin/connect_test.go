package admin_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/internal/admin"
)

// pressed is what a browser has after it pressed Connect: the state that FreeAgent was given, and a cookie.
type pressed struct{ state, cookie string }

// connect presses the button.
func (r *rig) connect(account string) pressed {
	r.t.Helper()
	w := r.press(account)
	to, err := url.Parse(w.Header().Get("Location"))
	cookies := w.Result().Cookies()
	if w.Code != http.StatusSeeOther || err != nil || to.Host != "api.freeagent.com" || len(cookies) != 1 {
		r.t.Fatalf("Connect got %d %q, cookies %v", w.Code, w.Header().Get("Location"), cookies)
	}
	c := cookies[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/callback" || c.MaxAge != 600 {
		r.t.Errorf("the cookie is %s", c)
	}
	return pressed{to.Query().Get("state"), "Cookie: " + c.Name + "=" + c.Value}
}

// redirected is FreeAgent's answer, as a browser follows it.
func (r *rig) redirected(query string, cookie string) *httptest.ResponseRecorder {
	r.t.Helper()
	return r.ask("GET", "/callback?"+query, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", cookie)
}

// lands follows the callback's redirect, and returns the page.
func (r *rig) lands(w *httptest.ResponseRecorder) string {
	r.t.Helper()
	if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/?connect=") {
		r.t.Fatalf("got %d %q %.200s", w.Code, w.Header().Get("Location"), w.Body)
	}
	return r.ask("GET", w.Header().Get("Location")).Body.String()
}

func TestConnect(t *testing.T) {
	r := newRig(t, nil)
	p := r.connect("acme")
	w := r.redirected("code=the-code&state="+p.state, p.cookie)
	if page := r.lands(w); !strings.Contains(page, "acme is connected to FreeAgent") {
		t.Error(page)
	}
	if want := "[acme http://127.0.0.1:8081/callback the-code]"; fmt.Sprint(r.finished) != want {
		t.Errorf("got %q, want %q", r.finished, want)
	}
	// A browser that loads it again is told the same, and nothing is done.
	for range 3 {
		if page := r.lands(r.redirected("code=the-code&state="+p.state, p.cookie)); !strings.Contains(page, "acme is connected") {
			t.Error(page)
		}
	}
	if page := r.lands(r.redirected("error=access_denied&state="+p.state, p.cookie)); !strings.Contains(page, "acme is connected") {
		t.Error(page)
	}
	if len(r.finished) != 1 {
		t.Errorf("finished %d times", len(r.finished))
	}
	if page := r.ask("GET", "/").Body.String(); strings.Contains(page, "is connected to FreeAgent") {
		t.Error("the page tells it to whoever opens it")
	}
	kinds := []admin.EventKind{r.events[0].Kind, r.events[1].Kind}
	if len(r.events) != 2 || kinds[0] != admin.EventBegun || kinds[1] != admin.EventConnected || r.events[1].Account != "acme" {
		t.Errorf("got %+v", r.events)
	}
}

// A browser that loads the callback many times at once spends the code once.
func TestConnectTwiceAtOnce(t *testing.T) {
	r := newRig(t, nil)
	slow := make(chan struct{})
	r.finish = func() error { <-slow; return nil }
	p := r.connect("acme")
	var loading sync.WaitGroup
	answers := make(chan *httptest.ResponseRecorder, 20)
	for range cap(answers) {
		loading.Go(func() { answers <- r.redirected("code=c&state="+p.state, p.cookie) })
	}
	close(slow)
	loading.Wait()
	close(answers)
	for w := range answers {
		if page := r.lands(w); !strings.Contains(page, "acme is connected") {
			t.Error(page)
		}
	}
	if len(r.finished) != 1 {
		t.Errorf("finished %d times", len(r.finished))
	}
}

func TestStateMisuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		acme, beta := r.connect("acme"), r.connect("beta")
		name, _, _ := strings.Cut(strings.TrimPrefix(acme.cookie, "Cookie: "), "=")
		_, betas, _ := strings.Cut(beta.cookie, "=")
		for what, w := range map[string]*httptest.ResponseRecorder{
			"no state":                        r.redirected("code=c", acme.cookie),
			"an empty state":                  r.redirected("code=c&state=", acme.cookie),
			"a forged state":                  r.redirected("code=c&state=forged", acme.cookie),
			"no cookie":                       r.redirected("code=c&state="+acme.state, ""),
			"another account's cookie":        r.redirected("code=c&state="+acme.state, beta.cookie),
			"another account's state":         r.redirected("code=c&state="+beta.state, acme.cookie),
			"another account's cookie's text": r.redirected("code=c&state="+acme.state, "Cookie: "+name+"="+betas),
			"an empty cookie":                 r.redirected("code=c&state="+acme.state, "Cookie: "+name+"="),
			"a forged refusal":                r.redirected("error=access_denied&state="+acme.state, ""),
			"a state in another case":         r.redirected("code=c&state="+strings.ToLower(acme.state), acme.cookie),
			"a query that cannot be read":     r.redirected("%zz;", acme.cookie),
		} {
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "This answer was not expected, and nothing was changed") {
				t.Errorf("%s: got %d %.300s", what, w.Code, w.Body)
			}
		}
		if w := r.ask("HEAD", "/callback?code=c&state="+acme.state, acme.cookie); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("HEAD got %d", w.Code)
		}
		if len(r.finished) != 0 {
			t.Fatalf("finished %q", r.finished)
		}
		// None of that has spoilt it, and each state leads to its own account.
		time.Sleep(9 * time.Minute)
		r.lands(r.redirected("code=for-beta&state="+beta.state, beta.cookie))
		if want := "[beta http://127.0.0.1:8081/callback for-beta]"; fmt.Sprint(r.finished) != want {
			t.Errorf("got %q, want %q", r.finished, want)
		}
		time.Sleep(time.Minute)
		if w := r.redirected("code=late&state="+acme.state, acme.cookie); w.Code != http.StatusBadRequest || len(r.finished) != 1 {
			t.Errorf("after 10 minutes: %d, finished %q", w.Code, r.finished)
		}
	})
}

// However often Connect is pressed, so much is remembered; the newest are.
func TestFlowsAreBounded(t *testing.T) {
	r := newRig(t, nil)
	var all []pressed
	for range 70 {
		all = append(all, r.connect("acme"))
	}
	for i, p := range all {
		w := r.redirected("code=c&state="+p.state, p.cookie)
		if remembered := w.Code == http.StatusSeeOther; remembered != (i >= 6) {
			t.Errorf("the %dth of 70: %d", i+1, w.Code)
		}
	}
}

func TestConnectOutcomes(t *testing.T) {
	broken := errors.New("open /var/lib/freeagent-proxy: <read-only>")
	for _, test := range []struct {
		query  string
		begin  error
		finish error
		want   []string
		kind   admin.EventKind
	}{
		{query: "error=access_denied", want: []string{"acme was not connected, and nothing was changed", "access_denied", "choose Approve"}, kind: admin.EventNotConnected},
		{query: "error=%3Cb%3Enonsense", want: []string{"nothing was changed", "an error that is none of OAuth&#39;s"}, kind: admin.EventNotConnected},
		{query: "code=", want: []string{"nothing was changed", "neither a code nor an error"}, kind: admin.EventNotConnected},
		{query: "code=c", finish: fmt.Errorf("%w: answered 401", admin.ErrRefused), want: []string{"nothing was changed", "<p>FreeAgent did not take its own code: answered 401. A code lasts 15 minutes and works once", "client id and secret"}, kind: admin.EventNotConnected},
		{query: "code=c", finish: fmt.Errorf("%w: answered 503", admin.ErrTrouble), want: []string{"acme was not connected", "answered 503", "in a minute"}, kind: admin.EventNotConnected},
		{query: "code=c", finish: fmt.Errorf("%w: %w", admin.ErrStore, broken), want: []string{"the store could not keep it", "&lt;read-only&gt;", "See to the store"}, kind: admin.EventNotConnected},
		{query: "code=c", finish: fmt.Errorf("%w: %w", admin.ErrUnsaved, broken), want: []string{"acme is connected, but the store has not taken it yet", "before this proxy stops"}, kind: admin.EventConnected},
		{begin: fmt.Errorf("%w: %w", admin.ErrStore, broken), want: []string{"the store could not keep it", "Nothing was taken from FreeAgent", "&lt;read-only&gt;"}, kind: admin.EventNotConnected},
	} {
		r := newRig(t, nil)
		r.beginErr, r.finish = test.begin, func() error { return test.finish }
		var page string
		if test.begin != nil {
			page = r.lands(r.press("acme"))
		} else {
			p := r.connect("acme")
			page = r.lands(r.redirected(test.query+"&state="+p.state, p.cookie))
		}
		for _, want := range test.want {
			if !strings.Contains(page, want) {
				t.Errorf("%+v: the page does not say %q: %.1500s", test, want, page)
			}
		}
		if got := r.events[len(r.events)-1]; got.Kind != test.kind || got.Err == nil {
			t.Errorf("%+v: got %+v", test, got)
		}
	}
}
