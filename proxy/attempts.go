package proxy

import (
	"context"
	"io"
	"net/http"
	"net/http/httputil"
	"time"

	"freeagent-proxy/limiter"
	"freeagent-proxy/tokens"
)

// sending is the http.RoundTripper of one request: as many attempts as it takes.
type sending struct {
	p       *Proxy
	x       *exchange
	account *account
	target  target
	body    *body
	reverse httputil.ReverseProxy
	err     error // why there is no answer

	presence context.Context // ends when the client is known to have left
	patience time.Duration   // how long the request may still wait for its turn

	renewed  bool // a rejected token was renewed; a second rejection is the resource's own
	failures int  // connections that broke
}

// RoundTrip sends the request until there is an answer for the client. What may be sent again:
// anything after a 401 or a 429, by which FreeAgent says that it did not act; what
// reads, after a connection failed; nothing else.
func (s *sending) RoundTrip(req *http.Request) (*http.Response, error) {
	for {
		token, permit, err := s.leave()
		if err != nil {
			return nil, err
		}
		resp, err := s.send(req, token, permit)
		again := false
		if err != nil {
			again = s.repeatable(req, err)
		} else {
			again, err = s.judge(req, resp, token)
		}
		if !again {
			return resp, err
		}
	}
}

// leave waits for a good token and a permit. The token comes first: permits that wait for a slow
// refresh would all be used at once when it ends, long after they were counted.
func (s *sending) leave() (tokens.Token, *limiter.Permit, error) {
	for {
		if _, err := s.token(); err != nil {
			return tokens.Token{}, nil, err
		}
		permit, err := s.permit()
		if err != nil {
			return tokens.Token{}, nil, err
		}
		if token, ok := s.p.config.Tokens.TokenNow(s.account.Name); ok {
			return token, permit, nil
		}
		permit.Release() // it expired while we waited
	}
}

func (s *sending) token() (tokens.Token, error) {
	if token, ok := s.p.config.Tokens.TokenNow(s.account.Name); ok {
		return token, nil
	}
	return s.waitForToken(func(ctx context.Context) (tokens.Token, error) {
		return s.p.config.Tokens.Token(ctx, s.account.Name)
	})
}

func (s *sending) waitForToken(get func(context.Context) (tokens.Token, error)) (tokens.Token, error) {
	ctx, cancel := context.WithTimeout(s.presence, s.patience)
	defer cancel()
	defer s.countWait(time.Now())
	token, err := get(ctx)
	if err != nil && s.presence.Err() != nil {
		return token, errClientGone
	}
	return token, err
}

func (s *sending) permit() (*limiter.Permit, error) {
	began := time.Now()
	permit, err := s.p.config.Limiter.Take(s.presence, limiter.Request{
		Budgets: s.account.budgets, Client: s.x.client, MaxWait: s.patience,
	})
	s.countWait(began)
	if err != nil && s.presence.Err() != nil {
		return nil, errClientGone
	}
	return permit, err
}

func (s *sending) countWait(began time.Time) {
	waited := time.Since(began)
	s.x.waited += waited
	s.patience = max(0, s.patience-waited)
}

// send makes one attempt and says how it ended.
func (s *sending) send(req *http.Request, token tokens.Token, permit *limiter.Permit) (*http.Response, error) {
	s.x.attempts++
	a := begin(context.WithoutCancel(req.Context()), permit, s.p.config.Timeout)
	resp, err := s.p.transport.RoundTrip(s.prepare(req, a, token))
	if err == nil {
		permit.Sent()
		resp.Body = &answerBody{ReadCloser: resp.Body, attempt: a, x: s.x}
		return resp, nil
	}
	defer a.end()
	if a.connected {
		permit.Sent()
	} else {
		permit.Release()
	}
	return nil, &upstreamError{
		cause:   err,
		timeout: context.Cause(a.ctx) != nil || isTimeout(err),
		sent:    a.connected,
		write:   !isRead(req.Method),
	}
}

// prepare makes the request of one attempt: with its token, and with the body from its beginning.
func (s *sending) prepare(req *http.Request, a *attempt, token tokens.Token) *http.Request {
	out := req.WithContext(a.ctx)
	if s.x.attempts > 1 {
		out.Header = out.Header.Clone() // the transport may still be reading the last attempt's
	}
	out.Header["Authorization"] = []string{token.Authorization()}
	if s.body.size == 0 && isRead(out.Method) {
		out.Body, out.TransferEncoding = unrepeatable{}, identity
		return out
	}
	out.ContentLength = s.body.size
	out.GetBody = func() (io.ReadCloser, error) { return a.watched(s.body), nil }
	out.Body, _ = out.GetBody()
	return out
}
