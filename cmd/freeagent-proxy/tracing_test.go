package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"freeagent-proxy/internal/porttest"
	"freeagent-proxy/internal/simulator"
)

// traced is a proxy that sends its spans to a collector.
type traced struct {
	*world
	*collector
	process *process
	client  *http.Client
	proxy   string
}

// newTraced starts one, which sends to the address if one is given, else to a collector that works.
func newTraced(t *testing.T, c *collector, address, settings string) *traced {
	t.Helper()
	if c != nil {
		address = c.url
	}
	w := newSimulated(t, simNoLimits, settings+fmt.Sprintf("tracing: {otlp_endpoint: %q, headers_env: COLLECTOR_HEADERS}\n", address))
	w.env = append(w.env, "COLLECTOR_HEADERS=api-key="+mark+"-collector%2Ckey,x-scope=tests", "OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=tests")
	w.authorise(w.sim.Authorize("owner"))
	p, url := w.serve()
	return &traced{w, c, p, w.client(false), url}
}

// ask sends a request under an id, with headers as name, value, and returns its status.
func (r *traced) ask(id, method, target string, headers ...string) int {
	r.world.t.Helper()
	req, err := http.NewRequest(method, r.proxy+target, strings.NewReader(""))
	if err != nil {
		r.world.t.Fatal(err)
	}
	if method == http.MethodPost {
		req, _ = http.NewRequest(method, r.proxy+target, strings.NewReader(`{"invoice":{"contact":"`+mark+`"}}`))
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("X-Request-Id", id)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.world.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// logged waits for the access log's line of a request.
func (r *traced) logged(id string) (line struct {
	TraceID string `json:"trace_id"`
}) {
	r.world.t.Helper()
	found, err := r.process.await(&r.process.stderr, `(?m)^(.*"request_id":"`+id+`".*)$`)
	if err == nil {
		err = json.Unmarshal([]byte(found[1]), &line)
	}
	if err != nil {
		r.world.t.Fatal(err)
	}
	return line
}

// Each request is a span, and what took its time are spans below it.
func TestTracing(t *testing.T) {
	t.Parallel()
	r := newTraced(t, newCollector(t), "", "limits: {api: [{requests: 4, per: 1500ms}], guard: 0s}\n")
	const secret = mark + "-in-a-request"
	const theirs = "0af7651916cd43dd8448eb211c80319c"
	r.ask("plain", "GET", "/v2/company?token="+secret, "X-Secret", secret, "Cookie", secret, "User-Agent", secret, "X-Api-Key", secret)
	r.ask("continued", "GET", "/accounts/acme/v2/invoices/123.xml", "traceparent", "00-"+theirs+"-b7ad6b7169203331-01", "tracestate", "vendor=1")
	r.ask("keyed", "POST", "/v2/invoices", "Idempotency-Key", secret)
	crowd := r.crowd()
	r.ask("strange", "GET", "/etc/passwd")

	root, below := r.traceOf("plain")
	if got := spanNames(append(below, root)); got != "GET /v2/company, GET /v2/company" || root.Kind != tracepb.Span_SPAN_KIND_SERVER || below[0].Kind != tracepb.Span_SPAN_KIND_CLIENT {
		t.Errorf("a plain request: %s", got)
	}
	for key, want := range map[string]string{
		"http.request.method": "GET", "http.route": "/v2/company", "url.path": "/v2/company", "freeagent_proxy.client": "anonymous",
		"freeagent_proxy.account": account, "freeagent_proxy.answered_by": "upstream",
	} {
		if got := root.text(key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if root.number("http.response.status_code") != 200 || below[0].number("http.response.status_code") != 200 || below[0].text("server.address") != "127.0.0.1" {
		t.Errorf("got %v and %v", root, below)
	}
	if root.about("service.name") != "freeagent-proxy" || root.about("service.version") != version || len(root.about("service.instance.id")) != 32 || root.about("deployment.environment.name") != "tests" {
		t.Errorf("the process: got %v", root.resource)
	}
	if got := r.logged("plain").TraceID; got != root.trace() || len(root.ParentSpanId) != 0 {
		t.Errorf("the log has trace %q, the span %q; parent %x", got, root.trace(), root.ParentSpanId)
	}

	root, below = r.traceOf("continued")
	if root.trace() != theirs || fmt.Sprintf("%x", root.ParentSpanId) != "b7ad6b7169203331" || root.TraceState != "vendor=1" || r.logged("continued").TraceID != theirs {
		t.Errorf("a client's own trace is not continued: %v", root)
	}
	if got := spanNames(append(below, root)); got != "GET /v2/invoices/{id}, GET /v2/invoices/{id}" {
		t.Errorf("got %s", got)
	}
	if _, below = r.traceOf("keyed"); spanNames(below) != "claim idempotency key, wait for turn, POST /v2/invoices" {
		t.Errorf("a create under a key: got %s", spanNames(below))
	}
	r.waited(crowd)
	if root, below = r.traceOf("strange"); root.Name != "GET" || len(below) != 0 || root.text("http.route") != "" {
		t.Errorf("a refused request: %v, below it %s", root, spanNames(below))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.headers.Get("api-key") != mark+"-collector,key" || r.headers.Get("x-scope") != "tests" {
		t.Errorf("the collector got %v", r.headers)
	}
	if raw := r.raw.String(); strings.Contains(raw, mark) || strings.Contains(raw, tokenBegin) {
		t.Error("a span has a secret")
	}
}

// crowding is how many requests are made at a time, more than may be.
const crowding = 6

// crowd makes them, and returns how long the slowest took.
func (r *traced) crowd() time.Duration {
	began := time.Now()
	var all sync.WaitGroup
	for i := range crowding {
		all.Go(func() { r.ask(fmt.Sprint("crowd-", i), "GET", "/v2/company") })
	}
	all.Wait()
	return time.Since(began)
}

// waited expects a span of those who waited for their turn, as long as that took.
func (r *traced) waited(most time.Duration) {
	r.world.t.Helper()
	longest := time.Duration(0)
	for i := range crowding {
		_, below := r.traceOf(fmt.Sprint("crowd-", i))
		switch names := spanNames(below); names {
		case "GET /v2/company":
		case "wait for permit, GET /v2/company":
			longest = max(longest, time.Duration(below[0].EndTimeUnixNano-below[0].StartTimeUnixNano))
		default:
			r.world.t.Errorf("request %d over the limit: got %s", i, names)
		}
	}
	if longest < 10*time.Millisecond || longest > most {
		r.world.t.Errorf("who waited longest did so for %s, want %s at most", longest, most)
	}
}

// What a replay is for, and that FreeAgent hears nothing of our traces.
func TestTracingReplays(t *testing.T) {
	t.Parallel()
	r := newTraced(t, newCollector(t), "", noLimits)
	r.ask("first", "GET", "/v2/company")
	r.sim.RevokeAccess("owner")
	r.ask("cured", "GET", "/v2/company", "Traceparent", "rubbish")
	if _, err := r.sim.Fault(simulator.Fault{Kind: simulator.FaultRateLimited, RetryAfter: 1, Match: simulator.Match{Times: 1}}); err != nil {
		t.Fatal(err)
	}
	r.ask("paced", "GET", "/v2/company")

	_, below := r.traceOf("cured")
	if spanNames(below) != "GET /v2/company, wait for token, GET /v2/company" {
		t.Fatalf("after a 401: %s", spanNames(below))
	}
	if first, second := below[0], below[2]; first.number("http.response.status_code") != 401 || first.Status.Code != tracepb.Status_STATUS_CODE_ERROR ||
		second.number("http.response.status_code") != 200 || second.number("http.request.resend_count") != 1 || second.text("freeagent_proxy.replay_reason") != "401" {
		t.Errorf("after a 401: %v, %v", first, second)
	}
	root, below := r.traceOf("paced")
	if spanNames(below) != "GET /v2/company, wait for permit, GET /v2/company" || below[2].text("freeagent_proxy.replay_reason") != "429" {
		t.Errorf("after a 429: %s", spanNames(below))
	}
	if root.number("http.response.status_code") != 200 || root.number("freeagent_proxy.attempts") != 2 || root.Status.GetCode() != tracepb.Status_STATUS_CODE_UNSET {
		t.Errorf("after a 429: %v", root)
	}
	for _, arrived := range r.arrivals() {
		if got := arrived.Header.Get("Traceparent"); got != "" && got != "rubbish" {
			t.Errorf("FreeAgent hears of trace %q", got)
		}
	}
}

// What OpenTelemetry complains of is in the log, as all else is.
func TestTracingComplaints(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, "tracing: {otlp_endpoint: http://127.0.0.1:9}\n")
	w.env = append(w.env, "OTEL_RESOURCE_ATTRIBUTES=rubbish,=,%zz=%zz", "OTEL_BSP_MAX_QUEUE_SIZE=rubbish", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=rubbish", "OTEL_TRACES_SAMPLER=rubbish")
	p, _ := w.serve()
	if _, err := p.await(&p.stderr, `"warn".*OpenTelemetry complains`); err != nil {
		t.Fatal(err)
	}
}

// What is in the queue at the end arrives.
func TestTracingFlushesAtTheEnd(t *testing.T) {
	t.Parallel()
	r := newTraced(t, newCollector(t), "", "")
	r.ask("last", "GET", "/v2/company")
	if code, err := r.process.stop(syscall.SIGTERM); err != nil || code != exitOK {
		t.Fatalf("exit code %d, %v", code, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.spans) != 2 {
		t.Errorf("got %s", spanNames(r.spans))
	}
}

// A collector that refuses, hangs or is not there costs requests and the end nothing, and the log has one line.
func TestTracingWithoutCollector(t *testing.T) {
	t.Parallel()
	const lost = "spans are lost"
	hanging, refusing := newCollector(t), newCollector(t)
	hanging.hangs = make(chan struct{})
	defer close(hanging.hangs)
	refusing.refuses.Store(true)
	running := map[string]*traced{
		"hanging": newTraced(t, hanging, "", ""), "refusing": newTraced(t, refusing, "", ""), "none": newTraced(t, nil, "http://"+porttest.Address(t), ""),
	}
	for name, r := range running {
		began := time.Now()
		for range 20 {
			if status := r.ask("x", "GET", "/v2/company"); status != http.StatusOK {
				t.Errorf("%s: status %d", name, status)
			}
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: 20 requests took %s", name, took)
		}
	}
	for _, name := range []string{"refusing", "none"} {
		if _, err := running[name].process.await(&running[name].process.stderr, `"warn".*`+lost); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a second batch", func() bool { running["refusing"].ask("x", "GET", "/v2/company"); return refusing.asked.Load() > 1 })
	refusing.refuses.Store(false)
	eventually(t, "spans that arrive again", func() bool {
		running["refusing"].ask("x", "GET", "/v2/company")
		return strings.Contains(running["refusing"].process.stderr.String(), "takes spans again")
	})
	eventually(t, "a batch that hangs", func() bool { return hanging.asked.Load() > 0 })
	for name, r := range running {
		began := time.Now()
		code, err := r.process.stop(syscall.SIGTERM)
		if took := time.Since(began); err != nil || code != exitOK || took > 5*time.Second {
			t.Errorf("%s: exit code %d, %v, after %s", name, code, err, took)
		}
		if got := strings.Count(r.process.stderr.String(), lost); got > 1 || got == 0 && name != "hanging" {
			t.Errorf("%s: %d lines of lost spans", name, got)
		}
	}
}

// Without an endpoint nothing is dialled, whatever OpenTelemetry's own variables say, and the log has no trace.
func TestTracingIsOffByDefault(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	w := newSimulated(t, simNoLimits, "")
	w.env = append(w.env, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.url, "OTEL_TRACES_EXPORTER=otlp", "OTEL_BSP_SCHEDULE_DELAY=1")
	w.authorise(w.sim.Authorize("owner"))
	p, url := w.serve()
	r := &traced{w, c, p, w.client(false), url}
	r.ask("off", "GET", "/v2/company", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if got := r.logged("off").TraceID; got != "" {
		t.Errorf("the log has trace %q", got)
	}
	if code, err := p.stop(syscall.SIGTERM); err != nil || code != exitOK {
		t.Fatalf("exit code %d, %v", code, err)
	}
	if c.asked.Load() != 0 {
		t.Error("the collector was asked")
	}
	if got := r.arrivals(); len(got) != 1 || got[0].Header.Get("Traceparent") == "" {
		t.Error("the client's traceparent does not pass as it does for any header")
	}
}

// Headers are written as OpenTelemetry's OTEL_EXPORTER_OTLP_HEADERS has them; what cannot be sent is a problem that repeats nothing.
func TestTracingHeaders(t *testing.T) {
	const settings = "tracing: {otlp_endpoint: http://collector.internal:4318, headers_env: HEADERS}"
	read := func(text string) (Config, error) {
		return fromFile("config.yaml", []byte(settings+minimalConfig), fakeEnv("HEADERS="+text))
	}
	for _, text := range []string{"secret", "secret=", "=secret", "a b=secret", "key=secret%zz", "key=secret%0d%0aX: y", "a=secret,,c=d", "key=secret\x00"} {
		if _, err := read(text); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v", text, err)
		}
	}
	c, err := read("api-key=abc%20d, x-scope = e=f")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := parseHeaders(c.Tracing.Headers.Reveal()); got.Get("Api-Key") != "abc d" || got.Get("X-Scope") != "e=f" {
		t.Errorf("got %v", got)
	}
	if len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "plain text") {
		t.Errorf("a key that travels in plain text: notes %q", c.Notes)
	}
}
