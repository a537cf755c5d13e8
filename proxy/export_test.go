package proxy

import (
	"io"
	"net/http"
	"net/netip"

	"freeagent-proxy/limiter"
)

// RateLimitHeaders is what a client is told of the budgets.
func RateLimitHeaders(from Limiter, api limiter.Budget, share ...limiter.Budget) func(http.Header) {
	l := newRateLimit(api, share...)
	return func(h http.Header) { l.tell(h, from, nil, make([]string, 1)) }
}

// What the fuzz tests call without a socket between.
var (
	PreferredWait = preferredWait
	RetryAfter    = retryAfter
	CanonicalHost = canonicalHost
)

// ClientAddress is where a request with these header lines comes from.
func ClientAddress(trusted []netip.Prefix, remote string, header http.Header) netip.Addr {
	c := &clients{trusted: trusted}
	return c.address(&http.Request{RemoteAddr: remote, Header: header})
}

// ParseTarget is parseTarget with its parts as results.
func ParseTarget(requestURI string) (account, path, query string, hasQuery bool, err error) {
	t, err := parseTarget(requestURI)
	return t.account, t.path, t.query, t.hasQuery, err
}

// Rewriting is one way of a rewriter, without a request around it.
type Rewriting struct {
	Format  string // json, xml or form
	Origins []string
	AnyCase bool
	Prefix  string
	With    string
}

func (r Rewriting) scanner() scanner {
	f := map[string]format{"json": formatJSON, "xml": formatXML, "form": formatForm}[r.Format]
	return f.scanner(&wanted{origins: r.Origins, anyCase: r.AnyCase, prefix: r.Prefix, with: r.With})
}

// Whole rewrites a text that is there in one piece.
func (r Rewriting) Whole(text string) string { return string(rewrite(r.scanner(), []byte(text))) }

// Reader rewrites a stream, through a window of that size.
func (r Rewriting) Reader(source io.Reader, window int) io.Reader {
	return &rewritten{source: source, window: make([]byte, window), choose: func([]byte) scanner { return r.scanner() }}
}

// WrapTransport puts something around the way to the upstream.
func WrapTransport(p *Proxy, around func(http.RoundTripper) http.RoundTripper) {
	p.transport = around(p.transport)
}

// SetTransport puts something else in the upstream's place.
func SetTransport(p *Proxy, transport http.RoundTripper) { p.transport = transport }

var untraced = sending{x: &exchange{}}

// TraceNothing is all that a request without a trace does for it.
func TraceNothing() {
	s := &untraced
	s.x.traced.step("wait").end()
	attempt := s.attemptStep()
	attempt.answered(500)
	attempt.failed("broken")
	attempt.end()
	s.x.traced.end(s.x)
}
