package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"freeagent-proxy/limiter"
	"freeagent-proxy/tokens"
)

const (
	// maxFailures is how many broken connections, and answers of FreeAgent's gateway, a reading request may survive.
	maxFailures = 2
	// maxRenewals is how many 401s of one request may each have a token renewed: the second is for one that
	// was revoked while the request waited for its permit, or before, unseen.
	maxRenewals = 3
)

// judge decides what FreeAgent's answer means: send again, hand it on (false, nil), or an
// error instead of it. It closes the answer's body unless that is handed on.
func (s *sending) judge(req *http.Request, resp *http.Response, token tokens.Token) (again bool, err error) {
	body := resp.Body.(*answerBody)
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		body.pause() // renewing may take longer than the upstream timeout
		again, err = s.rejected(s.tried(req, token, body.began))
		body.progress()
	case http.StatusTooManyRequests:
		again = s.overLimit(resp)
	default:
		if s.p.config.Tokens.Suspicious() {
			s.p.config.Tokens.Accepted(s.tried(req, token, body.began))
		}
		return s.recovers(req, resp)
	}
	if again || err != nil {
		discardBody(resp)
	}
	return again, err
}

// rejected renews the token that a 401 refused. If it is not the token's fault (a resource
// that rejects healthy ones) the 401 is the client's answer.
func (s *sending) rejected(r tokens.Attempt) (again bool, err error) {
	if s.renewals == maxRenewals {
		return false, nil
	}
	s.renewals++
	s.token401 = r.Token
	if s.first401.IsZero() {
		s.first401 = time.Now()
	}
	_, err = s.waitForToken(func(ctx context.Context) (tokens.Token, error) {
		return s.p.config.Tokens.Renew(ctx, r)
	})
	if errors.Is(err, tokens.ErrNotRenewed) {
		return false, nil
	}
	return err == nil, err
}

// tried is an attempt as the token manager judges it.
func (s *sending) tried(req *http.Request, token tokens.Token, sent time.Time) tokens.Attempt {
	subdomain := req.Header.Get("X-Subdomain")
	return tokens.Attempt{
		Account:    s.account.Name,
		Token:      token,
		Sent:       sent,
		Resource:   s.target.resource(req.Method, subdomain),
		Request:    s.target.request(req.Method, subdomain),
		Rejected:   s.token401,
		RejectedAt: s.first401,
	}
}

// overLimit pauses the budget that a 429 speaks of, although we counted: another program may share
// the FreeAgent user. The request goes again after the pause if it may wait that long.
func (s *sending) overLimit(resp *http.Response) (again bool) {
	pause := retryAfter(resp.Header)
	s.p.config.Limiter.Exceeded(s.exceeded(peek(resp)), pause)
	if pause <= s.patience {
		return true
	}
	if !isSeconds(resp.Header.Get("Retry-After")) { // programs parse nothing else
		resp.Header.Set("Retry-After", strconv.FormatInt(wholeSeconds(pause), 10))
	}
	return false
}

// exceeded is the budget that FreeAgent says is used up. Only the words of the
// answer tell its limit per source address from the one per user.
func (s *sending) exceeded(words []byte) limiter.Budget {
	for _, budget := range s.account.egress {
		for _, w := range budget.Windows {
			if bytes.Contains(words, []byte(overLimitWords(w))) {
				return budget
			}
		}
	}
	return s.budgets[0]
}

// overLimitWords are FreeAgent's own (https://dev.freeagent.com/docs/introduction).
func overLimitWords(w limiter.Window) string {
	return "You must not exceed " + strconv.Itoa(w.Requests) + " requests per " +
		strconv.FormatFloat(w.Per.Seconds(), 'f', -1, 64) + " seconds"
}

func isRead(method string) bool { return method == http.MethodGet || method == http.MethodHead }

const (
	// defaultPause is how long a 429 without a readable Retry-After pauses a budget: FreeAgent's minute.
	defaultPause = time.Minute
	// maxPause keeps a wrong Retry-After from stopping an account for longer than FreeAgent's longest window.
	maxPause = time.Hour
)

// retryAfter reads a Retry-After header: seconds or an HTTP date (RFC 9110, section 10.2.3), which is by the clock of who
// answers, as Date is.
func retryAfter(h http.Header) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(max(time.Duration(seconds)*time.Second, time.Second), maxPause)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return defaultPause
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(at.Sub(now), time.Second), maxPause)
}

// isSeconds reports whether a Retry-After header is a plain number.
func isSeconds(value string) bool {
	_, err := strconv.ParseUint(value, 10, 31)
	return err == nil
}

// peeked is how much of a body is read to see what it says, or to reuse its connection.
const peeked = 64 << 10

// peek reads the beginning of the answer's body and leaves it whole.
func peek(resp *http.Response) []byte {
	head, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	resp.Body = &peekedBody{Reader: io.MultiReader(bytes.NewReader(head), resp.Body), Closer: resp.Body}
	return head
}

type peekedBody struct {
	io.Reader
	io.Closer
}

// discardBody ends with an answer that is not handed on; reading it to the end keeps the connection.
func discardBody(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, peeked))
	_ = resp.Body.Close()
}
