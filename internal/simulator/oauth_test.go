package simulator_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/internal/simulator"
)

const callback = "http://localhost:8123/callback"

func approveURL(extra string) string {
	return "/v2/approve_app?response_type=code&client_id=id&redirect_uri=" + url.QueryEscape(callback) + extra
}

// press fills in the approve page's form as a browser does.
func (s *sim) press(page, decision string) answer {
	s.t.Helper()
	form := url.Values{"decision": {decision}}
	for _, input := range regexp.MustCompile(`<input[^>]* name="([^"]*)" value="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		form.Set(input[1], html.UnescapeString(input[2]))
	}
	action := regexp.MustCompile(`action="([^"]*)"`).FindStringSubmatch(page)
	if action == nil {
		s.t.Fatalf("no form: %s", page)
	}
	return s.must(http.StatusFound, "POST", action[1], form.Encode(), "Content-Type: application/x-www-form-urlencoded")
}

func (s *sim) location(a answer) url.Values {
	s.t.Helper()
	to, err := url.Parse(a.Header.Get("Location"))
	if err != nil || !strings.HasPrefix(a.Header.Get("Location"), callback+"?") {
		s.t.Fatalf("Location: %q (%v)", a.Header.Get("Location"), err)
	}
	return to.Query()
}

func (s *sim) exchange(code string) answer {
	return s.do("POST", "/v2/token_endpoint", url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback},
	}.Encode(), "Authorization: Basic aWQ6c2VjcmV0")
}

func TestApproveAndExchange(t *testing.T) {
	s := start(t, simulator.Config{})
	page := s.must(http.StatusOK, "GET", approveURL("&state=x%26y"), "")
	back := s.location(s.press(page.body, "approve"))
	equal(t, "state", back.Get("state"), "x&y")

	got := s.exchange(back.Get("code"))
	equal(t, "status", got.StatusCode, http.StatusOK)
	grant := got.tokens(t)
	equal(t, "token_type", grant.Type, "bearer")
	equal(t, "expires_in", grant.ExpiresIn, any(3600.0))
	equal(t, "refresh_token_expires_in", grant.RefreshExpires, any(631151957.0))
	if !strings.Contains(grant.Access, "==") || !regexp.MustCompile(`^[A-Za-z0-9_=-]+$`).MatchString(grant.Access) {
		t.Errorf("access token %q: want url-safe base64 with padding inside", grant.Access)
	}
	s.token = grant.Access
	s.must(http.StatusOK, "GET", "/v2/users/me", "")

	again := s.exchange(back.Get("code"))
	equal(t, "re-used code", again.StatusCode, http.StatusUnauthorized)
	equal(t, "re-used code", again.body, "HTTP Basic: Access denied.\n")
	equal(t, "exchanges", s.Stats().Tokens.Exchanges, 1)
}

func TestCodesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for wait, want := range map[time.Duration]int{15 * time.Minute: 200, 15*time.Minute + time.Nanosecond: 401} {
			s := simulator.New(simulator.Config{AutoApprove: true})
			to, err := url.Parse(bare(s, "GET", approveURL(""), "").Header().Get("Location"))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(wait)
			got := bare(s, "POST", "/v2/token_endpoint?grant_type=authorization_code&client_secret=x&client_id=id&redirect_uri="+
				url.QueryEscape(callback)+"&code="+to.Query().Get("code"), "")
			equal(t, wait.String(), got.Code, want)
		}
	})
}

func TestCodesAreBound(t *testing.T) {
	s := start(t, simulator.Config{AutoApprove: true})
	code := s.location(s.must(http.StatusFound, "GET", approveURL("&user=ann"), "")).Get("code")
	exchange := func(client, redirect string) answer {
		return s.do("POST", "/v2/token_endpoint", url.Values{
			"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "client_id": {client}, "client_secret": {"x"},
		}.Encode(), "Authorization:")
	}
	equal(t, "another client", exchange("other", callback).StatusCode, 401)
	equal(t, "another redirect URI", exchange("id", callback+"/").StatusCode, 401)
	got := exchange("id", callback)
	s.token = got.tokens(t).Access
	equal(t, "the user who approved", s.must(200, "GET", "/v2/users/me", "").record(t)["email"], any("ann@example.com"))
	refresh := s.do("POST", "/v2/token_endpoint", "grant_type=refresh_token&client_id=other&client_secret=x&refresh_token="+got.tokens(t).Refresh, "Authorization:")
	equal(t, "another client's refresh token", refresh.StatusCode, 401)
}

func TestDenyAndStates(t *testing.T) {
	s := start(t, simulator.Config{})
	page := s.must(http.StatusOK, "GET", approveURL(""), "")
	back := s.location(s.press(page.body, "deny"))
	equal(t, "error", back.Get("error"), "access_denied")
	equal(t, "state sent although none came", back.Has("state"), false)

	if err := s.Configure(simulator.Config{AutoApprove: true, EmptyState: true, DeniedError: "no"}); err != nil {
		t.Fatal(err)
	}
	back = s.location(s.must(http.StatusFound, "GET", approveURL(""), ""))
	equal(t, "empty state", back.Has("state") && back.Get("state") == "", true)
	equal(t, "code", back.Get("code") != "", true)
	back = s.location(s.press(page.body, "deny"))
	equal(t, "error", back.Get("error"), "no")
}

func TestApproveRefusesOthers(t *testing.T) {
	app := simulator.App{ClientID: "id", ClientSecrets: []string{"secret", "next"}, RedirectURIs: []string{"https://app.example/cb"}}
	strict := start(t, simulator.Config{Apps: []simulator.App{app}, RedirectErrorStatus: 403})
	open := start(t, simulator.Config{})
	for name, test := range map[string]struct {
		s      *sim
		query  string
		status int
	}{
		"registered redirect":   {strict, "response_type=code&client_id=id&redirect_uri=https://app.example/cb", 200},
		"unregistered redirect": {strict, "response_type=code&client_id=id&redirect_uri=https://app.example/cb/", 403},
		"localhost needs it":    {strict, "response_type=code&client_id=id&redirect_uri=" + callback, 403},
		"unknown client":        {strict, "response_type=code&client_id=other&redirect_uri=https://app.example/cb", 401},
		"no response_type":      {open, "client_id=id&redirect_uri=" + callback, 400},
		"loopback address":      {open, "response_type=code&client_id=id&redirect_uri=http://127.0.0.1:9/", 200},
		"another host":          {open, "response_type=code&client_id=id&redirect_uri=http://localhost.example.com/", 400},
		"no client":             {open, "response_type=code&redirect_uri=" + callback, 401},
	} {
		got := test.s.must(test.status, "GET", "/v2/approve_app?"+test.query, "")
		if !strings.HasPrefix(got.Header.Get("Content-Type"), "text/html") || got.Header.Get("Location") != "" {
			t.Errorf("%s: want a page, got %v", name, got.Header)
		}
	}
	basic := func(secret string) int {
		return strict.do("POST", "/v2/token_endpoint", "grant_type=refresh_token&client_id=id&client_secret="+secret+
			"&refresh_token="+strict.Authorize(""), "Authorization:").StatusCode
	}
	equal(t, "first secret", basic("secret"), 200)
	equal(t, "second secret", basic("next"), 200)
	equal(t, "wrong secret", basic("wrong"), 401)
}

func TestTokenDialects(t *testing.T) {
	s := start(t, simulator.Config{RefreshLimits: []simulator.Window{{Requests: 100, Per: simulator.Duration(time.Minute)}}})
	multipart := func(token string) string {
		var b strings.Builder
		for _, f := range [][2]string{{"grant_type", "refresh_token"}, {"refresh_token", token}, {"client_id", "id"}, {"client_secret", "se"}} {
			b.WriteString("--X\r\nContent-Disposition: form-data; name=\"" + f[0] + "\"\r\n\r\n" + f[1] + "\r\n")
		}
		return b.String() + "--X--\r\n"
	}
	credentials := "&client_id=id&client_secret=se"
	for name, test := range map[string]struct {
		path, kind, auth string
		body             func(token string) string
	}{
		"basic":         {"", "application/x-www-form-urlencoded", "Basic aWQ6c2U=", func(r string) string { return "grant_type=refresh_token&refresh_token=" + r }},
		"escaped basic": {"", "application/x-www-form-urlencoded", "Basic aSU2NDpzZQ==", func(r string) string { return "grant_type=refresh_token&refresh_token=" + r }},
		"body":          {"", "application/x-www-form-urlencoded", "", func(r string) string { return "grant_type=refresh_token&refresh_token=" + r + credentials }},
		"json": {"", "application/json", "", func(r string) string {
			return `{"grant_type":"refresh_token","client_id":"id","client_secret":"se","refresh_token":"` + r + `"}`
		}},
		"multipart":        {"", "multipart/form-data; boundary=X", "", multipart},
		"form called json": {"", "application/json", "", func(r string) string { return "grant_type=refresh_token&refresh_token=" + r + credentials }},
		"no content type":  {"", "", "", func(r string) string { return "grant_type=refresh_token&refresh_token=" + r + credentials }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/v2/token_endpoint", "//v2//token_endpoint", "/v2/token_endpoint/"} {
				got := s.do("POST", path, test.body(s.Authorize("")), "Authorization:"+test.auth, "Content-Type:"+test.kind)
				equal(t, path, got.StatusCode, 200)
			}
		})
	}
	t.Run("query", func(t *testing.T) {
		got := s.do("POST", "/v2/token_endpoint?grant_type=refresh_token"+credentials+"&refresh_token="+s.Authorize(""), "", "Authorization:")
		equal(t, "status", got.StatusCode, 200)
	})
	t.Run("GET", func(t *testing.T) { s.must(404, "GET", "/v2/token_endpoint", "") })
	t.Run("mislabelled refused", func(t *testing.T) {
		cfg := s.Config()
		cfg.RefuseMislabelledForm = true
		if err := s.Configure(cfg); err != nil {
			t.Fatal(err)
		}
		body := "grant_type=refresh_token" + credentials + "&refresh_token=" + s.Authorize("")
		s.must(401, "POST", "/v2/token_endpoint", body, "Authorization:", "Content-Type: application/json")
	})
}

func TestRotation(t *testing.T) {
	for rotation, want := range map[string][3]int{ // the second use at once, after the grace, the new token
		simulator.RotationStrict:  {401, 401, 200},
		simulator.RotationGrace:   {200, 401, 200},
		simulator.RotationLenient: {200, 200, 200},
	} {
		t.Run(rotation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := simulator.New(simulator.Config{Rotation: rotation, Grace: simulator.Duration(10 * time.Second)})
				old := s.Authorize("")
				status, first := refreshBare(t, s, old)
				equal(t, "first use", status, 200)
				status, _ = refreshBare(t, s, old)
				equal(t, "second use", status, want[0])
				time.Sleep(11 * time.Second)
				status, _ = refreshBare(t, s, old)
				equal(t, "after the grace", status, want[1])
				status, _ = refreshBare(t, s, first.Refresh)
				equal(t, "the new token", status, want[2])
				equal(t, "spent", s.Stats().Tokens.SpentTokens, 2)
				equal(t, "asked for", s.Stats().Tokens.RefreshRequests, 4)
			})
		})
	}
}

func TestLifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulator.New(simulator.Config{
			AccessTokenLifetime: simulator.Duration(1500 * time.Millisecond), RefreshTokenLifetime: simulator.Duration(time.Hour),
		})
		refreshToken := s.Authorize("")
		_, grant := refreshBare(t, s, refreshToken)
		equal(t, "expires_in, rounded up", grant.ExpiresIn, any(2.0))
		time.Sleep(1499 * time.Millisecond)
		equal(t, "just before expiry", bare(s, "GET", "/v2/users/me", grant.Access).Code, 200)
		time.Sleep(2 * time.Millisecond)
		expired := bare(s, "GET", "/v2/users/me", grant.Access)
		equal(t, "after expiry", expired.Code, 401)
		equal(t, "body", expired.Body.String(), `{"errors":{"error":{"message":"Access token not recognised"}}}`)
		time.Sleep(time.Hour)
		status, _ := refreshBare(t, s, grant.Refresh)
		equal(t, "refresh token after its life", status, 401)
		equal(t, "expired seen", s.Stats().Authorization["expired"], 1)
	})
}

func TestTokenSwitches(t *testing.T) {
	t.Run("access dies on refresh", func(t *testing.T) {
		s := start(t, simulator.Config{AccessDiesOnRefresh: true})
		first := s.refresh(s.Authorize("")).tokens(t)
		second := s.refresh(first.Refresh).tokens(t)
		s.must(401, "GET", "/v2/users/me", "", "Authorization: Bearer "+first.Access)
		s.must(200, "GET", "/v2/users/me", "", "Authorization: Bearer "+second.Access)
	})
	t.Run("reauthorising replaces", func(t *testing.T) {
		s := start(t, simulator.Config{ReauthorizeReplaces: true})
		old, other := s.Authorize("owner"), s.Authorize("other")
		s.Authorize("owner")
		equal(t, "old grant", s.refresh(old).StatusCode, 401)
		equal(t, "another user's", s.refresh(other).StatusCode, 200)
	})
	t.Run("invalid_grant", func(t *testing.T) {
		s := start(t, simulator.Config{TokenErrors: simulator.TokenErrorsInvalidGrant})
		got := s.refresh("nonsense")
		equal(t, "status", got.StatusCode, 400)
		equal(t, "body", got.body, `{"error":"invalid_grant"}`)
		got = s.must(400, "POST", "/v2/token_endpoint", "grant_type=password", "Authorization: Basic aWQ6c2VjcmV0")
		equal(t, "body", got.body, `{"error":"unsupported_grant_type"}`)
		got = s.must(401, "POST", "/v2/token_endpoint", "grant_type=refresh_token", "Authorization:")
		equal(t, "body", got.body, `{"error":"invalid_client"}`)
	})
	t.Run("basic text", func(t *testing.T) {
		got := start(t, simulator.Config{}).refresh("nonsense")
		equal(t, "status", got.StatusCode, 401)
		equal(t, "body", got.body, "HTTP Basic: Access denied.\n")
		equal(t, "challenge", got.Header.Get("Www-Authenticate"), `Basic realm="Application"`)
		equal(t, "type", got.Header.Get("Content-Type"), "text/html; charset=utf-8")
	})
}

func TestRevoke(t *testing.T) {
	s := start(t, simulator.Config{})
	owner := s.refresh(s.Authorize("owner")).tokens(t)
	other := s.refresh(s.Authorize("other")).tokens(t)
	me := func(token string) int {
		return s.do("GET", "/v2/users/me", "", "Authorization: Bearer "+token).StatusCode
	}
	s.RevokeAccess("owner")
	equal(t, "owner's access token", me(owner.Access), 401)
	equal(t, "other's access token", me(other.Access), 200)
	owner = s.refresh(owner.Refresh).tokens(t)
	equal(t, "refreshed", me(owner.Access), 200)
	s.RevokeRefresh("")
	equal(t, "refresh token", s.refresh(owner.Refresh).StatusCode, 401)
	equal(t, "access token goes on", me(owner.Access), 200)
	s.RevokeAll("")
	equal(t, "everything", me(other.Access), 401)
	equal(t, "revoked seen", s.Stats().Authorization["revoked"], 2)
}
