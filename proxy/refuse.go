package proxy

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"freeagent-proxy/internal/turns"
	"freeagent-proxy/limiter"
	"freeagent-proxy/tokens"

	"go.uber.org/zap"
)

// Why a request is refused. refuse alone knows what each means to a client.
var (
	errMethod          = errors.New("method is not FreeAgent's")
	errConnect         = errors.New("CONNECT asks for a tunnel")
	errHost            = errors.New("host is not ours")
	errCrossSite       = errors.New("cross-site browser request")
	errTarget          = errors.New("space in the request-target")
	errNotFound        = errors.New("path is not FreeAgent's API")
	errOAuth           = errors.New("path is FreeAgent's OAuth")
	errAccountRequired = errors.New("no account named and none is the default")
	errUnknownAccount  = errors.New("unknown account")
	errUnknownKey      = errors.New("unknown key in X-Api-Key")
	errUnknownClient   = errors.New("unknown client")
	errSubdomain       = errors.New("malformed subdomain")
	errBodyTooLarge    = errors.New("body too large")
	errTokenTooLarge   = errors.New("token request too large")
	errBodyBroken      = errors.New("read body")
	errBodyStorage     = errors.New("store body")
	errBodyStalled     = errors.New("body stalled")
	errDraining        = errors.New("proxy is shutting down")
	errClientGone      = errors.New("client left while waiting")
	errInternal        = errors.New("internal error")
)

// upstreamError is an attempt that got no answer.
type upstreamError struct {
	cause     error
	timeout   bool
	connected bool
	sent      bool // bytes may have reached FreeAgent
	write     bool // and it may have acted on them
}

// Error leaves out what net/http quotes of an answer that it cannot read: that may echo the token.
func (e *upstreamError) Error() string {
	var (
		network   *net.OpError
		untrusted *tls.CertificateVerificationError
		handshake tls.AlertError
	)
	switch {
	case e.timeout:
		return "upstream: no progress in time"
	case errors.As(e.cause, &untrusted):
		return "upstream: " + untrusted.Error()
	case errors.As(e.cause, &handshake):
		return "upstream: " + handshake.Error()
	case errors.As(e.cause, &network):
		return "upstream: " + network.Error()
	case errors.Is(e.cause, io.EOF), errors.Is(e.cause, io.ErrUnexpectedEOF):
		return "upstream: connection closed without an answer"
	default:
		return "upstream: what came back is no answer that can be read"
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// refusal is what a client is told.
type refusal struct {
	status  int
	kind    string // RFC 9209, section 2.3
	details string // a sentence that says what to do
	after   time.Duration
	allow   bool   // name the methods
	asks    string // for a client's key, in this realm
	hangUp  bool   // what else comes on this connection is not to be trusted
	text    string // FreeAgent's own words instead of its error shape
	format  string // of the text; empty: plain

	rateLimit *rateLimit // nil: the account is not known
}

// refuse answers a request that FreeAgent did not. It is the only place where an error becomes a status.
func (p *Proxy) refuse(x *exchange, r *http.Request, err error) {
	f := p.explain(x, err)
	x.reason = f.kind + ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
	if x.status != 0 {
		return // too late: the answer has begun
	}
	if f.status == http.StatusInternalServerError || errors.Is(err, errBodyStorage) {
		p.config.Log.Error("request failed in the proxy itself; if the error names a file see to the disk, else please report it", zap.String("request_id", x.requestID), zap.Error(err))
	}
	var failed *upstreamError
	x.upstream, x.tally.Error = false, f.kind
	x.tally.Doubtful = errors.As(err, &failed) && failed.sent && failed.write
	f.rateLimit = x.rateLimit
	if x.unread {
		// Else the server reads the body before it lets the answer go, which a client that stopped sending never gets. See hearOut.
		f.hangUp = true
		_ = x.control.SetReadDeadline(time.Now().Add(linger))
	}
	f.write(x, r, p.config.Limiter)
	if errors.Is(err, errClientGone) {
		x.status = StatusClientGone
	}
}

// explain says what an error means to the client.
func (p *Proxy) explain(x *exchange, err error) refusal {
	var over *limiter.OverBudgetError
	var upstream *upstreamError
	var busy *turns.BusyError
	switch {
	case errors.Is(err, errMethod):
		return refusal{status: http.StatusMethodNotAllowed, kind: "http_request_denied", allow: true, hangUp: true,
			details: "FreeAgent's API knows GET, POST, PUT and DELETE; send one of these, by plain HTTP, to this address"}
	case errors.Is(err, errConnect):
		return refusal{status: http.StatusMethodNotAllowed, kind: "http_request_denied", allow: true, hangUp: true,
			details: "a tunnel to FreeAgent would get no token: let the program's base URL begin with http:// instead of https:// and it is served as plain HTTP, or set its base URL to the proxy's own address"}
	case errors.Is(err, errHost):
		return refusal{status: http.StatusMisdirectedRequest, kind: "http_request_denied",
			details: "this Host is not one of the proxy's names; use its address, or add the name to allowed_hosts"}
	case errors.Is(err, errCrossSite):
		return refusal{status: http.StatusForbidden, kind: "http_request_denied",
			details: "a web page of another origin made this request; the proxy serves programs only"}
	case errors.Is(err, errTarget):
		return refusal{status: http.StatusBadRequest, kind: "http_request_error",
			details: "there is a space in the URL; write it as %20"}
	case errors.Is(err, errNotFound):
		return refusal{status: http.StatusNotFound, kind: "http_request_denied",
			details: "the proxy serves FreeAgent's API below /v2/, and below /accounts/NAME/v2/"}
	case errors.Is(err, errOAuth):
		return refusal{status: http.StatusNotFound, kind: "http_request_denied",
			details: "the proxy keeps the tokens and answers POST /v2/token_endpoint and GET /v2/approve_app itself; call the API without OAuth, or these alone"}
	case errors.Is(err, errDraining):
		return explainToken(x, err)
	case errors.Is(err, errClientGone): // it may have closed but its half, and then it reads this
		return refusal{status: http.StatusServiceUnavailable, kind: "connection_terminated", hangUp: true,
			details: "the connection was closed from the client's side while the request waited; FreeAgent did not act on it"}
	case errors.As(err, &over):
		return p.explainOverBudget(x, over)
	case errors.As(err, &busy):
		return refusal{status: http.StatusTooManyRequests, kind: "http_request_denied", after: busy.RetryAfter,
			details: "others make the same write for this company, for longer than this request may wait, and FreeAgent takes it one at a time (writes.one_at_a_time); nothing was sent"}
	case errors.As(err, &upstream):
		return upstream.explain()
	}
	for _, explain := range []func(error) (refusal, bool){explainBody, explainOAuth, explainClient, explainKey} {
		if f, ok := explain(err); ok {
			return f
		}
	}
	return explainToken(x, err)
}

// explainBody says why a request's body was not taken.
func explainBody(err error) (refusal, bool) {
	switch {
	case errors.Is(err, errBodyTooLarge):
		return refusal{status: http.StatusRequestEntityTooLarge, kind: "http_request_error", hangUp: true,
			details: fmt.Sprintf("the body is larger than %d MiB; send less at a time", maxBody>>20)}, true
	case errors.Is(err, errTokenTooLarge):
		return refusal{status: http.StatusRequestEntityTooLarge, kind: "http_request_error", hangUp: true,
			details: fmt.Sprintf("this token request is larger than %d KiB; an id, a secret and a grant need less", maxTokenRequest>>10)}, true
	case errors.Is(err, errBodyStalled):
		return refusal{status: http.StatusRequestTimeout, kind: "http_request_error", hangUp: true,
			details: "the body stopped coming; nothing was sent to FreeAgent"}, true
	case errors.Is(err, errBodyBroken):
		return refusal{status: http.StatusBadRequest, kind: "http_request_error", hangUp: true,
			details: "the body ended early or is malformed; nothing was sent to FreeAgent"}, true
	case errors.Is(err, errBodyStorage):
		return refusal{status: http.StatusServiceUnavailable, kind: "proxy_internal_error", after: 10 * time.Second, hangUp: true,
			details: "the proxy could not store the body; its operator should look at the disk with the temporary files"}, true
	}
	return refusal{}, false
}

// explainOAuth says why a token request is refused, in FreeAgent's words where they are known.
func explainOAuth(err error) (refusal, bool) {
	f := refusal{status: http.StatusBadRequest, kind: "http_request_error"}
	switch {
	case errors.Is(err, errTokenDenied):
		f.status, f.kind, f.asks = http.StatusUnauthorized, "http_request_denied", "Application"
		f.text, f.format = "HTTP Basic: Access denied.\n", "html"
		f.details = "client id and secret must be a client's name and its key; see clients in the proxy's configuration"
	case errors.Is(err, errGrantType):
		f.details = "grant_type must be refresh_token or authorization_code"
	case errors.Is(err, errNoForm):
		f.details = "the token request is neither a form nor JSON"
	default:
		return refusal{}, false
	}
	return f, true
}

// explainClient says who is not let in, or to what.
func explainClient(err error) (refusal, bool) {
	f := refusal{status: http.StatusForbidden, kind: "http_request_denied"}
	var denied *forbidden
	var strange *strangeCompanyError
	switch {
	case errors.As(err, &denied):
		f.details = denied.Error() + "; see clients in the proxy's configuration"
	case errors.Is(err, errUnknownKey):
		f.status, f.asks = http.StatusUnauthorized, "freeagent-proxy"
		f.details = "the key in X-Api-Key is no client's; see clients in the proxy's configuration"
	case errors.Is(err, errUnknownClient):
		f.status, f.asks = http.StatusUnauthorized, "freeagent-proxy"
		f.details = "this program is none of the proxy's clients; send its key as Bearer token, as Basic password or in X-Api-Key"
	case errors.Is(err, errUnknownAccount), errors.Is(err, tokens.ErrUnknownAccount) && !errors.Is(err, tokens.ErrUnavailable): // it may have been taken out meanwhile
		f.status, f.details = http.StatusNotFound, "no account of this name is configured; see accounts in the configuration"
	case errors.Is(err, errAccountRequired):
		f.status = http.StatusBadRequest
		f.details = "there are several accounts and none is the default; name one in X-FreeAgent-Account or as /accounts/NAME/v2/"
	case errors.Is(err, errSubdomain):
		f.status, f.details = http.StatusBadRequest, "X-Subdomain must be one name of 1 to 63 letters, digits and hyphens"
	case errors.As(err, &strange):
		f.status, f.after = http.StatusTooManyRequests, strange.retryAfter
		f.details = fmt.Sprintf("FreeAgent has not been seen to know this company, nor %d others that this client asked for of late; correct X-Subdomain, or wait", maxStrange)
	default:
		return refusal{}, false
	}
	return f, true
}

// explainOverBudget says which window is full. Of a pause that is not known: FreeAgent told of it by a 429, most
// likely about the first one.
func (p *Proxy) explainOverBudget(x *exchange, over *limiter.OverBudgetError) refusal {
	f := refusal{status: http.StatusTooManyRequests, kind: "http_request_denied", after: over.RetryAfter,
		details: "the budget is used up for longer than this request may wait"}
	windows := []limiter.Window{over.Window}
	for _, budget := range x.budgets {
		if over.Window.Requests == 0 && budget.Key == over.Key {
			windows = budget.Windows
		}
	}
	if strings.HasSuffix(over.Key, clientPart+x.client) {
		f.details = fmt.Sprintf("client %q has used up its share of the budget, for longer than this request may wait (share)", x.client)
	}
	if len(windows) > 0 {
		f.text = overLimitWords(windows[0])
	}
	return f
}

// explainToken says why there is no token, or that we are shutting down.
func explainToken(x *exchange, err error) refusal {
	authorize := "run `freeagent-proxy authorize --account " + x.account + "`"
	var retry interface{ RetryAfter() time.Duration }
	switch {
	case errors.Is(err, errDraining), errors.Is(err, limiter.ErrClosed), errors.Is(err, turns.ErrClosed), errors.Is(err, tokens.ErrClosed):
		return refusal{status: http.StatusServiceUnavailable, kind: "destination_unavailable", after: 5 * time.Second, hangUp: true,
			details: "the proxy is shutting down; nothing was sent to FreeAgent"}
	case errors.Is(err, tokens.ErrNoGrant):
		return refusal{status: http.StatusServiceUnavailable, kind: "destination_unavailable", after: time.Minute,
			details: "this account was never authorised at FreeAgent: " + authorize}
	case errors.Is(err, tokens.ErrReauthorize):
		return refusal{status: http.StatusServiceUnavailable, kind: "destination_unavailable", after: time.Minute,
			details: "FreeAgent refuses this account's authorisation: " + authorize + ", or check the app's client id and secret"}
	case errors.Is(err, tokens.ErrUnavailable):
		f := refusal{status: http.StatusServiceUnavailable, kind: "destination_unavailable", after: 5 * time.Second,
			details: "no access token can be had now; the authorisation is kept, try again"}
		if errors.As(err, &retry) {
			f.after = retry.RetryAfter()
		}
		return f
	}
	return refusal{status: http.StatusInternalServerError, kind: "proxy_internal_error",
		details: "the proxy failed; its log has the cause under this request id"}
}

// lookFirst is for who sent a write of which nobody knows the outcome.
const lookFirst = "it may have acted on this request, so look before sending it again"

// explain tells what is known of what FreeAgent did.
func (e *upstreamError) explain() refusal {
	f := refusal{status: http.StatusBadGateway, kind: "connection_terminated", details: "the connection to FreeAgent broke"}
	switch {
	case e.timeout && e.sent:
		f.status, f.kind, f.details = http.StatusGatewayTimeout, "http_response_timeout", "FreeAgent did not answer in time"
	case e.timeout:
		f.status, f.kind, f.details = http.StatusGatewayTimeout, "connection_timeout", "FreeAgent could not be reached in time"
	case !e.sent:
		f.kind, f.details = "destination_unavailable", "FreeAgent could not be reached"
	}
	switch {
	case !e.sent:
		f.details += "; nothing was sent"
	case e.write:
		f.details += "; " + lookFirst
	}
	return f
}

// write sends the refusal in the client's format.
func (f refusal) write(x *exchange, r *http.Request, limits Limiter) {
	h := x.Header()
	clear(h)
	h["X-Request-Id"] = []string{x.requestID}
	h.Set("Proxy-Status", "freeagent-proxy; error="+f.kind+"; details="+structuredString(f.details))
	h.Set("Cache-Control", "no-store")
	if f.rateLimit != nil {
		f.rateLimit.tell(h, limits, x.usage[:0], x.told[1:])
	}
	if f.after > 0 {
		h.Set("Retry-After", strconv.FormatInt(wholeSeconds(f.after), 10))
	}
	if f.allow {
		h.Set("Allow", strings.Join(methods, ", "))
	}
	if f.asks != "" { // many a library sends its Basic credentials only when it is asked for them
		h.Set("WWW-Authenticate", "Basic realm="+structuredString(f.asks))
	}
	if f.hangUp {
		h.Set("Connection", "close")
	}
	contentType, body := f.body(r)
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.WriteHeader(f.status)
	_, _ = x.Write(body)
}

// body is the refusal in FreeAgent's shapes: its plain text for a 429, else its single-error
// object in JSON or XML (https://dev.freeagent.com/docs/depreciation_profiles).
func (f refusal) body(r *http.Request) (contentType string, body []byte) {
	if f.text != "" {
		return "text/" + cmp.Or(f.format, "plain") + "; charset=utf-8", []byte(f.text)
	}
	if wantsXML(r) {
		var b strings.Builder
		b.WriteString(xml.Header + "<freeagent><errors><error><message>")
		_ = xml.EscapeText(&b, []byte(f.details))
		b.WriteString("</message></error></errors></freeagent>\n")
		return "application/xml; charset=utf-8", []byte(b.String())
	}
	type message struct {
		Message string `json:"message"`
	}
	type object struct {
		Error message `json:"error"`
	}
	body, _ = json.Marshal(map[string]object{"errors": {message{f.details}}})
	return "application/json; charset=utf-8", append(body, '\n')
}

// structuredString writes an sf-string (RFC 8941, section 3.3.3). Our sentences are ASCII.
func structuredString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
