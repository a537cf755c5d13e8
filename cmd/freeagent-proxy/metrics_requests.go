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
// on they are found in two maps that nobody changes, only replaces: no lock, and nothing is allocated. The first is by who
// asked for what, the second by what was answered.
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
	names   *atomic.Pointer[names]        // what labels may say
	callers atomic.Pointer[map[caller]*callerSeries]
	mu      sync.Mutex // held by who replaces a map, makes series, or ends some
}

// caller is who asked, and for which account.
type caller struct{ client, account string }

// callerSeries is where the requests of a caller are counted.
type callerSeries struct {
	caller                 // as the labels name it
	series  *accountSeries // nil: it came to none
	answers atomic.Pointer[map[answerKind]*answerSeries]
}

// answerKind is what the labels tell apart of a caller's requests.
type answerKind struct {
	method   string
	status   int
	upstream bool
}

type answerSeries struct {
	total    prometheus.Counter
	duration prometheus.Observer
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

func newRequestCounts(names *atomic.Pointer[names]) *requestCounts {
	c := &requestCounts{
		names: names,
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
	c.callers.Store(&map[caller]*callerSeries{})
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
func (c *requestCounts) count(s *proxy.Served) {
	from := (*c.callers.Load())[caller{s.Client, s.Account}]
	if from == nil {
		from = c.meet(caller{s.Client, s.Account})
	}
	kind := answerKind{knownMethod(s.Method), s.Status, s.Upstream}
	to := (*from.answers.Load())[kind]
	if to == nil {
		to = c.open(from, kind)
	}
	to.total.Inc()
	to.duration.Observe(s.Took.Seconds())
	if refused := c.refused[s.Error]; refused != nil {
		refused.Inc()
	}
	if from.series != nil {
		from.series.count(s)
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

// meet makes what a caller's requests are counted in, and keeps it if the configuration knows the caller.
func (c *requestCounts) meet(who caller) *callerSeries {
	c.mu.Lock()
	defer c.mu.Unlock()
	from := &callerSeries{caller: c.labels(who)}
	from.answers.Store(&map[answerKind]*answerSeries{})
	if from.account != noAccount {
		from.series = c.account(from.caller)
	}
	if (from.client == who.client || who.client == "") && (from.account == who.account || who.account == "") {
		callers := maps.Clone(*c.callers.Load())
		callers[who] = from
		c.callers.Store(&callers)
	}
	return from
}

// labels are what a caller is called. c.mu is held, so that no series is made of a name that is just being forgotten.
func (c *requestCounts) labels(who caller) caller {
	n := c.names.Load()
	return caller{n.client(who.client), n.account(who.account)}
}

func (c *requestCounts) account(who caller) *accountSeries {
	return &accountSeries{
		upstream:   c.upstream.WithLabelValues(who.account),
		waiting:    c.waiting.WithLabelValues(who.client),
		doubtful:   c.doubtful.WithLabelValues(who.account),
		kept:       c.kept.WithLabelValues(who.account),
		rejected:   c.replays.WithLabelValues(who.account, replayRejected),
		limited:    c.replays.WithLabelValues(who.account, replayLimited),
		connection: c.replays.WithLabelValues(who.account, replayConnection),
		gateway:    c.replays.WithLabelValues(who.account, replayGateway),
	}
}

// open makes the series of a kind of answer, and keeps them if the status has a name: there are not many of those.
func (c *requestCounts) open(from *callerSeries, kind answerKind) *answerSeries {
	c.mu.Lock()
	defer c.mu.Unlock()
	answeredBy := "proxy"
	if kind.upstream {
		answeredBy = "upstream"
	}
	status, who := statusLabel(kind.status), c.labels(from.caller)
	to := &answerSeries{
		total:    c.total.WithLabelValues(who.client, who.account, kind.method, status, answeredBy),
		duration: c.duration.WithLabelValues(who.account, answeredBy),
	}
	if status != other {
		answers := maps.Clone(*from.answers.Load())
		answers[kind] = to
		from.answers.Store(&answers)
	}
	return to
}

// forget ends the series of clients and accounts that are configured no more.
func (c *requestCounts) forget(gone *names) {
	c.mu.Lock()
	defer c.mu.Unlock()
	callers := maps.Clone(*c.callers.Load())
	maps.DeleteFunc(callers, func(who caller, _ *callerSeries) bool { return gone.clients[who.client] || gone.accounts[who.account] })
	c.callers.Store(&callers)
	vectors := []interface{ DeletePartialMatch(prometheus.Labels) int }{
		c.total, c.duration, c.upstream, c.waiting, c.replays, c.doubtful, c.kept, // of which each has one of the two labels, or both
	}
	for _, vector := range vectors {
		for client := range gone.clients {
			vector.DeletePartialMatch(prometheus.Labels{"client": client})
		}
		for account := range gone.accounts {
			vector.DeletePartialMatch(prometheus.Labels{"account": account})
		}
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
