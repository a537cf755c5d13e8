package simulator

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// grantForm is what a program says to the token endpoint, in whatever dialect.
type grantForm struct{ grantType, code, refreshToken, redirect, client, secret string }

// countRefresh counts a refresh, whatever becomes of it, and returns the limit
// that it is over, if any.
func (s *Simulator) countRefresh(c *call) *limited {
	c.grantForm = c.parseGrant()
	if c.grantForm.grantType != "refresh_token" || c.r.Method != http.MethodPost {
		return nil
	}
	s.meter.countTokens(func(t *tokenCounts) { t.requests++ })
	user, client := s.grants.owner(c.grantForm.refreshToken)
	if user == "" {
		return nil
	}
	return s.meter.refresh(c.came, user, c.key(user, client))
}

// token is POST /v2/token_endpoint.
func (s *Simulator) token(c *call) reply {
	if c.r.Method != http.MethodPost {
		return c.fail(notFound())
	}
	f := c.grantForm
	if !c.cfg.knows(f) {
		s.meter.countTokens(func(t *tokenCounts) { t.refused++ })
		return c.refuseClient()
	}
	var r rotation
	switch f.grantType {
	case "authorization_code":
		r.pair, r.ok = s.grants.exchange(f.code, f.client, f.redirect, c.cfg)
	case "refresh_token":
		r = s.grants.rotate(f.refreshToken, f.client, c.cfg)
	}
	s.meter.countTokens(func(t *tokenCounts) {
		switch {
		case !r.ok:
			t.refused++
		case f.grantType == "refresh_token":
			t.refreshes++
		default:
			t.exchanges++
		}
		if r.spent {
			t.spent++
		}
	})
	if !r.ok {
		return c.refuseGrant()
	}
	return c.handOut(r.pair)
}

// handOut is the success of both grants (docs: oauth).
func (c *call) handOut(p pair) reply {
	seconds := func(d Duration) json.Number {
		return json.Number(strconv.FormatInt(int64(math.Ceil(time.Duration(d).Seconds())), 10))
	}
	return reply{
		status: http.StatusOK, jsonOnly: true, acted: true,
		value: object{
			{"access_token", p.access},
			{"token_type", "bearer"},
			{"expires_in", seconds(c.cfg.AccessTokenLifetime)},
			{"refresh_token", p.refresh},
			{"refresh_token_expires_in", seconds(c.cfg.RefreshTokenLifetime)},
		},
	}
}

// refuseClient answers a wrong id or secret.
func (c *call) refuseClient() reply {
	if c.cfg.TokenErrors == TokenErrorsInvalidGrant {
		return reply{status: http.StatusUnauthorized, jsonOnly: true, value: object{{"error", "invalid_client"}}}
	}
	return accessDenied()
}

// refuseGrant answers a wrong code or refresh token, and anything that is missing.
func (c *call) refuseGrant() reply {
	if c.cfg.TokenErrors != TokenErrorsInvalidGrant {
		return accessDenied()
	}
	problem := "invalid_grant"
	if f := c.grantForm; f.grantType != "authorization_code" && f.grantType != "refresh_token" {
		problem = "unsupported_grant_type"
	}
	return reply{status: http.StatusBadRequest, jsonOnly: true, value: object{{"error", problem}}}
}

// accessDenied is Rails' answer when HTTP Basic authentication fails, which
// FreeAgent gives to everything that is wrong here (dumped in 2012, seen since).
func accessDenied() reply {
	return reply{
		status: http.StatusUnauthorized, kind: "text/html; charset=utf-8", text: "HTTP Basic: Access denied.\n",
		header: [][2]string{{"Www-Authenticate", `Basic realm="Application"`}},
	}
}

// knows tells whether id and secret belong to a registered app.
func (c *Config) knows(f *grantForm) bool {
	app, ok := c.app(f.client)
	return ok && f.secret != "" && (len(app.ClientSecrets) == 0 || slices.Contains(app.ClientSecrets, f.secret))
}

// parseGrant reads the request: the body before the query, HTTP Basic before both.
func (c *call) parseGrant() *grantForm {
	body := c.grantBody()
	query := c.r.URL.Query()
	get := func(name string) string {
		if v := body.Get(name); v != "" {
			return v
		}
		return query.Get(name)
	}
	f := &grantForm{
		grantType: get("grant_type"), code: get("code"), refreshToken: get("refresh_token"),
		redirect: get("redirect_uri"), client: get("client_id"), secret: get("client_secret"),
	}
	if id, secret, ok := c.r.BasicAuth(); ok {
		f.client, f.secret = unescaped(id), unescaped(secret)
	}
	return f
}

// unescaped undoes RFC 6749's escaping of Basic credentials, which only some clients do.
func unescaped(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil && strings.Contains(s, "%") {
		return plain
	}
	return s
}

// grantBody reads form, multipart and JSON bodies. Form data that is labelled
// JSON, as FreeAgent's own documents show it, is understood unless the switch says otherwise.
func (c *call) grantBody() url.Values {
	kind, params, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if kind == "multipart/form-data" {
		return multipartValues(c.body, params["boundary"])
	}
	if v, err := c.parsed(); err == nil {
		o, ok := v.(object)
		values := url.Values{}
		for _, f := range o {
			values.Set(f.name, o.text(f.name))
		}
		if ok {
			return values
		}
	}
	if kind == "application/json" && c.cfg.RefuseMislabelledForm {
		return nil
	}
	values, _ := url.ParseQuery(string(c.body)) // what cannot be parsed is missing
	return values
}

func multipartValues(body []byte, boundary string) url.Values {
	values := url.Values{}
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := r.NextPart()
		if err != nil {
			return values
		}
		text, err := io.ReadAll(part)
		if err != nil {
			return values
		}
		values.Set(part.FormName(), string(text))
	}
}
