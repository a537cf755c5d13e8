package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"time"

	"freeagent-proxy/limiter"
	"freeagent-proxy/tokens"
)

// sending is the http.RoundTripper of one request: as many attempts as it takes.
type sending struct {
	p *Proxy
	x *exchange
	passage
	target  target
	body    *body
	reverse httputil.ReverseProxy
	spare   *attempt // that is over
	err     error    // why there is no answer

	presence context.Context // ends when the client is known to have left
	patience time.Duration   // how long the request may still wait for its turn

	renewals int          // 401s that a token was renewed for
	token401 tokens.Token // what the last of them rejected
	first401 time.Time
	failures int            // connections that broke, and answers of FreeAgent's gateway
	replayed int            // the status for which the request goes again; 0: the connection broke
	trouble  *http.Response // the last of these, until there is another answer
}

// RoundTrip sends the request until there is an answer for the client. What may be sent again:
// anything after a 401 or a 429, by which FreeAgent says that it did not act, and anything of which not a byte has left;
// what reads, after a connection failed and after a 502, 503 or 504; nothing else. A write that
// happens one at a time keeps its turn until FreeAgent has answered, or nobody knows whether it will.
func (s *sending) RoundTrip(req *http.Request) (*http.Response, error) {
	end, err := s.turn(req.Method)
	if err != nil {
		return nil, err
	}
	defer end()
	for {
		token, permit, err := s.leave()
		if err != nil {
			return s.instead(err)
		}
		s.forgetTrouble()
		began := s.x.now()
		resp, err := s.send(req, token, permit)
		s.explainAttempt(resp, err, began)
		again := false
		if err != nil {
			again, s.replayed = s.repeatable(req, err), 0
		} else {
			s.replayed = resp.StatusCode
			again, err = s.judge(req, resp, token)
		}
		if !again {
			return resp, err
		}
		s.explainAgain()
	}
}

// leave waits for a good token and a permit. The token comes first: permits that wait for a slow
// refresh would all be used at once when it ends, long after they were counted.
func (s *sending) leave() (tokens.Token, *limiter.Permit, error) {
	for {
		token, err := s.token()
		if err != nil {
			return tokens.Token{}, nil, err
		}
		waited := s.x.waited
		permit, err := s.permit()
		if err != nil || s.x.waited == waited {
			return token, permit, err
		}
		if token, ok := s.p.config.Tokens.TokenNow(s.account.Name); ok {
			return token, permit, nil
		}
		permit.Release() // it expired while we waited
	}
}

func (s *sending) token() (tokens.Token, error) {
	if token, ok := s.p.config.Tokens.TokenNow(s.account.Name); ok {
		s.explainToken("memory", nil)
		return token, nil
	}
	token, err := s.waitForToken(func(ctx context.Context) (tokens.Token, error) {
		return s.p.config.Tokens.Token(ctx, s.account.Name)
	})
	s.explainToken("a refresh, or another process", err)
	if err == nil && s.presence.Err() != nil {
		return token, errClientGone
	}
	return token, err
}

// tokenPatience is the least that a request waits for a token, however short it may wait for its turn: a
// refresh is begun for those who wait alone, and holds back for 5 s if the last one was just now.
const tokenPatience = 10 * time.Second

func (s *sending) waitForToken(get func(context.Context) (tokens.Token, error)) (tokens.Token, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.presence), max(s.patience, tokenPatience))
	defer cancel()
	defer s.x.traced.step("wait for token").end()
	defer s.countWait(time.Now())
	return get(ctx)
}

// permit takes a permit. It is the wait for one that ends when the client leaves: what need not wait is
// passed on, also for a client that closed its half of the connection as soon as it had written.
func (s *sending) permit() (*limiter.Permit, error) {
	request := limiter.Request{Budgets: s.budgets, Client: s.client.Name, Weight: s.weight}
	if known := &s.x.settings.clients; s.client == known.self || s.client == known.operator {
		request.Budgets = aside(s.budgets)
	}
	began := s.x.now()
	permit, err := s.p.config.Limiter.Take(context.Background(), request)
	if err == nil || s.patience == 0 || !errors.As(err, new(*limiter.OverBudgetError)) {
		s.explainPermit("not at all", began, err)
		return permit, err
	}
	defer s.x.traced.step("wait for permit").end()
	defer s.countWait(time.Now())
	request.Budgets, request.MaxWait = s.budgets, s.patience
	permit, err = s.p.config.Limiter.Take(s.presence, request)
	s.explainPermit("for its turn", began, err)
	if err != nil && s.presence.Err() != nil {
		return nil, errClientGone
	}
	return permit, err
}

// aside is a request's budgets in an order in which it takes no turn in the account's queue, where it would be one more
// client that the others leave room to for an hour: whose queue it is, the first one says.
func aside(budgets []limiter.Budget) []limiter.Budget {
	budgets = slices.Clone(budgets)
	slices.Reverse(budgets)
	return budgets
}

func (s *sending) countWait(began time.Time) {
	waited := time.Since(began)
	s.x.waited += waited
	s.patience = max(0, s.patience-waited)
}

// errSwitched is an answer 101, which nobody asked for.
var errSwitched = errors.New("upstream switched protocols")

// send makes one attempt and says how it ended.
func (s *sending) send(req *http.Request, token tokens.Token, permit *limiter.Permit) (*http.Response, error) {
	if err := s.x.keyed.leave(); err != nil {
		permit.Release()
		return nil, err
	}
	if s.x.attempts++; s.x.attempts > 1 {
		s.x.tally.Replays.count(s.replayed)
		s.x.tally.Answered = 0
	}
	a := s.begin(permit)
	a.step = s.attemptStep()
	if !isRead(req.Method) {
		s.p.writes.begin(s.x)
		defer s.p.writes.end(s.x)
	}
	resp, err := s.p.transport.RoundTrip(s.prepare(req, a, token))
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
		_ = resp.Body.Close()
		err = errSwitched
	}
	if err == nil {
		permit.Sent()
		a.step.answered(resp.StatusCode)
		resp = withoutTrailer(resp)
		a.answer = answerBody{ReadCloser: resp.Body, attempt: a, x: s.x}
		if resp.ContentLength <= short {
			a.answer.left = resp.ContentLength
		}
		resp.Body = &a.answer
		return resp, nil
	}
	defer a.end()
	timeout := context.Cause(a.ctx) != nil || isTimeout(err)
	sent := a.sent(timeout)
	if sent {
		permit.Sent()
	} else {
		permit.Release()
	}
	failed := &upstreamError{cause: err, timeout: timeout, connected: a.connected, sent: sent, write: !isRead(req.Method)}
	a.step.failed(failed.explain().kind)
	return nil, failed
}

// withoutTrailer drops a trailer, which would be passed on as it comes, past passHeaders; FreeAgent sends none. The
// transport writes it into its own answer when the body ends, so another one is handed on.
func withoutTrailer(resp *http.Response) *http.Response {
	if resp.ContentLength >= 0 {
		return resp
	}
	other := *resp
	other.Trailer = nil
	return &other
}

// prepare makes the request of one attempt: with its token, and with the body from its beginning.
func (s *sending) prepare(req *http.Request, a *attempt, token tokens.Token) *http.Request {
	out := a.request
	out.Method, out.URL, out.Host, out.Header = req.Method, req.URL, req.Host, req.Header
	out.GetBody, out.ContentLength, out.TransferEncoding = nil, 0, nil
	if s.x.attempts > 1 {
		out.Header = out.Header.Clone() // the transport may still be reading the last attempt's
	}
	a.header[0] = token.Authorization()
	out.Header["Authorization"] = a.header[:]
	if s.body.size == 0 && isRead(out.Method) {
		out.Body, out.TransferEncoding = unrepeatable{}, identity
		return out
	}
	out.ContentLength = s.body.size
	out.Body = a.reader(s.body)
	if !isRead(out.Method) { // the transport sends a write again if not a byte of it has left, but a read also later
		out.GetBody = func() (io.ReadCloser, error) { return a.reader(s.body), nil }
	}
	return out
}
