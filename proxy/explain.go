package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"freeagent-proxy/limiter"
)

// At level debug the log has each decision about a request, with its id, in the order in which they are made. Whether anybody wants
// them is looked at once, when the request begins; if not, nothing is made for them. As in all of the log no value of a header, of a
// query or of a body is among them.

// listening is the logger that wants decisions, or nil.
func (p *Proxy) listening() *zap.Logger {
	if p.config.Log.Core().Enabled(zapcore.DebugLevel) {
		return p.config.Log
	}
	return nil
}

func (x *exchange) explain(decision string, fields ...zap.Field) {
	x.debug.Debug(decision, append(fields, zap.String("request_id", x.requestID))...)
}

// explainClient says by what the client is known.
func (x *exchange) explainClient(r *http.Request, shown, listener, found *client) {
	if x.debug == nil {
		return
	}
	scheme, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	by := "its address"
	switch {
	case shown != nil && apiKey(r) != "":
		by = "its key in X-Api-Key"
	case shown != nil && strings.EqualFold(scheme, "Bearer") && strings.HasPrefix(strings.TrimSpace(credentials), standInPrefix):
		by = "a stand-in token of ours"
	case shown != nil && (strings.EqualFold(scheme, "Bearer") || strings.EqualFold(scheme, "Basic")) && x.settings.clients.certified(r) != shown:
		by = "its key in Authorization"
	case shown != nil:
		by = "its certificate"
	case listener != nil:
		by = "its listener"
	case found == x.settings.clients.anonymous:
		by = "nothing, since no clients are configured"
	}
	_, sent := r.Header["Authorization"] // a key, or left over from the time when the program called FreeAgent itself
	x.explain("client known", zap.String("client", found.Name), zap.String("by", by), zap.Bool("authorization_replaced", sent))
}

// explainRoute says what named the account, and where the request is counted.
func (x *exchange) explainRoute(t target, r *http.Request, to passage) {
	if x.debug == nil {
		return
	}
	by := "the client's only or default one"
	switch {
	case t.account != "":
		by = "the path"
	case strings.TrimSpace(r.Header.Get("X-Freeagent-Account")) != "":
		by = "X-FreeAgent-Account"
	}
	budgets := make([]string, len(to.budgets))
	for i, b := range to.budgets {
		budgets[i] = b.Key
	}
	x.explain("account chosen", zap.String("account", to.account.Name), zap.String("by", by), zap.Strings("budgets", budgets))
}

// explainBody says what was made of the request's own URLs.
func (x *exchange) explainBody(b *body, query bool) {
	if x.debug == nil {
		return
	}
	x.explain("request read", zap.Int64("bytes", b.size), zap.Int("urls_rewritten", b.replaced), zap.Bool("query_rewritten", query), zap.Bool("urls_looked_at", x.urls != nil))
}

// explainKeyed says what the idempotency key means.
func (x *exchange) explainKeyed(decision string) {
	if x.debug != nil {
		x.explain("idempotency key", zap.String("decision", decision))
	}
}

// now is the time, for whoever explains how long something took.
func (x *exchange) now() time.Time {
	if x.debug == nil {
		return time.Time{}
	}
	return time.Now()
}

func (s *sending) explainTurn(write string, began time.Time) {
	if s.x.debug != nil {
		s.x.explain("turn taken", zap.String("write", write), zap.Int64("waited_ms", time.Since(began).Milliseconds()))
	}
}

// explainToken says where the token is from. What renewing it takes is told by the account's own lines.
func (s *sending) explainToken(from string, err error) {
	if s.x.debug != nil {
		s.x.explain("token", zap.String("from", from), zap.Bool("good", err == nil))
	}
}

// explainPermit says what is left when the permit is taken.
func (s *sending) explainPermit(waited string, began time.Time, err error) {
	if s.x.debug == nil {
		return
	}
	outcome := "taken"
	if err != nil {
		outcome = "refused"
	}
	left := make(map[string]string)
	for _, b := range s.budgets {
		var said []string
		for _, u := range s.p.config.Limiter.AppendUsage(make([]limiter.Usage, 0, 2), b) {
			said = append(said, strconv.Itoa(u.Remaining)+" of "+strconv.Itoa(u.Window.Requests)+" per "+u.Window.Per.String())
		}
		left[b.Key] = strings.Join(said, ", ")
	}
	s.x.explain("permit "+outcome, zap.String("waited", waited), zap.Int64("waited_ms", time.Since(began).Milliseconds()),
		zap.Int64("may_wait_ms", s.patience.Milliseconds()), zap.Any("left", left))
}

func (s *sending) explainAttempt(resp *http.Response, err error, began time.Time) {
	if s.x.debug == nil {
		return
	}
	outcome := zap.Skip()
	switch {
	case err != nil:
		outcome = zap.Error(err)
	case resp != nil:
		outcome = zap.Int("status", resp.StatusCode)
	}
	s.x.explain("attempt ended", zap.Int("attempt", s.x.attempts), outcome, zap.Int64("took_ms", time.Since(began).Milliseconds()))
}

// explainAgain says why the request is sent once more.
func (s *sending) explainAgain() {
	if s.x.debug == nil {
		return
	}
	why := "FreeAgent's gateway failed, and the request only reads"
	switch s.replayed {
	case 0:
		why = "the connection failed, and FreeAgent cannot have acted or was only asked to read"
	case http.StatusUnauthorized:
		why = "FreeAgent refused the token, and there is another one"
	case http.StatusTooManyRequests:
		why = "FreeAgent's limit was reached, and the request may wait"
	}
	s.x.explain("sent again", zap.String("because", why))
}

// explainAnswer says what was made of the answer's URLs, when it has ended.
func (x *exchange) explainAnswer() {
	if x.debug != nil && x.upstream {
		x.explain("answer passed on", zap.Int("urls_rewritten", x.rewrite.plain.replaced+x.rewrite.zipped), zap.Bool("urls_looked_at", x.urls != nil))
	}
}
