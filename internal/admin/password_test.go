package admin_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/internal/admin"
)

const secret = "correct horse"

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestPassword(t *testing.T) {
	r := newRig(t, func(c *admin.Config) { c.Password = secret })
	for _, test := range []struct {
		target, authorization string
		want                  int
	}{
		{"/", "", 401},
		{"/api/status", "", 401},
		{"/live", "", 401},
		{"/page.css", "", 401},
		{"/nowhere", "", 401},
		{"/callback?state=x&code=y", "", 401},
		{"/", basic("operator", "wrong"), 401},
		{"/", basic("operator", ""), 401},
		{"/", basic(secret, ""), 401},
		{"/", "Authorization: Bearer " + secret, 401},
		{"/", basic("operator", secret+" "), 401},
		{"/", basic("operator", secret), 200},
		{"/", basic("", secret), 200},
		{"/api/status", basic("anyone", secret), 200},
		{"/healthz", "", 200},
		{"/healthz", basic("operator", "wrong"), 200},
	} {
		w := r.ask("GET", test.target, test.authorization)
		if w.Code != test.want {
			t.Errorf("%s %q: got %d, want %d", test.target, test.authorization, w.Code, test.want)
		}
		if body := w.Body.String(); w.Code == 401 && !strings.Contains(body, "admin.password_env or admin.password_file names") {
			t.Errorf("%s %q: does not say which password: %s", test.target, test.authorization, body)
		}
		if asks := strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic realm="); asks != (w.Code == 401) {
			t.Errorf("%s %q: WWW-Authenticate is %q", test.target, test.authorization, w.Header().Get("WWW-Authenticate"))
		}
	}
	if w := r.press("acme"); w.Code != 401 || len(r.begun) != 0 {
		t.Errorf("without the password Connect got %d", w.Code)
	}
	if w := r.press("acme", basic("", secret)); w.Code != 303 {
		t.Errorf("with it %d", w.Code)
	}
}

// guess shows a wrong password, and tells whether it was compared; if not, how long to wait.
func guess(t *testing.T, r *rig, lines ...string) (compared bool, wait int) {
	t.Helper()
	w := r.ask("GET", "/", append(lines, basic("", "wrong"))...)
	if w.Code == http.StatusUnauthorized {
		return true, 0
	}
	wait, err := strconv.Atoi(w.Header().Get("Retry-After"))
	if w.Code != http.StatusTooManyRequests || err != nil || wait < 1 {
		t.Fatalf("a guess got %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	return false, wait
}

// Guesses from one address: ten, then ten a minute. The right password waits no longer than it is told.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *admin.Config) { c.Password = secret })
		compared, wait := 0, 0
		for range 100 {
			if ok, w := guess(t, r); ok {
				compared++
			} else {
				wait = w
			}
		}
		if compared != 10 || wait != 6 {
			t.Errorf("of 100 guesses at once %d were compared, then to wait %d s; want 10, 6", compared, wait)
		}
		right := func(lines ...string) int { return r.ask("GET", "/", append(lines, basic("", secret))...).Code }
		if got := right(); got != 429 {
			t.Errorf("the right password among them got %d: it was compared", got)
		}
		if got := right("Test-Source: 192.0.2.2"); got != 200 {
			t.Errorf("the right password from elsewhere got %d", got)
		}
		if got := r.ask("GET", "/healthz").Code; got != 200 {
			t.Errorf("health got %d", got)
		}
		if got := r.ask("GET", "/").Code; got != 401 {
			t.Errorf("without a password, as browsers come first, got %d", got)
		}
		time.Sleep(time.Duration(wait) * time.Second)
		if got := right(); got != 200 {
			t.Errorf("the right password, after the wait, got %d", got)
		}
		compared = 0
		for range 600 {
			if ok, _ := guess(t, r); ok {
				compared++
			}
			time.Sleep(100 * time.Millisecond)
		}
		if compared < 9 || compared > 11 {
			t.Errorf("of 600 guesses in a minute %d were compared, want 10", compared)
		}
	})
}

// Guesses from everywhere: a hundred, then one a second. Of IPv6, one network is one address.
func TestThrottleOverall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *admin.Config) { c.Password = secret })
		known := r.ask("GET", "/", basic("", secret), "Test-Source: 2001:db8::5").Result().Cookies()
		if len(known) != 1 || !known[0].HttpOnly || known[0].SameSite != http.SameSiteStrictMode {
			t.Fatalf("the right password got the cookies %v", known)
		}
		compared := 0
		for n := range 5000 {
			if ok, _ := guess(t, r, fmt.Sprintf("Test-Source: 2001:db8:%x:%x::1", n/256, n%256)); ok {
				compared++
			}
		}
		if compared != 100 {
			t.Errorf("%d of 5000 guesses from as many networks were compared, want 100", compared)
		}
		// A browser that has shown the right password is not locked out by them, wherever it is.
		if got := r.ask("GET", "/", "Cookie: "+known[0].String(), basic("", secret)).Code; got != 200 {
			t.Errorf("a known browser got %d", got)
		}
		// But it may not guess either, and a cookie that we did not make is none.
		for cookie, want := range map[string]int{known[0].Name + "=" + known[0].Value: 10, known[0].Name + "=forged.forged": 0, known[0].Name + "=": 0} {
			compared = 0
			for range 50 {
				if ok, _ := guess(t, r, "Cookie: "+cookie); ok {
					compared++
				}
			}
			if compared != want {
				t.Errorf("with the cookie %s %d of 50 guesses were compared, want %d", cookie, compared, want)
			}
		}
		time.Sleep(time.Second)
		if got := r.ask("GET", "/", basic("", secret)).Code; got != 200 {
			t.Errorf("an unknown browser got %d a second later", got)
		}
		time.Sleep(2 * time.Minute)
		compared = 0
		for n := range 50 {
			if ok, _ := guess(t, r, fmt.Sprintf("Test-Source: 2001:db8:1:1::%x", n)); ok {
				compared++
			}
		}
		if compared != 10 {
			t.Errorf("%d of 50 guesses from one network were compared, want 10", compared)
		}
	})
}

// The log hears of guesses that were compared, so that no flood of others fills it.
func TestThrottleEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *admin.Config) { c.Password = secret })
		for range 1000 {
			guess(t, r)
		}
		if len(r.events) != 10 || r.events[0].Kind != admin.EventWrongPassword || r.events[0].Source.String() != "192.0.2.1" {
			t.Errorf("got %d events, the first %+v", len(r.events), r.events[0])
		}
	})
}
