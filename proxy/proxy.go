// Package proxy is the life of one request: a program calls plain HTTP without a
// credential, and FreeAgent's answer comes back.
//
// Its vocabulary: a client calls us, the upstream is FreeAgent's API, an account
// is one FreeAgent user's authorisation. An attempt is one sending of a request, a
// replay a later one. We forward what goes upstream and refuse what we answer ourselves.
//
// Three decisions a reader would question:
//   - An attempt's context is not the client's. A half-closing client (netcat, some
//     HTTP/1.0 programs) looks like one that left, and a write that was passed on must be finished, so
//     only waiting ends when a client goes away; see attempts.
//   - The upstream is fixed when the Proxy is made. Nothing a client sends can name another host,
//     and redirects are handed back, never followed: the token goes to one place.
//   - The request-target travels as the bytes the client sent, past net/url, because real
//     clients send queries that do not parse; see target.
package proxy

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"freeagent-proxy/limiter"
	"freeagent-proxy/tokens"
)

// Config is what a Proxy is made of. All fields are required unless they say otherwise.
type Config struct {
	Upstream  *url.URL      // scheme and host of FreeAgent's API; a path is ignored
	Timeout   time.Duration // how long an attempt may go without any progress, in either direction
	UserAgent string        // appended to the client's User-Agent; may be empty
	Version   string        // ours, for the User-Agent of clients that send none
	Accounts  []Account
	Clients   []Client         // none: everyone who may connect is the client "anonymous"
	PublicURL *url.URL         // how clients reach us: scheme and host; nil: by the name that each of them uses
	Hosts     []string         // host names we answer to beside loopback and the address connected to; may be empty
	MaxWait   time.Duration    // of whoever is none of Clients
	Egress    []limiter.Window // over all accounts: FreeAgent's limit per source address
	Tokens    *tokens.Manager
	Limiter   Limiter
	Outcomes  Outcomes // of writes under an Idempotency-Key
	// TrustedProxies are those whose Forwarded or X-Forwarded-For names a client's address; may be empty.
	TrustedProxies []netip.Prefix
	Sealer         Sealer // of the tokens that programs get that do their own OAuth
	// Now is the clock by which those end, one for all replicas; nil: time.Now.
	Now func() time.Time
	// OneAtATime are writes, such as "POST /v2/invoices", that happen one at a time for each company, by Turns. Without
	// any there need be no Turns.
	OneAtATime []string
	Turns      Turns
	Log        *zap.Logger
	// Served is told of each request when its answer has ended, to write the access log, to count and to report; it must neither wait
	// nor keep what it is given. It may be nil.
	Served func(*Served)
	// Tracer makes a span of each request and of what takes time in it. nil: none, at no cost.
	Tracer trace.Tracer
}

// Limiter says when the next request may go: *limiter.Local for one process, *limiter.Redis for several.
type Limiter interface {
	// Take takes a permit, waiting for it as long as the request says. Its errors are *limiter.OverBudgetError,
	// limiter.ErrClosed and the context's cause.
	Take(ctx context.Context, r limiter.Request) (*limiter.Permit, error)
	// Exceeded takes in a 429: nothing is let through for so long, and less afterwards if another program uses the budget.
	Exceeded(b limiter.Budget, retryAfter time.Duration)
	// AppendUsage appends what is left of the budgets, window by window.
	AppendUsage(usage []limiter.Usage, budgets ...limiter.Budget) []limiter.Usage
}

// Proxy is an http.Handler. It is a bare handler on purpose: http.ServeMux answers a
// path with a doubled slash by a redirect, and many clients stop there.
type Proxy struct {
	config    Config // of which settings has its own
	settings  atomic.Pointer[settings]
	bodies    *bodies
	draining  context.Context // ends when Drain is called
	drain     context.CancelFunc
	standIns  standIns
	transport http.RoundTripper
	buffers   *bufferPool
	exchanges sync.Pool // of *exchange
	inFlight  atomic.Int64
	gzips     *gzips
	origin    []string // the upstream's scheme and host: what begins FreeAgent's URLs

	lastOrigin atomic.Pointer[clientOrigin] // the client's that was last worked out

	writes    *writes // that are under way
	companies *companies
}

// New makes a Proxy. It starts nothing.
func New(c Config) *Proxy {
	if c.Now == nil {
		c.Now = time.Now
	}
	p := &Proxy{
		config:    c,
		bodies:    newBodies(),
		standIns:  standIns{c.Sealer, c.Now},
		transport: newTransport(c.Upstream),
		buffers:   newBufferPool(),
		gzips:     newGzips(),
		origin:    []string{upstreamOrigin(c.Upstream)},

		writes:    newWrites(),
		companies: newCompanies(),
	}
	p.exchanges.New = p.newExchange
	p.draining, p.drain = context.WithCancel(context.Background())
	p.Reconfigure(c)
	return p
}

// Drain refuses whoever is still sending a body. Others get their answers: those who wait when limiter and token
// manager are closed, those whose request was sent when FreeAgent has answered.
func (p *Proxy) Drain() { p.drain() }

// ServeHTTP answers one request, always: by FreeAgent's answer or by a refusal.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.answer(w, r, "") }

// For is the Proxy at a listener of one client's own: who comes in there and shows no key or certificate of another is that client,
// as long as there is such a client.
func (p *Proxy) For(client string) http.Handler { return entrance{p, client} }

// ForOperator is the Proxy at an entrance that the operator alone can reach: who comes in there may do everything. Programs are
// paced as if he had not, unless he must wait for his turn.
func (p *Proxy) ForOperator() http.Handler { return entrance{p, Operator} }

// ForSelf is the Proxy at the entrance of the process that it is part of: who comes in there is the client Self, may read
// everything, and never waits. Its requests are counted as all are, but programs are paced as if they had not been.
func (p *Proxy) ForSelf() http.Handler { return entrance{p, Self} }

// entrance is the Proxy at a listener that tells who comes in.
type entrance struct {
	proxy  *Proxy
	client string
}

func (e entrance) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.proxy.answer(w, r, e.client) }

func (p *Proxy) answer(w http.ResponseWriter, r *http.Request, entrance string) {
	body := r.Body
	if p.respond(w, r, entrance) {
		p.hearOut(w, r, body)
	}
}

// respond answers a request. unread: it refused it, and has not read its body to the end.
func (p *Proxy) respond(w http.ResponseWriter, r *http.Request, entrance string) (unread bool) {
	x := p.begin(w, r)
	defer p.finish(x, r)
	if err := p.serve(x, r, x.settings.clients.at(entrance)); err != nil {
		p.refuse(x, r, err)
		unread = x.unread
	}
	return unread
}

// serve is the life of a request, from top to bottom.
func (p *Proxy) serve(x *exchange, r *http.Request, listener *client) error {
	shown := x.settings.clients.recognise(r)
	if err := p.admit(x, r, shown != nil); err != nil {
		return err // 403, 405, 421
	}
	target, unusable := parseTarget(r.RequestURI)
	if target.oauth != "" {
		return p.oauth(x, r, target, shown, listener) // 400, 401, 404, 408, 413, 503
	}
	client, err := x.settings.clients.identify(r, shown, listener)
	if err != nil {
		return err // 401
	}
	x.client = client.Name
	x.explainClient(r, shown, listener, client)
	if unusable != nil {
		return unusable // 400, 404
	}
	if err := client.permits(r.Method, target); err != nil {
		return err // 403
	}
	to, err := x.settings.route(r, target, client)
	if err != nil {
		return err // 400, 403, 404
	}
	x.account, x.budgets, x.rateLimit = to.account.Name, to.budgets, to.rateLimit
	x.explainRoute(target, r, to)
	strange, err := p.companies.admit(to)
	if err != nil {
		return err // 429
	}
	if strange {
		defer p.companies.learn(to, x)
	}
	x.urls = p.rewriter(x, r, target, client)
	if x.keyed, err = p.keyed(r, to, target); err != nil {
		return err // 400
	}
	query := x.urls.query(r, target.query)
	rewritten := query != target.query
	target.query = query
	body, err := p.readBody(x, r)
	if err != nil {
		return err // 400, 408, 413, 503
	}
	defer body.Close()
	x.explainBody(body, rewritten)
	if x.keyed != nil {
		return p.forwardOnce(x, r, to, target, body) // 409, 422, 503, or as below
	}
	return p.forward(x, r, to, target, body) // 429, 502, 503, 504
}
