package simulator_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

func TestStatusFaults(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	once := simulator.Match{Times: 1}
	for _, test := range []struct {
		fault  simulator.Fault
		status int
		body   string
	}{
		{simulator.Fault{Kind: simulator.FaultStatus}, 503, "<center><h1>503 Service Temporarily Unavailable</h1></center>"},
		{simulator.Fault{Kind: simulator.FaultStatus, Status: 504}, 504, "<head><title>504 Gateway Time-out</title></head>"},
		{simulator.Fault{Kind: simulator.FaultStatus, Status: 403}, 403, `{"errors":{"error":{"message":"Forbidden"}}}`},
		{simulator.Fault{Kind: simulator.FaultUnauthorized}, 401, `{"errors":{"error":{"message":"Access token not recognised"}}}`},
		{simulator.Fault{Kind: simulator.FaultRateLimited, RetryAfter: 7}, 429, "You must not exceed 120 requests per 60 seconds"},
		{simulator.Fault{Kind: simulator.FaultHTML}, 200, "<h1>We&#39;ll be back soon</h1>"},
		{simulator.Fault{Kind: simulator.FaultEmpty}, 200, ""},
	} {
		test.fault.Match = once
		s.arm(test.fault)
		got := s.must(test.status, "GET", "/v2/company", "")
		if !strings.Contains(got.body, test.body) {
			t.Errorf("%s: got %q, want %q", test.fault.Kind, got.body, test.body)
		}
		if test.status == 429 {
			equal(t, "Retry-After", got.Header.Get("Retry-After"), "7")
		}
		s.must(200, "GET", "/v2/company", "")
	}
	equal(t, "faults applied", s.Stats().FaultsApplied, 7)
	equal(t, "hits", s.Faults()[6].Hits, 1)
}

// TestActing tells faults that strike before FreeAgent acts from those after.
func TestActing(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	created := func() int { return len(s.must(200, "GET", "/v2/contacts", "").list(t)) }
	post := simulator.Match{Method: "POST", PathPrefix: "/v2/contacts", Times: 1}
	for _, test := range []struct {
		fault simulator.Fault
		acted bool
	}{
		{simulator.Fault{Kind: simulator.FaultStatus, Status: 502}, false},
		{simulator.Fault{Kind: simulator.FaultStatus, Status: 502, After: true}, true},
		{simulator.Fault{Kind: simulator.FaultDrop}, false},
		{simulator.Fault{Kind: simulator.FaultDrop, After: true}, true},
		{simulator.Fault{Kind: simulator.FaultStall, Delay: simulator.Duration(50 * time.Millisecond)}, false},
		{simulator.Fault{Kind: simulator.FaultStall, Delay: simulator.Duration(50 * time.Millisecond), After: true}, true},
		{simulator.Fault{Kind: simulator.FaultReset}, true},
	} {
		test.fault.Match = post
		s.arm(test.fault)
		before := created()
		a, err := s.try("POST", "/v2//contacts", `{"first_name":"`+strings.Repeat("n", 10_000)+`"}`)
		answered := err == nil
		equal(t, fmt.Sprint(test.fault.Kind, " answered"), answered, test.fault.Kind == simulator.FaultStatus)
		if answered {
			equal(t, "status", a.StatusCode, 502)
		}
		equal(t, fmt.Sprint(test.fault.Kind, test.fault.After, " acted"), created() > before, test.acted)
		var last simulator.Request
		for _, r := range s.Requests(0) {
			if r.Method == "POST" {
				last = r
			}
		}
		equal(t, test.fault.Kind+" in the log", last.Fault, test.fault.Kind)
		equal(t, test.fault.Kind+" acted in the log", last.Acted, test.acted)
	}
}

func TestResetCutsTheAnswer(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	s.arm(simulator.Fault{Kind: simulator.FaultReset})
	for path, half := range map[string]int64{"/v2/company": 1, "/v2/_sim_stream?bytes=20000000": 10_000_000} {
		r, err := http.NewRequest("GET", s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.token)
		resp, err := s.client.Do(r)
		if err != nil {
			continue // the reset overtook the header
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err == nil || n > max(half, resp.ContentLength/2) {
			t.Errorf("%s: got %d of %d bytes and %v, want a cut", path, n, resp.ContentLength, err)
		}
	}
}

func TestMatching(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	get := func(path string) int { return s.do("GET", path, "").StatusCode }
	s.arm(simulator.Fault{Kind: simulator.FaultStatus, Match: simulator.Match{PathPrefix: "/v2/company", Nth: 3}})
	equal(t, "the third only", fmt.Sprint(get("/v2/company"), get("/v2/contacts"), get("/v2//company"), get("/v2/company"), get("/v2/company")), "200 200 200 503 200")
	s.ClearFaults()
	s.arm(simulator.Fault{Kind: simulator.FaultStatus, Match: simulator.Match{Probability: 0.5}})
	failed := 0
	for range 200 {
		if get("/v2/company") == 503 {
			failed++
		}
	}
	if failed < 50 || failed > 150 { // 7 standard deviations
		t.Errorf("%d of 200 failed, want about half", failed)
	}
	s.ClearFaults()
	s.arm(simulator.Fault{Kind: simulator.FaultStatus, Match: simulator.Match{Method: "PUT"}})
	equal(t, "another method", get("/v2/company"), 200)
	for _, wrong := range []simulator.Fault{
		{Kind: "explode"}, {Kind: simulator.FaultStatus, Status: 99}, {Kind: simulator.FaultDrop, Match: simulator.Match{Probability: 2}},
		{Kind: simulator.FaultDrop, Match: simulator.Match{Nth: -1}},
	} {
		if _, err := s.Fault(wrong); err == nil {
			t.Errorf("%+v was armed", wrong)
		}
	}
}

func TestLatency(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	s.arm(simulator.Fault{Kind: simulator.FaultLatency, Delay: simulator.Duration(60 * time.Millisecond)})
	s.arm(simulator.Fault{Kind: simulator.FaultLatency, Delay: simulator.Duration(60 * time.Millisecond), After: true})
	begin := time.Now()
	s.must(200, "GET", "/v2/company", "")
	if took := time.Since(begin); took < 120*time.Millisecond {
		t.Errorf("took %v, want 120ms or more", took)
	}
}

func TestTokenFaults(t *testing.T) {
	s := start(t, simulator.Config{RefreshLimits: []simulator.Window{window(100, time.Minute)}})
	once := func(f simulator.Fault) answer {
		t.Helper()
		f.Match.Times = 1
		f.Match.PathPrefix = "/v2/token_endpoint"
		s.arm(f)
		return s.refresh(s.Authorize(""))
	}
	equal(t, "no refresh token", once(simulator.Fault{Kind: simulator.FaultNoRefreshToken}).tokens(t).Refresh, "")
	equal(t, "no access token", once(simulator.Fault{Kind: simulator.FaultNoAccessToken}).tokens(t).Access, "")
	equal(t, "no expiry", once(simulator.Fault{Kind: simulator.FaultNoExpiry}).tokens(t).ExpiresIn, nil)
	equal(t, "as a string", once(simulator.Fault{Kind: simulator.FaultExpiryAsString}).tokens(t).ExpiresIn, any("3600"))
	equal(t, "junk", once(simulator.Fault{Kind: simulator.FaultExpiryMalformed}).tokens(t).ExpiresIn, any("soon"))
	equal(t, "401", once(simulator.Fault{Kind: simulator.FaultUnauthorized}).body, "HTTP Basic: Access denied.\n")
	equal(t, "429", once(simulator.Fault{Kind: simulator.FaultRateLimited}).body, "You must not exceed 100 requests per 60 seconds")
	equal(t, "HTML", strings.HasPrefix(once(simulator.Fault{Kind: simulator.FaultHTML}).body, "<!doctype html>"), true)
	equal(t, "empty", once(simulator.Fault{Kind: simulator.FaultEmpty, After: true}).body, "")

	// Dropped before it rotates, the token is as good as before; dropped after, it is spent.
	token := s.Authorize("")
	for _, after := range []bool{false, true} {
		s.arm(simulator.Fault{Kind: simulator.FaultDrop, After: after, Match: simulator.Match{Times: 1}})
		if _, err := s.try("POST", "/v2/token_endpoint", "grant_type=refresh_token&refresh_token="+token, "Authorization: Basic aWQ6c2U="); err == nil {
			t.Fatal("answered")
		}
	}
	equal(t, "after the second drop", s.refresh(token).StatusCode, 401)
	s.arm(simulator.Fault{Kind: simulator.FaultNoRefreshToken})
	s.must(200, "GET", "/v2/company", "")
	equal(t, "token faults leave the API alone", s.Faults()[len(s.Faults())-1].Hits, 0)
}

// TestGoneClientsDoNotStopFreeAgent: who hangs up during a slow create finds it done.
func TestGoneClientsDoNotStopFreeAgent(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff})
	s.arm(simulator.Fault{Kind: simulator.FaultLatency, Delay: simulator.Duration(2 * time.Second), Match: simulator.Match{Method: "POST"}})
	ctx, hangUp := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v2/contacts", strings.NewReader(`{"first_name":"Ann"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	gone := make(chan error)
	go func() {
		_, err := s.client.Do(r)
		gone <- err
	}()
	wait(t, func() bool { all := s.Requests(0); return len(all) == 1 && all[0].BodyBytes > 0 })
	hangUp()
	if err := <-gone; err == nil {
		t.Fatal("answered before the client hung up")
	}
	deadline := time.Now().Add(10 * time.Second)
	for s.Stats().Writes.Acted == 0 {
		if time.Now().After(deadline) {
			t.Fatal("never created")
		}
		time.Sleep(5 * time.Millisecond) // until it has acted
	}
	equal(t, "contacts", len(s.must(200, "GET", "/v2/contacts", "").list(t)), 1)
}
