package main

import (
	"maps"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"freeagent-proxy/proxy"
)

// requestCounts is what became of requests. The series of a kind of request are looked up by their labels once; from then
// on they are found in a map that nobody changes, only replaces: no lock, and nothing is allocated.
type requestCounts struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	upstream *prometheus.HistogramVec
	waiting  *prometheus.HistogramVec
	replays  *prometheus.CounterVec
	doubtful *prometheus.CounterVec
	kept     *prometheus.CounterVec
	refusals *prometheus.CounterVec

	refused map[string]prometheus.Counter // by error
	known   atomic.Pointer[map[requestKind]*requestSeries]
	mu      sync.Mutex // held by who replaces it
}

// requestKind is what the labels tell apart.
type requestKind struct {
	client, account, method string
	status                  int
	upstream                bool
}

// requestSeries is where a kind of request is counted.
type requestSeries struct {
	total    prometheus.Counter
	duration prometheus.Observer
	account  *accountSeries // nil: it came to none
}

// accountSeries is what can only be of a request that came to an account.
type accountSeries struct {
	upstream, waiting prometheus.Observer
	doubtful, kept    prometheus.Counter

	rejected, limited, connection, gateway prometheus.Counter // replays
}

// Buckets, in seconds. Without a wait a request is answered as soon as FreeAgent does, in some tenths of a second; it may
// wait for ten minutes and more.
var (
	durationBuckets = []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 60, 120, 600}
	upstreamBuckets = []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	waitingBuckets  = []float64{.005, .1, .5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600}
)

// Why a request was sent again, and the errors of RFC 9209 that a refusal may name.
const (
	replayRejected   = "token_rejected"
	replayLimited    = "rate_limited"
	replayConnection = "connection_failed"
	replayGateway    = "gateway_error"
)

var refusalErrors = []string{
	"http_request_denied", "http_request_error", "destination_unavailable", "connection_timeout", "connection_terminated",
	"http_response_timeout", "proxy_internal_error",
}

func newRequestCounts() *requestCounts {
	c := &requestCounts{
		total: counterVec("requests_total", "Requests whose answer has ended, by who asked, what was answered, and by whom: upstream (FreeAgent) or proxy.",
			"client", "account", "method", "status", "answered_by"),
		duration: histogramVec("request_duration_seconds", "From a request's header to the end of its answer.", durationBuckets, "account", "answered_by"),
		upstream: histogramVec("upstream_duration_seconds", "From the sending of a request's last attempt until FreeAgent's answer began.", upstreamBuckets, "account"),
		waiting:  histogramVec("waiting_seconds", "How long a request that was sent, or waited in vain, waited for its turn, in all: for permits, tokens, and earlier writes.", waitingBuckets, "client"),
		replays: counterVec("replays_total", "Attempts that were sent again, by what had become of the one before: token_rejected (401), rate_limited (429), connection_failed, gateway_error (502, 503, 504).",
			"account", "reason"),
		doubtful: counterVec("writes_unknown_total", "Writes of which nobody knows whether FreeAgent acted on them.", "account"),
		kept:     counterVec("idempotency_replays_total", "Answers that were kept for an Idempotency-Key and given again.", "account"),
		refusals: counterVec("refusals_total", "Requests that the proxy refused or could not get an answer for, by the error type of RFC 9209.", "error"),
		refused:  map[string]prometheus.Counter{},
	}
	for _, e := range refusalErrors {
		c.refused[e] = c.refusals.WithLabelValues(e)
	}
	c.known.Store(&map[requestKind]*requestSeries{})
	return c
}

func (c *requestCounts) collectors() []prometheus.Collector {
	return []prometheus.Collector{c.total, c.duration, c.upstream, c.waiting, c.replays, c.doubtful, c.kept, c.refusals}
}

// begin lets what an account may come to begin at 0, so that the first time is an increase.
func (c *requestCounts) begin(account string) {
	for _, reason := range []string{replayRejected, replayLimited, replayConnection, replayGateway} {
		c.replays.WithLabelValues(account, reason)
	}
	c.doubtful.WithLabelValues(account)
	c.kept.WithLabelValues(account)
}

// count counts a request.
func (c *requestCounts) count(s *proxy.Served, n *names) {
	kind := requestKind{s.Client, s.Account, knownMethod(s.Method), s.Status, s.Upstream}
	to := (*c.known.Load())[kind]
	if to == nil {
		to = c.open(kind, n)
	}
	to.total.Inc()
	to.duration.Observe(s.Took.Seconds())
	if refused := c.refused[s.Error]; refused != nil {
		refused.Inc()
	}
	if to.account != nil {
		to.account.count(s)
	}
}

func (to *accountSeries) count(s *proxy.Served) {
	if s.Attempts > 0 || s.Waited > 0 { // who is refused at once must not make waits look short
		to.waiting.Observe(s.Waited.Seconds())
	}
	if s.Answered > 0 {
		to.upstream.Observe(s.Answered.Seconds())
	}
	if s.Attempts > 1 {
		to.rejected.Add(float64(s.Replays.Rejected))
		to.limited.Add(float64(s.Replays.Limited))
		to.connection.Add(float64(s.Replays.Connection))
		to.gateway.Add(float64(s.Replays.Gateway))
	}
	if s.Doubtful {
		to.doubtful.Inc()
	}
	if s.Kept {
		to.kept.Inc()
	}
}

// open finds the series of a kind, and keeps it if there are so many kinds at most as the configuration makes.
func (c *requestCounts) open(kind requestKind, n *names) *requestSeries {
	c.mu.Lock()
	defer c.mu.Unlock()
	client, account := n.client(kind.client), n.account(kind.account)
	answeredBy := "proxy"
	if kind.upstream {
		answeredBy = "upstream"
	}
	s := &requestSeries{
		total:    c.total.WithLabelValues(client, account, kind.method, statusLabel(kind.status), answeredBy),
		duration: c.duration.WithLabelValues(account, answeredBy),
	}
	if account != noAccount {
		s.account = c.account(client, account)
	}
	named := client == kind.client || kind.client == ""
	if named && (account == kind.account || kind.account == "") && statusLabel(kind.status) != other {
		known := maps.Clone(*c.known.Load())
		known[kind] = s
		c.known.Store(&known)
	}
	return s
}

func (c *requestCounts) account(client, account string) *accountSeries {
	return &accountSeries{
		upstream:   c.upstream.WithLabelValues(account),
		waiting:    c.waiting.WithLabelValues(client),
		doubtful:   c.doubtful.WithLabelValues(account),
		kept:       c.kept.WithLabelValues(account),
		rejected:   c.replays.WithLabelValues(account, replayRejected),
		limited:    c.replays.WithLabelValues(account, replayLimited),
		connection: c.replays.WithLabelValues(account, replayConnection),
		gateway:    c.replays.WithLabelValues(account, replayGateway),
	}
}

// knownMethod is a method that FreeAgent's API has, or "other". The proxy refuses the others.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch:
		return method
	}
	return other
}

// statusLabel is a status that has a name, or "other".
func statusLabel(status int) string {
	if http.StatusText(status) != "" || status == proxy.StatusClientGone {
		return strconv.Itoa(status)
	}
	return other
}
