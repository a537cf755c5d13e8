package tokens

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// conversation is the transport of one token call, and what came of it.
type conversation struct {
	endpoint *Endpoint
	until    time.Time                 // when the request must have begun to leave; zero: no bound
	tooLate  atomic.Bool               // it had not, and so did not leave
	sent     atomic.Pointer[time.Time] // when the request left; nil: it did not
	status   int                       // 0: no answer
	after    time.Duration             // its Retry-After
	said     answer
}

// RoundTrip sends the request and returns the answer put in order: no body if it is a
// failure (but a known error code), else JSON that oauth2 certainly understands.
func (c *conversation) RoundTrip(req *http.Request) (*http.Response, error) {
	began := time.Now()
	c.sent.Store(&began) // for a transport that does not say when it has a connection
	req = req.Clone(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GetConn: func(string) { c.sent.Store(nil) },
		GotConn: func(httptrace.GotConnInfo) { now := time.Now(); c.sent.Store(&now) },
	}))
	if !c.until.IsZero() && req.Body != nil {
		req.Body = &leaving{ReadCloser: req.Body, conversation: c}
	}
	req.GetBody = nil // without it, net/http cannot send the request again by itself
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.endpoint.userAgent)
	resp, err := c.endpoint.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	c.status = resp.StatusCode
	c.after = retryAfter(resp.Header)
	// A body that breaks off may have brought the tokens all the same.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	c.said = parseAnswer(body, resp.StatusCode)
	return &http.Response{
		Status:     resp.Status,
		StatusCode: resp.StatusCode,
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:  http.Header{"Content-Type": {"application/json"}},
		Body:    io.NopCloser(bytes.NewReader(c.said.json())),
		Request: req,
	}, nil
}

// maxAnswer is how much of an answer is read; a real one has some 300 bytes.
const maxAnswer = 256 << 10

// retryAfter reads a Retry-After header, seconds or a date by the clock of who answers; 0: there is none.
func retryAfter(h http.Header) time.Duration {
	if seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(h.Get("Retry-After"))
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(at.Sub(now), 0)
}

// grant is what a successful call brought. Lifetimes count from when the request left: the
// answer may have been long on its way.
func (c *conversation) grant(token *oauth2.Token) Grant {
	now, sent := time.Now(), *c.sent.Load()
	g := Grant{
		AccessToken:     token.AccessToken,
		RefreshToken:    token.RefreshToken,
		ObtainedAt:      now,
		ExpiresAt:       sent.Add(c.said.lifetime),
		RefreshObtained: now,
	}
	if c.said.refreshLifetime > 0 {
		g.RefreshExpiresAt = sent.Add(c.said.refreshLifetime)
	}
	return g
}

// explain turns oauth2's error into one of ours.
func (c *conversation) explain(err error) error {
	if retrieve := new(oauth2.RetrieveError); errors.As(err, &retrieve) &&
		(c.status == http.StatusBadRequest || c.status == http.StatusUnauthorized) {
		return &RefusedError{Status: c.status, Code: retrieve.ErrorCode}
	}
	trouble := &TroubleError{Status: c.status, Uncertain: c.sent.Load() != nil}
	switch {
	case c.status == 0 && c.tooLate.Load():
		trouble.Uncertain, trouble.Err = false, errTooLate
	case c.status == 0:
		trouble.Err = harmless(err)
	case c.status == http.StatusTooManyRequests:
		trouble.RetryAfter, trouble.Uncertain = c.after, false
	case c.status < 300:
		trouble.Err, trouble.rotated = errors.New("no usable access token in the answer"), c.said.refreshToken
	case c.status < 400:
		trouble.Uncertain, trouble.Err = false, errors.New("a redirect, which is not followed; check the base URL")
	case c.status < 500:
		trouble.Uncertain = false
	}
	return trouble
}

// harmless returns the cause of a failed exchange if its text is made of our side's words and
// addresses alone; others may quote what was received.
func harmless(err error) error {
	var (
		wire *net.OpError
		cert *tls.CertificateVerificationError
		head tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &wire):
		return wire
	case errors.As(err, &cert):
		return cert
	case errors.As(err, &head):
		return head
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection was closed without an answer")
	default:
		return errors.New("no HTTP answer could be read")
	}
}

// answer is what a token endpoint said, as far as it can be used.
type answer struct {
	accessToken, refreshToken string
	lifetime, refreshLifetime time.Duration
	errorCode                 string
}

// defaultLifetime is FreeAgent's documented one. It also stands in for a lifetime that is
// missing, malformed, zero or negative: the token may be good, and if it is not, its first 401 renews it.
const defaultLifetime = time.Hour

// parseAnswer finds the tokens in JSON, whatever its content type said, or in a form. A
// malformed lifetime, a member too many or a body cut short cost no token that is there.
func parseAnswer(body []byte, status int) answer {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff")))
	fields := answerFields(body)
	if status < 200 || status > 299 {
		return answer{errorCode: knownCode(fields["error"])}
	}
	a := answer{
		accessToken:     fields["access_token"],
		refreshToken:    fields["refresh_token"],
		lifetime:        lifetime(fields["expires_in"]),
		refreshLifetime: lifetime(fields["refresh_token_expires_in"]),
	}
	switch {
	case sendable(a.accessToken):
	case bytes.HasPrefix(body, []byte("{")):
		return answer{refreshToken: a.refreshToken} // the one that was spent may be worth nothing now
	default:
		return answer{}
	}
	if a.lifetime == 0 {
		a.lifetime = defaultLifetime
	}
	return a
}

func answerFields(body []byte) map[string]string {
	fields := make(map[string]string)
	if !bytes.HasPrefix(body, []byte("{")) {
		form, _ := url.ParseQuery(string(body))
		for name := range form {
			fields[name] = form.Get(name)
		}
		return fields
	}
	members := make(map[string]json.RawMessage)
	if json.Unmarshal(body, &members) != nil {
		members = brokenMembers(body)
	}
	for name, raw := range members {
		fields[name] = text(raw)
	}
	return fields
}

var member = regexp.MustCompile(`"(\w+)"\s*:\s*("(?:[^"\\]|\\.)*"|[-+.0-9eE]+)`)

// brokenMembers saves what is whole in JSON that is not.
func brokenMembers(body []byte) map[string]json.RawMessage {
	members := make(map[string]json.RawMessage)
	for _, m := range member.FindAllSubmatch(body, -1) {
		members[string(m[1])] = m[2]
	}
	return members
}

// text is the value of a JSON string, or a number as it was written; "" for anything else.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var n json.Number
	_ = json.Unmarshal(raw, &n)
	return n.String()
}

// lifetime reads seconds; 0: there is no positive number.
func lifetime(seconds string) time.Duration {
	n, err := strconv.ParseFloat(strings.TrimSpace(seconds), 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) || n <= 0 {
		return 0
	}
	return time.Duration(math.Ceil(min(n, math.MaxInt32))) * time.Second // 68 years at most
}

// sendable reports whether a token can stand in a header as it is: it is opaque, but visible ASCII.
func sendable(token string) bool {
	return token != "" && !strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })
}

// knownCode returns an error code of RFC 6749, section 5.2, and "" for anything else: the rest of the body is not ours to repeat.
func knownCode(code string) string {
	known := []string{"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope"}
	if slices.Contains(known, code) {
		return code
	}
	return ""
}

func (a answer) json() []byte {
	b, _ := json.Marshal(map[string]string{ // strings always encode
		"access_token": a.accessToken, "refresh_token": a.refreshToken, "token_type": "bearer", "error": a.errorCode,
	})
	return b
}
