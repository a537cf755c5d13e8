package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/proxy"
	"freeagent-proxy/tokens"
)

// sealer is what stand-ins are sealed with in all tests, as by all replicas.
var sealer = func() func() *tokens.Sealer {
	key, err := tokens.ParseKey("test", tokens.NewKey())
	if err != nil {
		panic(err)
	}
	made, err := tokens.NewSealer(key)
	if err != nil {
		panic(err)
	}
	return func() *tokens.Sealer { return made }
}()

const (
	form      = "Content-Type: application/x-www-form-urlencoded"
	jsonBody  = "Content-Type: application/json"
	clientKey = "k3y/of+billing=="
)

// granted is what a program reads of the token endpoint's answer.
type granted struct {
	AccessToken           string `json:"access_token"`
	TokenType             string `json:"token_type"`
	ExpiresIn             int    `json:"expires_in"`
	RefreshToken          string `json:"refresh_token"`
	RefreshTokenExpiresIn int    `json:"refresh_token_expires_in"`
}

// granted expects tokens.
func (a *answer) granted(t *testing.T) granted {
	t.Helper()
	var got granted
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 {
		t.Fatalf("%d %q: %v", a.status, a.body, err)
	}
	equal(t, "token_type", got.TokenType, "bearer")
	equal(t, "expires_in", got.ExpiresIn, 3600)
	equal(t, "refresh_token_expires_in", got.RefreshTokenExpiresIn, 631151957)
	equal(t, "Cache-Control", a.header.Get("Cache-Control"), "no-store")
	equal(t, "Content-Type", a.header.Get("Content-Type"), "application/json; charset=utf-8")
	if !strings.HasPrefix(a.header.Get("Proxy-Status"), "freeagent-proxy;") || a.header.Get("X-Request-Id") == "" {
		t.Errorf("headers %v", a.header)
	}
	opaque := regexp.MustCompile(`^[A-Za-z0-9_-]{40,400}$`)
	if !opaque.MatchString(got.AccessToken) || !opaque.MatchString(got.RefreshToken) || got.AccessToken == got.RefreshToken {
		t.Errorf("tokens %q and %q", got.AccessToken, got.RefreshToken)
	}
	return got
}

// dialects are the forms in which programs ask for a token, with an id and a secret.
func dialects(id, secret string) map[string][]string { // target, body, headers
	values := func(more ...string) string {
		v := url.Values{"client_id": {id}, "client_secret": {secret}}
		for i := 0; i < len(more); i += 2 {
			v.Set(more[i], more[i+1])
		}
		return v.Encode()
	}
	object, _ := json.Marshal(map[string]any{"client_id": id, "client_secret": secret, "grant_type": "refresh_token", "refresh_token": "old", "expires_in": 3})
	const endpoint, refresh = "/v2/token_endpoint", "grant_type=refresh_token&refresh_token=old"
	multipart := func(fields ...string) string {
		var b strings.Builder
		for i := 0; i < len(fields); i += 2 {
			b.WriteString("--xx\r\nContent-Disposition: form-data; name=\"" + fields[i] + "\"\r\n\r\n" + fields[i+1] + "\r\n")
		}
		return b.String() + "--xx--\r\n"
	}
	return map[string][]string{
		"Basic and a form":                   {endpoint, refresh, form, basic(id, secret)},
		"Basic, percent-encoded":             {endpoint, refresh, form, basic(url.QueryEscape(id), url.QueryEscape(secret))},
		"Basic and a code":                   {endpoint, "grant_type=authorization_code&code=c&redirect_uri=http%3A%2F%2Flocalhost%2F", form, basic(id, secret)},
		"Basic, in no hurry to say which":    {endpoint, "refresh_token=old", form, basic(id, secret)},
		"form":                               {endpoint, values("grant_type", "refresh_token", "refresh_token", "old"), form},
		"form without a type":                {endpoint, values("grant_type", "refresh_token", "refresh_token", "old")},
		"form that says it is JSON":          {endpoint, values("grant_type", "refresh_token", "refresh_token", "old"), jsonBody},
		"JSON":                               {endpoint, string(object), jsonBody},
		"JSON that says it is a form":        {endpoint, string(object), form},
		"multipart":                          {endpoint, multipart("client_id", id, "client_secret", secret, "grant_type", "refresh_token", "refresh_token", "old"), "Content-Type: multipart/form-data; boundary=xx"},
		"both":                               {endpoint, values("grant_type", "refresh_token", "refresh_token", "old"), form, basic(id, secret)},
		"query":                              {endpoint + "?" + values("grant_type", "refresh_token", "refresh_token", "old"), ""},
		"Basic and a query":                  {endpoint + "?" + refresh, "", basic(id, secret)},
		"doubled slash":                      {"/v2//token_endpoint", refresh, form, basic(id, secret)},
		"two doubled slashes and one behind": {"//v2//token_endpoint/", refresh, form, basic(id, secret)},
		"encoded":                            {"/v2/token%5fendpoint", refresh, form, basic(id, secret)},
		"account":                            {"/accounts/acme/v2/token_endpoint", refresh, form, basic(id, secret)},
		"as to an HTTP proxy":                {"http://api.freeagent.com/v2/token_endpoint", refresh, form, basic(id, secret)},
	}
}

func (r *rig) dialect(d []string) *answer {
	r.t.Helper()
	return r.do("POST", d[0], d[1], d[2:]...)
}

// A program that does its own OAuth gets a stand-in, which names the client: as good as its key.
func TestTokenEndpoint(t *testing.T) {
	billing := proxy.Client{Name: "billing", Keys: digestsOf(clientKey)}
	r, u := withUpstream(t, well, clients(billing, proxy.Client{Name: "nightly", Keys: digestsOf("another")}))
	for name, dialect := range dialects("billing", clientKey) {
		t.Run(name, func(t *testing.T) {
			got := r.dialect(dialect).granted(t)
			called := len(u.all())
			r.do("GET", "/v2/company", "", "Authorization: Bearer "+got.AccessToken).passed(t, 200, fine)
			equal(t, "calls", len(u.all()), called+1)
			equal(t, "Authorization", u.all()[called].header.Get("Authorization"), "Bearer "+accessToken)
			// It is as good as the key wherever that may stand.
			r.do("GET", "/v2/company", "", "X-Api-Key: "+got.AccessToken).passed(t, 200, fine)
			r.do("GET", "/v2/company", "", basic("anyone", got.AccessToken)).passed(t, 200, fine)
			r.do("GET", "/v2/company", "", "X-Api-Key: "+got.RefreshToken).refused(t, 401, "no client's")
			// What it got as refresh token is none to call with, and good for a refresh.
			r.do("GET", "/v2/company", "", "Authorization: Bearer "+got.RefreshToken).refused(t, 401, "none of the proxy's clients")
			r.do("POST", "/v2/token_endpoint", "grant_type=refresh_token&refresh_token="+got.RefreshToken, form, basic("billing", clientKey)).granted(t)
		})
	}
	for _, q := range u.all() {
		if strings.Contains(q.target, "token_endpoint") {
			t.Errorf("%s reached FreeAgent", q.target)
		}
	}
}

// Wrong credentials get FreeAgent's own answer.
func TestTokenEndpointRefuses(t *testing.T) {
	r, u := withUpstream(t, well, clients(proxy.Client{Name: "billing", Keys: digestsOf(clientKey)}, proxy.Client{Name: "nightly", Keys: digestsOf("another")}))
	for _, who := range [][2]string{
		{"billing", "wrong"}, {"billing", ""}, {"", ""}, {"nobody", "wrong"}, {"nightly", clientKey}, {"BILLING", "wrong"}, {"anonymous", ""}, {"operator", ""},
	} {
		for name, dialect := range dialects(who[0], who[1]) {
			got := r.dialect(dialect)
			equal(t, name+": status", got.status, 401)
			equal(t, name+": body", got.body, "HTTP Basic: Access denied.\n")
			equal(t, name+": Content-Type", got.header.Get("Content-Type"), "text/html; charset=utf-8")
			equal(t, name+": WWW-Authenticate", got.header.Get("WWW-Authenticate"), `Basic realm="Application"`)
		}
	}
	good := basic("billing", clientKey)
	r.do("POST", "/v2/token_endpoint", "grant_type=client_credentials", form, good).refused(t, 400, "grant_type must be")
	r.do("POST", "/v2/token_endpoint", "", form, good).refused(t, 400, "grant_type must be")
	r.do("POST", "/v2/token_endpoint", "{", jsonBody, good).refused(t, 400, "neither a form nor JSON")
	r.do("POST", "/v2/token_endpoint", "--x", "Content-Type: multipart/form-data; boundary=xx", good).refused(t, 400, "neither a form nor JSON")
	r.do("POST", "/v2/token_endpoint", strings.Repeat("a", 65<<10), form, good).refused(t, 413, "larger than 64 KiB")
	chunked := "10400\r\n" + strings.Repeat("a", 0x10400) + "\r\n0\r\n\r\n"
	r.ask(text("POST /v2/token_endpoint HTTP/1.1", "Host: "+r.addr, "Transfer-Encoding: chunked", form, good)+chunked).refused(t, 413, "larger than 64 KiB")
	r.do("POST", "/v2/token_endpoint", "grant_type=refresh_token", form, good, "Origin: http://evil.example").refused(t, 403, "web page")
	u.nothing()
}

// A stand-in that was tampered with, is somebody else's, or whose key was taken away is worth nothing; one of another
// replica with the same keys is.
func TestStandIns(t *testing.T) {
	billing := proxy.Client{Name: "billing", Keys: digestsOf(clientKey, "spare")}
	r, u := withUpstream(t, well, clients(billing))
	ask := func(key string) string {
		return r.do("POST", "/v2/token_endpoint", "grant_type=refresh_token", form, basic("billing", key)).granted(t).AccessToken
	}
	main, spare := ask(clientKey), ask("spare")
	bearer := func(r *rig, token string) *answer {
		return r.do("GET", "/v2/company", "", "Authorization: Bearer "+token)
	}
	for i := range 20 {
		place := len(main) * i / 20
		changed := main[:place] + string(main[place]^1) + main[place+1:]
		if got := bearer(r, changed); got.status != 401 {
			t.Errorf("changed at %d: %d", place, got.status)
		}
	}
	bearer(r, main[:len(main)-1]).refused(t, 401, "none of")
	u.nothing()

	other, _ := withUpstream(t, well, clients(proxy.Client{Name: "billing", Keys: digestsOf("spare")}))
	bearer(other, spare).passed(t, 200, fine)
	bearer(other, main).refused(t, 401, "none of")
	renamed, _ := withUpstream(t, well, clients(proxy.Client{Name: "other", Keys: digestsOf(clientKey)}))
	bearer(renamed, main).refused(t, 401, "none of")
}

// A stand-in is good for an hour by the clock that replicas share, whatever their own say.
func TestStandInsEndByTheSharedClock(t *testing.T) {
	var now atomic.Int64 // Unix seconds: of another century
	r, _ := withUpstream(t, well, clients(proxy.Client{Name: "billing", Keys: digestsOf(clientKey)}), func(c *proxy.Config) {
		c.Now = func() time.Time { return time.Unix(now.Load(), 0) }
	})
	token := r.do("POST", "/v2/token_endpoint", "grant_type=refresh_token", form, basic("billing", clientKey)).granted(t).AccessToken
	now.Store(59 * 60)
	r.do("GET", "/v2/company", "", "Authorization: Bearer "+token).passed(t, 200, fine)
	now.Store(61 * 60)
	r.do("GET", "/v2/company", "", "Authorization: Bearer "+token).refused(t, 401, "none of")
}

// Without clients any id and secret will do, and so will they from a client that is known by something else.
func TestTokenEndpointWithoutKeys(t *testing.T) {
	open, _ := withUpstream(t, well)
	for _, dialect := range dialects("my-old-app", "its-secret") {
		got := open.dialect(dialect).granted(t)
		open.do("GET", "/v2/company", "", "Authorization: Bearer "+got.AccessToken).passed(t, 200, fine)
	}
	near := proxy.Client{Name: "near", Networks: prefixes("127.0.0.1/32")}
	known, u := withUpstream(t, well, clients(near, proxy.Client{Name: "billing", Keys: digestsOf(clientKey)}))
	got := known.do("POST", "/v2/token_endpoint", "grant_type=refresh_token", form, basic("my-old-app", "its-secret")).granted(t)
	known.do("GET", "/v2/company", "", "Authorization: Bearer "+got.AccessToken).passed(t, 200, fine)
	equal(t, "calls", len(u.all()), 1)
	known.do("POST", "/v2/token_endpoint", "grant_type=refresh_token", form, basic("billing", "its-secret")).refused(t, 401, "Access denied")
	// Its own name is an id as good as any other.
	known.do("POST", "/v2/token_endpoint", "grant_type=refresh_token", form, basic("near", "its-secret")).granted(t)
	known.do("POST", "/v2/token_endpoint", "grant_type=refresh_token", form, basic("near", clientKey)).refused(t, 401, "Access denied")

	// It names a client without a key, so it is no key elsewhere.
	far, _ := withUpstream(t, well, clients(proxy.Client{Name: "near", Networks: prefixes("192.0.2.0/24"), Keys: digestsOf(clientKey)}))
	far.do("GET", "/v2/company", "", "Authorization: Bearer "+got.AccessToken).refused(t, 401, "none of")
}

// Nothing that a token request says gets into the log, wherever in it a program has put its secret.
func TestTokenRequestsAreNotLogged(t *testing.T) {
	r, _ := withUpstream(t, well, clients(proxy.Client{Name: "billing", Keys: digestsOf(clientKey)}))
	const secret, parts = "MARKED-secret", "Content-Type: multipart/form-data; boundary=xx"
	good := basic("billing", clientKey)
	for _, request := range [][]string{
		{"grant_type=" + secret, form, good},
		{"client_id=" + secret + "&client_secret=" + secret, form},
		{`{"client_secret": "` + secret, jsonBody, good},
		{"--xx\r\n" + secret + "\r\n\r\nvalue\r\n--xx--\r\n", parts, good},
		{"--xx\r\nContent-Disposition: form-data; name=\"client_secret\"\r\n" + secret + "\r\n\r\n--xx--\r\n", parts},
		{secret, parts, good},
		{"--xx\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n" + secret, parts, good},
	} {
		got := r.do("POST", "/v2/token_endpoint?client_secret="+secret, request[0], request[1:]...)
		if got.status != 400 && got.status != 401 || strings.Contains(fmt.Sprint(got.header)+got.body, secret) {
			t.Errorf("%q: %d %v %s", request[0], got.status, got.header, got.body)
		}
	}
	if text := r.log.String(); strings.Contains(text, secret) || strings.Contains(text, clientKey) {
		t.Errorf("logged: %s", text)
	}
}

// The approve page explains, and leads nowhere.
func TestApprovePage(t *testing.T) {
	r, u := withUpstream(t, well, clients(proxy.Client{Name: "billing", Keys: digestsOf(clientKey)}))
	for _, target := range []string{
		"/v2/approve_app?client_id=id&response_type=code&redirect_uri=http%3A%2F%2Fevil.example%2F&state=%3Cscript%3E", "/v2//approve_app", "/v2/approv%65_app",
	} {
		got := r.get(target)
		equal(t, "status", got.status, 200)
		equal(t, "Location", got.header.Get("Location"), "")
		if !strings.Contains(got.body, "freeagent-proxy authorize") || strings.Contains(got.body, "evil") || strings.Contains(got.body, "<script") {
			t.Errorf("%s: %s", target, got.body)
		}
		policy := got.header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
			if !slices.Contains(strings.Split(policy, "; "), part) {
				t.Errorf("Content-Security-Policy %q without %s", policy, part)
			}
		}
	}
	head := r.do("HEAD", "/v2/approve_app", "")
	equal(t, "HEAD", head.status, 200)
	equal(t, "body", head.body, "")
	u.nothing()
}
