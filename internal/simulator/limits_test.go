package simulator_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"freeagent-proxy/internal/simulator"
)

func window(requests int, per time.Duration) simulator.Window {
	return simulator.Window{Requests: requests, Per: simulator.Duration(per)}
}

// refreshBare refreshes without a listener.
func refreshBare(t *testing.T, s *simulator.Simulator, token string) (int, tokens) {
	t.Helper()
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
	r := httptest.NewRequest("POST", "/v2/token_endpoint", strings.NewReader(form.Encode()))
	r.SetBasicAuth("id", "secret")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	var out tokens
	if w.Code == 200 {
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
	}
	return w.Code, out
}

func TestDocumentedLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulator.New(simulator.Config{SourceLimits: []simulator.Window{window(100_000, time.Minute)}})
		token := s.AccessToken("owner")
		time.Sleep(40 * time.Second) // :40, so that a boundary is near
		for i := range 120 {
			equal(t, fmt.Sprint("request ", i), bare(s, "GET", "/v2/users/me", token).Code, 200)
		}
		refused := bare(s, "GET", "/v2/users/me", token, "Accept", "application/xml")
		equal(t, "status", refused.Code, 429)
		equal(t, "body", refused.Body.String(), "You must not exceed 120 requests per 60 seconds")
		equal(t, "Retry-After", refused.Header().Get("Retry-After"), "60")
		equal(t, "Content-Type", refused.Header().Get("Content-Type"), "text/plain")
		equal(t, "another user", bare(s, "GET", "/v2/users/me", s.AccessToken("other")).Code, 200)
		equal(t, "the same user, new token", bare(s, "GET", "/v2/users/me", s.AccessToken("owner")).Code, 429)

		time.Sleep(20 * time.Second)
		for minute := 1; minute < 30; minute++ { // thirty minutes of 120 are the hour's 3,600
			for range 120 {
				equal(t, fmt.Sprint("minute ", minute), bare(s, "GET", "/v2/users/me", token).Code, 200)
			}
			time.Sleep(time.Minute)
		}
		hour := bare(s, "GET", "/v2/users/me", token)
		equal(t, "body", hour.Body.String(), "You must not exceed 3600 requests per 3600 seconds")
		equal(t, "Retry-After", hour.Header().Get("Retry-After"), "3600")
	})
}

func TestSourceLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulator.New(simulator.Config{})
		var last *httptest.ResponseRecorder
		for i := range 1001 {
			last = bare(s, "GET", "/v2/users/me", s.AccessToken(fmt.Sprint("user", i%20)))
		}
		equal(t, "body", last.Body.String(), "You must not exceed 1000 requests per 60 seconds")
		status, _ := refreshBare(t, s, s.Authorize("owner"))
		equal(t, "the token endpoint, too", status, 429)
		equal(t, "refused", s.Stats().Sources[0].RateLimited, 2)
	})
}

func TestSlidingEnforcement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulator.New(simulator.Config{
			Enforcement: simulator.EnforceSliding, UserLimits: []simulator.Window{window(3, 2*time.Second)}, RetryAfter: simulator.RetryAfterBoundary,
		})
		token := s.AccessToken("")
		status := func() int { return bare(s, "GET", "/v2/users/me", token).Code }
		time.Sleep(1500 * time.Millisecond)
		status()
		time.Sleep(time.Second) // over the boundary of an aligned window
		status()
		status()
		refused := bare(s, "GET", "/v2/users/me", token)
		equal(t, "fourth within 2s", refused.Code, 429)
		equal(t, "Retry-After", refused.Header().Get("Retry-After"), "1")
		time.Sleep(time.Second - time.Nanosecond)
		equal(t, "still inside", status(), 429)
		time.Sleep(time.Nanosecond)
		equal(t, "the first is 2s old", status(), 200)
	})
}

func TestRetryAfterBoundary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulator.New(simulator.Config{UserLimits: []simulator.Window{window(1, time.Minute)}, RetryAfter: simulator.RetryAfterBoundary})
		token := s.AccessToken("")
		time.Sleep(47 * time.Second)
		bare(s, "GET", "/v2/users/me", token)
		equal(t, "Retry-After", bare(s, "GET", "/v2/users/me", token).Header().Get("Retry-After"), "13")
	})
}

func TestLimitSwitches(t *testing.T) {
	two := []simulator.Window{window(2, 10*time.Second)}
	get := func(s *simulator.Simulator, token string, header ...string) int {
		return bare(s, "GET", "/v2/users/me", token, header...).Code
	}
	run := func(name string, cfg simulator.Config, test func(*testing.T, *simulator.Simulator, string)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := simulator.New(cfg)
				test(t, s, s.AccessToken(""))
			})
		})
	}
	run("off", simulator.Config{UserLimits: two, Enforcement: simulator.EnforceOff}, func(t *testing.T, s *simulator.Simulator, token string) {
		for range 5 {
			equal(t, "status", get(s, token), 200)
		}
		equal(t, "counted all the same", s.Stats().Users[0].Windows[0].MaxSliding, 5)
	})
	run("rejected requests count", simulator.Config{UserLimits: two, CountRejected: true, Enforcement: simulator.EnforceSliding}, func(t *testing.T, s *simulator.Simulator, token string) {
		for range 3 {
			get(s, token)
			time.Sleep(4 * time.Second)
		}
		equal(t, "kept out by the rejected one", get(s, token), 429)
	})
	run("rejected requests are free", simulator.Config{UserLimits: two, Enforcement: simulator.EnforceSliding}, func(t *testing.T, s *simulator.Simulator, token string) {
		for range 3 {
			get(s, token)
			time.Sleep(4 * time.Second)
		}
		equal(t, "only two counted", get(s, token), 200)
	})
	run("the token endpoint counts", simulator.Config{UserLimits: two, TokenEndpointCounts: true}, func(t *testing.T, s *simulator.Simulator, token string) {
		_, first := refreshBare(t, s, s.Authorize(""))
		equal(t, "one left", get(s, token), 200)
		equal(t, "none left", get(s, token), 429)
		status, _ := refreshBare(t, s, first.Refresh)
		equal(t, "refresh", status, 429)
	})
	run("the token endpoint has its own", simulator.Config{UserLimits: two}, func(t *testing.T, s *simulator.Simulator, token string) {
		refreshBare(t, s, s.Authorize(""))
		equal(t, "first", get(s, token), 200)
		equal(t, "second", get(s, token), 200)
	})
	run("X-RateLimit-Test", simulator.Config{TestLimit: window(2, 10*time.Second)}, func(t *testing.T, s *simulator.Simulator, token string) {
		get(s, token, "X-RateLimit-Test", "true")
		get(s, token, "X-RateLimit-Test", "1")
		equal(t, "third", get(s, token, "X-RateLimit-Test", "yes"), 429)
		equal(t, "without it", get(s, token), 200)
		equal(t, "false", get(s, token, "X-RateLimit-Test", "false"), 200)
	})
	run("by source", simulator.Config{UserLimits: two, LimitBySource: true}, func(t *testing.T, s *simulator.Simulator, token string) {
		get(s, token)
		get(s, token)
		r := httptest.NewRequest("GET", "/v2/users/me", nil)
		r.RemoteAddr = "192.0.2.77:1"
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		equal(t, "from elsewhere", w.Code, 200)
		equal(t, "from here", get(s, token), 429)
	})
	run("practice clients have their own", simulator.Config{UserLimits: two}, func(t *testing.T, s *simulator.Simulator, _ string) {
		token := s.AccessToken("practice")
		get(s, token, "X-Subdomain", "one")
		get(s, token, "X-Subdomain", "one")
		equal(t, "one", get(s, token, "X-Subdomain", "one"), 429)
		equal(t, "two", get(s, token, "X-Subdomain", "two"), 200)
	})
	run("a company's X-Subdomain is no way round", simulator.Config{UserLimits: two}, func(t *testing.T, s *simulator.Simulator, token string) {
		get(s, token, "X-Subdomain", "one")
		get(s, token, "X-Subdomain", "two")
		equal(t, "three", get(s, token, "X-Subdomain", "three"), 429)
	})
}

func TestLimitByApp(t *testing.T) {
	s := start(t, simulator.Config{LimitByApp: true, AutoApprove: true, UserLimits: []simulator.Window{window(1, time.Hour)}, Enforcement: simulator.EnforceSliding})
	for range 2 {
		for _, app := range []string{"id", "other"} {
			back := s.location(s.must(http.StatusFound, "GET", strings.Replace(approveURL(""), "client_id=id", "client_id="+app, 1), ""))
			got := s.do("POST", "/v2/token_endpoint", url.Values{
				"grant_type": {"authorization_code"}, "code": {back.Get("code")}, "redirect_uri": {callback}, "client_id": {app}, "client_secret": {"x"},
			}.Encode(), "Authorization:")
			s.do("GET", "/v2/users/me", "", "Authorization: Bearer "+got.tokens(t).Access)
		}
	}
	users := s.Stats().Users
	equal(t, "budgets", len(users), 2)
	for _, u := range users {
		equal(t, u.App, u.Requests, 2)
		equal(t, u.App, u.RateLimited, 1)
	}
}

func TestRefreshLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulator.New(simulator.Config{})
		token := s.Authorize("")
		for range 15 {
			status, next := refreshBare(t, s, token)
			equal(t, "status", status, 200)
			token = next.Refresh
		}
		r := httptest.NewRequest("POST", "/v2/token_endpoint?grant_type=refresh_token&refresh_token="+token, nil)
		r.SetBasicAuth("id", "secret")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		equal(t, "body", w.Body.String(), "You must not exceed 15 requests per 60 seconds")
		equal(t, "Retry-After", w.Header().Get("Retry-After"), "60")
		time.Sleep(time.Minute)
		status, _ := refreshBare(t, s, token)
		equal(t, "the refused refresh spent nothing", status, 200)
		got := s.Stats().Tokens
		equal(t, "asked for", got.RefreshRequests, 17)
		equal(t, "issued", got.Refreshes, 16)
		equal(t, "refused", got.RateLimited, 1)
		equal(t, "most in a minute", got.Users[0].Windows[0].MaxSliding, 16)
	})
}

// TestCountsAreExact compares both maxima with a count by brute force, for any
// arrivals and windows, refused requests among them.
func TestCountsAreExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		periods := rapid.SliceOfN(rapid.IntRange(1, 500), 1, 3).Draw(rt, "windows, ms")
		gaps := rapid.SliceOfN(rapid.IntRange(0, 120), 1, 80).Draw(rt, "gaps, ms")
		limit := rapid.IntRange(1, 30).Draw(rt, "limit")
		synctest.Test(t, func(*testing.T) {
			var windows []simulator.Window
			for _, p := range periods {
				windows = append(windows, window(limit, time.Duration(p)*time.Millisecond))
			}
			s := simulator.New(simulator.Config{UserLimits: windows, RequestLog: 1})
			token := s.AccessToken("")
			var arrivals []int64
			for _, gap := range gaps {
				time.Sleep(time.Duration(gap) * time.Millisecond)
				arrivals = append(arrivals, time.Now().UnixNano())
				bare(s, "GET", "/v2/users/me", token)
			}
			for _, got := range s.Stats().Users[0].Windows {
				sliding, aligned := most(arrivals, int64(got.Per))
				if got.MaxSliding != sliding || got.MaxAligned != aligned {
					rt.Fatalf("window %v: got %d sliding, %d aligned, want %d, %d", time.Duration(got.Per), got.MaxSliding, got.MaxAligned, sliding, aligned)
				}
			}
		})
	})
}

func most(arrivals []int64, per int64) (sliding, aligned int) {
	for _, end := range arrivals {
		inSliding, inAligned := 0, 0
		for _, at := range arrivals {
			if at > end-per && at <= end {
				inSliding++
			}
			if at/per == end/per {
				inAligned++
			}
		}
		sliding, aligned = max(sliding, inSliding), max(aligned, inAligned)
	}
	return sliding, aligned
}
