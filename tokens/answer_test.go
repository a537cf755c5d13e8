package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/tokens"
)

// Whatever comes beside a usable access token costs nothing of the pair.
func TestAnswersThatServe(t *testing.T) {
	const hour = time.Hour
	pair := func(more string) string { return `{"access_token":"acc=ess","refresh_token":"re=fresh"` + more + `}` }
	for name, c := range map[string]struct {
		contentType, body string
		refresh           string // "": re=fresh
		life, refreshLife time.Duration
	}{
		"documented": {body: `{"access_token":"acc=ess","token_type":"bearer","expires_in":3600,"refresh_token":"re=fresh","refresh_token_expires_in":631151957}`,
			life: hour, refreshLife: 631151957 * time.Second},
		"other members":            {body: pair(`,"expires_in":60,"scope":null,"created_at":1,"x":{"access_token":"other"}`), life: time.Minute},
		"expires_in a string":      {body: pair(`,"expires_in":"1800"`), life: 30 * time.Minute},
		"with blanks":              {body: pair(`,"expires_in":" 1800 "`), life: 30 * time.Minute},
		"expires_in a float":       {body: pair(`,"expires_in":1799.5`), life: 30 * time.Minute},
		"expires_in in floats":     {body: pair(`,"expires_in":"1.8e3"`), life: 30 * time.Minute},
		"expires_in half a second": {body: pair(`,"expires_in":0.5`), life: time.Second},
		"expires_in missing":       {body: pair(``), life: hour},
		"expires_in null":          {body: pair(`,"expires_in":null`), life: hour},
		"expires_in zero":          {body: pair(`,"expires_in":0`), life: hour},
		"expires_in negative":      {body: pair(`,"expires_in":-5`), life: hour},
		"expires_in words":         {body: pair(`,"expires_in":"an hour"`), life: hour},
		"expires_in NaN":           {body: pair(`,"expires_in":"NaN"`), life: hour},
		"expires_in infinite":      {body: pair(`,"expires_in":"Inf"`), life: hour},
		"expires_in an object":     {body: pair(`,"expires_in":{"seconds":3}`), life: hour},
		"expires_in a list":        {body: pair(`,"expires_in":[]`), life: hour},
		"expires_in true":          {body: pair(`,"expires_in":true`), life: hour},
		"expires_in huge":          {body: pair(`,"expires_in":1e300`), life: (1<<31 - 1) * time.Second},
		"expires_in more digits":   {body: pair(`,"expires_in":99999999999999999999999`), life: (1<<31 - 1) * time.Second},
		"refresh life a string":    {body: pair(`,"refresh_token_expires_in":"7200"`), life: hour, refreshLife: 2 * hour},
		"refresh life garbage":     {body: pair(`,"refresh_token_expires_in":"long"`), life: hour},
		"not JSON any more":        {body: `{"access_token":"acc=ess","expires_in":NaN,"refresh_token":"re=fresh"}`, life: hour},
		"cut behind the tokens":    {body: `{"access_token":"acc=ess","refresh_token":"re=fresh","expi`, life: hour},
		"trailing garbage":         {body: pair(`,"expires_in":60`) + "<!-- served by x -->", life: time.Minute},
		"byte order mark":          {body: "\ufeff" + pair(`,"expires_in":60`), life: time.Minute},
		"blank lines":              {body: "\r\n\r\n" + pair(`,"expires_in":60`) + "\n", life: time.Minute},
		"escaped":                  {body: `{"access_token":"acc\u003dess","refresh_token":"re\u003dfresh"}`, life: hour},
		"no refresh token":         {body: `{"access_token":"acc=ess","expires_in":60}`, refresh: "old", life: time.Minute},
		"empty refresh token":      {body: `{"access_token":"acc=ess","refresh_token":""}`, refresh: "old", life: hour},
		"null refresh token":       {body: `{"access_token":"acc=ess","refresh_token":null}`, refresh: "old", life: hour},
		"refresh token a list":     {body: `{"access_token":"acc=ess","refresh_token":[]}`, refresh: "old", life: hour},
		"refresh token a number":   {body: `{"access_token":"acc=ess","refresh_token":12345678901234567890}`, refresh: "12345678901234567890", life: hour},
		"error beside the tokens":  {body: pair(`,"error":"invalid_grant"`), life: hour},
		"labelled as text":         {contentType: "text/plain; charset=utf-8", body: pair(`,"expires_in":60`), life: time.Minute},
		"labelled as HTML":         {contentType: "text/html", body: pair(`,"expires_in":60`), life: time.Minute},
		"labelled as a form":       {contentType: "application/x-www-form-urlencoded", body: pair(`,"expires_in":60`), life: time.Minute},
		"badly labelled":           {contentType: ";;;", body: pair(`,"expires_in":60`), life: time.Minute},
		"a form": {contentType: "application/x-www-form-urlencoded", body: "access_token=acc%3Dess&refresh_token=re%3Dfresh&expires_in=60&refresh_token_expires_in=7200",
			life: time.Minute, refreshLife: 2 * hour},
		"a form, labelled as JSON": {body: "expires_in=x&access_token=acc%3Dess&refresh_token=re%3Dfresh", life: hour},
	} {
		t.Run(name, func(t *testing.T) {
			if c.contentType == "" {
				c.contentType = "application/json"
			}
			if c.refresh == "" {
				c.refresh = "re=fresh"
			}
			endpoint := answering(t, answer(200, c.contentType, c.body))
			began := time.Now()
			g, err := endpoint.Refresh(context.Background(), app, "old")
			if err != nil {
				t.Fatal(err)
			}
			lives := func(end time.Time, life time.Duration) bool { // since it was asked for
				return !end.Before(began.Add(life)) && !end.After(time.Now().Add(life))
			}
			if g.AccessToken != "acc=ess" || g.RefreshToken != c.refresh {
				t.Errorf("tokens %q and %q, want acc=ess and %s", g.AccessToken, g.RefreshToken, c.refresh)
			}
			if !lives(g.ExpiresAt, c.life) {
				t.Errorf("ends %v after it was asked for, want %v", g.ExpiresAt.Sub(began), c.life)
			}
			if c.refreshLife == 0 != g.RefreshExpiresAt.IsZero() {
				t.Errorf("refresh token ends %v, want life %v", g.RefreshExpiresAt, c.refreshLife)
			} else if c.refreshLife != 0 && !lives(g.RefreshExpiresAt, c.refreshLife) {
				t.Errorf("refresh token ends %v after it was asked for, want %v", g.RefreshExpiresAt.Sub(began), c.refreshLife)
			}
		})
	}
}

// What does not serve is trouble, or a refusal; the errors tell nothing of the body.
func TestAnswersThatDoNotServe(t *testing.T) {
	for name, c := range map[string]struct {
		status     int
		body       string
		refused    bool
		code       string
		uncertain  bool
		retryAfter string
	}{
		"empty":                   {status: 200, uncertain: true},
		"HTML":                    {status: 200, body: "<html>" + secret + "</html>", uncertain: true},
		"HTML with a token":       {status: 200, body: "<p>access_token=" + secret + "</p>", uncertain: true},
		"JSON without a token":    {status: 200, body: `{"error":"invalid_grant","error_description":"` + secret + `"}`, uncertain: true},
		"empty token":             {status: 200, body: `{"access_token":""}`, uncertain: true},
		"token an object":         {status: 200, body: `{"access_token":{"x":"` + secret + `"}}`, uncertain: true},
		"token with a newline":    {status: 200, body: `{"access_token":"` + secret + `\r\nX-Evil: 1"}`, uncertain: true},
		"token with a blank":      {status: 200, body: `{"access_token":"` + secret + ` x"}`, uncertain: true},
		"token not ASCII":         {status: 200, body: `{"access_token":"` + secret + `é"}`, uncertain: true},
		"a list":                  {status: 200, body: `["` + secret + `"]`, uncertain: true},
		"null":                    {status: 200, body: `null`, uncertain: true},
		"no content":              {status: 204, uncertain: true},
		"more than anybody reads": {status: 200, body: strings.Repeat(" ", 1<<20) + `{"access_token":"a"}`, uncertain: true},
		"plain text 401":          {status: 401, body: "HTTP Basic: Access denied.\n", refused: true},
		"JSON 400":                {status: 400, body: `{"error":"invalid_grant","error_description":"` + secret + `"}`, refused: true, code: "invalid_grant"},
		"unknown code":            {status: 400, body: `{"error":"` + secret + `"}`, refused: true},
		"tokens in a 400":         {status: 400, body: `{"access_token":"` + secret + `"}`, refused: true},
		"empty 400":               {status: 400, refused: true},
		"403":                     {status: 403, body: secret},
		"404":                     {status: 404, body: secret},
		"429":                     {status: 429, body: "You must not exceed 15 requests per 60 seconds", retryAfter: "60"},
		"500":                     {status: 500, body: secret, uncertain: true},
		"504":                     {status: 504, body: "<h1>504 Gateway Time-out</h1>", uncertain: true},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint := answering(t, func(w http.ResponseWriter, r *http.Request) {
				if c.retryAfter != "" {
					w.Header().Set("Retry-After", c.retryAfter)
				}
				w.Header().Set("WWW-Authenticate", `Basic realm="`+secret+`"`)
				answer(c.status, "application/json", c.body)(w, r)
			})
			_, err := endpoint.Refresh(context.Background(), app, secret)
			refusal, trouble := new(tokens.RefusedError), new(tokens.TroubleError)
			switch {
			case c.refused && (!errors.As(err, &refusal) || refusal.Status != c.status || refusal.Code != c.code || !errors.Is(err, tokens.ErrReauthorize)):
				t.Errorf("%#v, want a RefusedError", err)
			case !c.refused && (!errors.As(err, &trouble) || trouble.Status != c.status || !errors.Is(err, tokens.ErrUnavailable)):
				t.Errorf("%#v, want a TroubleError", err)
			case trouble.Uncertain != c.uncertain:
				t.Errorf("uncertain %v, want %v", trouble.Uncertain, c.uncertain)
			case c.retryAfter != "" && trouble.RetryAfter != time.Minute:
				t.Errorf("RetryAfter %v", trouble.RetryAfter)
			}
			if text := fmt.Sprintf("%v %+v %#v", err, err, errors.Unwrap(err)); strings.Contains(text, secret) {
				t.Errorf("a secret in %s", text)
			}
		})
	}
}

// Lifetimes count from when the request left: an answer that takes long has used some of them.
func TestLifetimeCountsFromTheRequest(t *testing.T) {
	const slow = 300 * time.Millisecond
	endpoint := answering(t, late(slow, answer(200, "application/json", `{"access_token":"a","refresh_token":"b","expires_in":10}`)))
	began := time.Now()
	g, err := endpoint.Refresh(context.Background(), app, "old")
	if err != nil {
		t.Fatal(err)
	}
	if g.ExpiresAt.After(time.Now().Add(10*time.Second-slow)) || g.ExpiresAt.Before(began.Add(10*time.Second)) {
		t.Errorf("expires %v after it was sent, want 10 s", g.ExpiresAt.Sub(began))
	}
	if g.ObtainedAt.Before(began.Add(slow)) {
		t.Errorf("obtained %v after it was sent, want when the answer came", g.ObtainedAt.Sub(began))
	}
}

// No answer, whatever its bytes, makes a token that cannot be sent, a panic or an error that quotes it.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		`{"access_token":"a","refresh_token":"b","expires_in":3600}`, `{"access_token":"a\nb"}`, "access_token=a&expires_in=5", "", "<html>", `{"expires_in":-1`,
	} {
		f.Add(200, "application/json", body)
		f.Add(401, "text/plain", body)
	}
	f.Fuzz(func(t *testing.T, status int, contentType, body string) {
		if status < 200 || status > 599 {
			status = 200
		}
		base := &url.URL{Scheme: "https", Host: "api.freeagent.example"}
		transport := inProcess{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{contentType}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})}
		g, err := tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: base, Client: &http.Client{Transport: transport}}).Refresh(context.Background(), app, "old")
		if err != nil {
			if !errors.Is(err, tokens.ErrUnavailable) && !errors.Is(err, tokens.ErrReauthorize) {
				t.Errorf("%#v is of no known kind", err)
			}
			return
		}
		for _, c := range g.AccessToken {
			if c <= ' ' || c > '~' {
				t.Errorf("access token %q cannot be sent", g.AccessToken)
			}
		}
		if life := g.ExpiresAt.Sub(g.ObtainedAt); g.AccessToken == "" || g.RefreshToken == "" || life <= 0 || status < 200 || status > 299 {
			t.Errorf("a grant with tokens %q, %q that lives %v out of a %d", g.AccessToken, g.RefreshToken, life, status)
		}
	})
}
