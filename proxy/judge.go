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

// maxFailures is how many broken connections a reading request may survive.
const maxFailures = 2

// judge decides what FreeAgent's answer means: send again, hand it on (false, nil), or an
// error instead of it. It closes the answer's body unless that is handed on.
func (s *sending) judge(req *http.Request, resp *http.Response, token tokens.Token) (again bool, err error) {
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		body := resp.Body.(*answerBody)
		body.pause() // renewing may take longer than the upstream timeout
		again, err = s.rejected(req, token)
		body.progress()
	case http.StatusTooManyRequests:
		again = s.overLimit(resp)
	default:
		s.accepted(req, token)
	}
	if again || err != nil {
		discardBody(resp)
	}
	return again, err
}

// accepted notes that the token is healthy, if it was in doubt.
func (s *sending) accepted(req *http.Request, token tokens.Token) {
	if s.p.config.Tokens.Suspicious() {
		s.p.config.Tokens.Accepted(s.account.Name, s.resource(req), token)
	}
}

// rejected renews the token that a 401 refused, once. If it is not the token's fault (a
// resource that rejects healthy ones) the 401 is the client's answer.
func (s *sending) rejected(req *http.Request, token tokens.Token) (again bool, err error) {
	if s.renewed {
		if current, ok := s.p.config.Tokens.TokenNow(s.account.Name); !ok || current != token {
			return true, nil // the new one has been renewed or has expired meanwhile
		}
		s.p.config.Tokens.StillRejected(s.account.Name, s.resource(req), token)
		return false, nil
	}
	s.renewed = true
	_, err = s.waitForToken(func(ctx context.Context) (tokens.Token, error) {
		return s.p.config.Tokens.Renew(ctx, tokens.Rejection{Account: s.account.Name, Token: token, Resource: s.resource(req)})
	})
	if errors.Is(err, tokens.ErrNotRenewed) {
		return false, nil
	}
	return err == nil, err
}

func (s *sending) resource(req *http.Request) string {
	return s.target.resource(req.Method, req.Header.Get("X-Subdomain"))
}

// overLimit pauses the budget that a 429 speaks of, although we counted: another program may share
// the FreeAgent user. The request goes again after the pause if it may wait that long.
func (s *sending) overLimit(resp *http.Response) (again bool) {
	pause := retryAfter(resp.Header.Get("Retry-After"))
	s.p.config.Limiter.Pause(s.exceeded(peek(resp)), pause)
	return pause <= s.patience
}

// exceeded is the key of the budget that FreeAgent says is used up. Only the words of the
// answer tell its limit per source address from the one per user.
func (s *sending) exceeded(words []byte) string {
	for _, budget := range s.account.budgets[1:] {
		for _, w := range budget.Windows {
			if bytes.Contains(words, []byte(overLimitWords(w))) {
				return budget.Key
			}
		}
	}
	return s.account.budgets[0].Key
}

// overLimitWords are FreeAgent's own (https://dev.freeagent.com/docs/introduction).
func overLimitWords(w limiter.Window) string {
	return "You must not exceed " + strconv.Itoa(w.Requests) + " requests per " +
		strconv.FormatFloat(w.Per.Seconds(), 'f', -1, 64) + " seconds"
}

// repeatable reports whether the request may go again after a connection failed: a read
// only, since nobody knows whether FreeAgent acted, and not after a timeout was waited out.
func (s *sending) repeatable(req *http.Request, err error) bool {
	s.failures++
	var failed *upstreamError
	return isRead(req.Method) && s.failures <= maxFailures && errors.As(err, &failed) && !failed.timeout
}

func isRead(method string) bool { return method == http.MethodGet || method == http.MethodHead }

const (
	// defaultPause is how long a 429 without a readable Retry-After pauses a budget: FreeAgent's minute.
	defaultPause = time.Minute
	// maxPause keeps a wrong Retry-After from stopping an account for longer than FreeAgent's longest window.
	maxPause = time.Hour
)

// retryAfter reads a Retry-After header: seconds or an HTTP date (RFC 9110, section 10.2.3).
func retryAfter(value string) time.Duration {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(max(time.Duration(seconds)*time.Second, time.Second), maxPause)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(time.Until(at), time.Second), maxPause)
	}
	return defaultPause
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
