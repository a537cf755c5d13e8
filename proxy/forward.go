package proxy

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// forward sends the request upstream and its answer to the client. The ReverseProxy is a value
// of its own for each exchange, so that what belongs to one request needs no context
// value and cannot be seen by another.
func (p *Proxy) forward(x *exchange, r *http.Request, to passage, t target, b *body) error {
	s := &x.sending
	s.p, s.x, s.passage, s.target, s.body = p, x, to, t, b
	s.presence, s.patience = presence(r), to.client.wait(r)
	s.reverse.FlushInterval, s.reverse.Transport = 0, x.keyed.transport(s)
	delete(r.Header, "Upgrade") // ReverseProxy would pass it on, or fail at one that it cannot print
	s.reverse.ServeHTTP(x, r)
	return s.err
}

const (
	// flushInterval is how long a slow answer of known length may gather in our buffer; one in chunks never does.
	flushInterval = 100 * time.Millisecond
	// short is an answer, in bytes, that nearly always comes in one piece. What has come of it is flushed when there is more
	// to wait for, which costs less than a timer.
	short = 2 << 10
)

var discard = log.New(io.Discard, "", 0)

// presence ends when the client is known to have left. A half-closed connection looks the same
// as a closed one; a client that will send nothing more anyway (HTTP/1.0, or
// `Connection: close`) may well have closed its half, so it is taken to be there.
func presence(r *http.Request) context.Context {
	if r.Close || !r.ProtoAtLeast(1, 1) {
		return context.WithoutCancel(r.Context())
	}
	return r.Context()
}

// rewrite addresses the request to the upstream. The request-target goes there as the client wrote
// it: ReverseProxy has dropped what does not parse from the query by now, so it is put back.
func (s *sending) rewrite(pr *httputil.ProxyRequest) {
	upstream := s.p.config.Upstream
	*pr.Out.URL = url.URL{
		Scheme:     upstream.Scheme,
		Host:       upstream.Host,
		Opaque:     s.target.path,
		RawQuery:   s.target.query,
		ForceQuery: s.target.hasQuery,
	}
	pr.Out.Host = upstream.Host
	// The body has been read; each attempt opens it anew.
	pr.Out.Body, pr.Out.ContentLength, pr.Out.TransferEncoding, pr.Out.Trailer = nil, 0, nil, nil
	s.p.cleanRequest(pr.Out.Header, s.account.RateLimitTest)
	if s.subdomain != "" { // here, where no Connection header can take it away again
		pr.Out.Header["X-Subdomain"] = []string{s.subdomain}
	}
	s.x.urls.ask(pr.Out.Header)
	if s.x.keyed != nil { // who gets the answer again may not read gzip
		delete(pr.Out.Header, "Accept-Encoding")
	}
	if s.body.replaced > 0 {
		forget(pr.Out.Header)
	}
}

// receive prepares FreeAgent's answer for the client. Its headers are handed over here, as they are: ReverseProxy would
// copy them, and read the media type to tell a stream of events from others.
func (s *sending) receive(resp *http.Response) error {
	to := s.x.Header()
	if _, ok := resp.Header["Content-Type"]; !ok {
		resp.Header["Content-Type"] = nil // else net/http guesses one
	}
	switch {
	case isEventStream(resp.Header):
		s.reverse.FlushInterval = -1 // at once
	case resp.ContentLength > short:
		s.reverse.FlushInterval = flushInterval
	}
	s.x.upstream = true
	if isGatewayTrouble(resp.StatusCode) && !isRead(s.x.method) {
		s.x.tally.Doubtful = true
		to["Proxy-Status"] = mayHaveActed(resp.StatusCode)
	}
	s.x.urls.answer(s.x, resp)
	passHeaders(to, resp.Header)
	resp.Header = nil
	s.rateLimit.tell(to, s.p.config.Limiter, s.x.usage[:0], s.x.told[1:])
	return nil
}

func isEventStream(h http.Header) bool {
	const events = "text/event-stream"
	kind := h.Get("Content-Type")
	return len(kind) >= len(events) && strings.EqualFold(kind[:len(events)], events)
}

// newTransport is the one way out. HTTP/1.1 only: a connection then carries one request at a
// time, and what became of it is known; at 120 requests a minute nothing is lost by that.
func newTransport(upstream *url.URL) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  environmentProxy(upstream),
		DialContext:            counting((&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext),
		Protocols:              protocols,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConnsPerHost:    512,
		IdleConnTimeout:        50 * time.Second, // below the 60 s after which load balancers close, so that few writes meet a dead connection
		DisableCompression:     true,             // what to ask for is the client's to say
		MaxResponseHeaderBytes: 256 << 10,        // FreeAgent's are about 5 KB
	}
}

// environmentProxy is the HTTPS_PROXY of the environment, if the upstream is to be reached by one. It sees
// a CONNECT alone: the upstream is https, or on loopback, which is never proxied. It is looked up once,
// since the upstream is always the same.
func environmentProxy(upstream *url.URL) func(*http.Request) (*url.URL, error) {
	found, err := http.ProxyFromEnvironment(&http.Request{URL: upstream})
	if found == nil && err == nil {
		return nil
	}
	return func(*http.Request) (*url.URL, error) { return found, err }
}

// bufferPool lends copy buffers to ReverseProxy, which would else make 32 KB of garbage a request.
type bufferPool struct{ pool sync.Pool }

const copyBuffer = 32 << 10

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([copyBuffer]byte) }}}
}

func (b *bufferPool) Get() []byte  { return b.pool.Get().(*[copyBuffer]byte)[:] }
func (b *bufferPool) Put(p []byte) { b.pool.Put((*[copyBuffer]byte)(p)) }
