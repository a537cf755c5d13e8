package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
	"freeagent-proxy/tokens"
)

// recorded traces a rig's requests.
func recorded(sampler sdk.Sampler) (*tracetest.SpanRecorder, func(*proxy.Config)) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder), sdk.WithSampler(sdk.ParentBased(sampler)))
	return recorder, func(c *proxy.Config) { c.Tracer = provider.Tracer("test") }
}

// ended waits for so many spans.
func ended(t *testing.T, recorder *tracetest.SpanRecorder, n int) []sdk.ReadOnlySpan {
	t.Helper()
	soon(t, fmt.Sprintf("%d spans have ended", n), func() bool { return len(recorder.Ended()) == n })
	return recorder.Ended()
}

const theirTrace = "0af7651916cd43dd8448eb211c80319c"

// A trace that a client names is continued, as it was begun: sampled or not. What is not as the W3C has it is ignored.
func TestTraceparent(t *testing.T) {
	t.Parallel()
	const parent = "traceparent: 00-" + theirTrace + "-b7ad6b7169203331"
	big := strings.Repeat("x", 300)
	for name, c := range map[string]struct {
		headers []string
		theirs  bool
		sampled bool
		state   string
	}{
		"none":               {nil, false, true, ""},
		"sampled":            {[]string{parent + "-01"}, true, true, ""},
		"not sampled":        {[]string{parent + "-00"}, true, false, ""},
		"with a state":       {[]string{parent + "-01", "tracestate: a=1", "tracestate: b=2"}, true, true, "a=1,b=2"},
		"a later version":    {[]string{"traceparent: cc-" + theirTrace + "-b7ad6b7169203331-01-what-the-future-will-be-like"}, true, true, ""},
		"version ff":         {[]string{"traceparent: ff-" + theirTrace + "-b7ad6b7169203331-01"}, false, true, ""},
		"two":                {[]string{parent + "-01", parent + "-01"}, false, true, ""},
		"no trace":           {[]string{"traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01"}, false, true, ""},
		"no span":            {[]string{"traceparent: 00-" + theirTrace + "-0000000000000000-01"}, false, true, ""},
		"upper case":         {[]string{"traceparent: 00-" + strings.ToUpper(theirTrace) + "-b7ad6b7169203331-01"}, false, true, ""},
		"rubbish":            {[]string{"traceparent: ' OR 1=1 --", "tracestate: \x80\xff=,,,;"}, false, true, ""},
		"empty":              {[]string{"traceparent: ", "tracestate: "}, false, true, ""},
		"a state alone":      {[]string{"tracestate: a=1"}, false, true, ""},
		"a state of rubbish": {[]string{parent + "-01", "tracestate: =,=,="}, true, true, ""},
		"a state too long":   {[]string{parent + "-01", "tracestate: a=" + big[:200], "tracestate: b=" + big[:200], "tracestate: c=" + big[:200]}, true, true, ""},
	} {
		recorder, tracing := recorded(sdk.AlwaysSample())
		r, u := withUpstream(t, always(reply(200, "{}")), tracing)
		r.get("/v2/company", c.headers...).passed(t, 200, "{}")
		for _, header := range c.headers { // it passes as any header does; nothing of ours does
			if key, _, _ := strings.Cut(header, ":"); !strings.Contains(strings.ToLower(u.only().head), "\r\n"+key+":") {
				t.Errorf("%s: %q did not go upstream", name, header)
			}
		}
		if c.headers == nil && strings.Contains(strings.ToLower(u.only().head), "trace") {
			t.Errorf("%s: FreeAgent hears of a trace: %s", name, u.only().head)
		}
		if !c.sampled {
			if got := recorder.Ended(); len(got) != 0 {
				t.Errorf("%s: %d spans", name, len(got))
			}
			soon(t, "the log's line", func() bool { return strings.Contains(r.log.String(), `"trace_id":"`+theirTrace) })
			continue
		}
		root := ended(t, recorder, 2)[1]
		if theirs := root.SpanContext().TraceID().String() == theirTrace; theirs != c.theirs || root.Parent().IsValid() != c.theirs {
			t.Errorf("%s: trace %s below %s", name, root.SpanContext().TraceID(), root.Parent().SpanID())
		}
		if got := root.SpanContext().TraceState().String(); got != c.state {
			t.Errorf("%s: state %q, want %q", name, got, c.state)
		}
	}
}

// Names of spans are few, whatever clients ask for, and nothing of a query is in one.
func TestSpanNames(t *testing.T) {
	t.Parallel()
	recorder, tracing := recorded(sdk.AlwaysSample())
	r, _ := withUpstream(t, always(reply(200, "{}")), tracing)
	long := strings.Repeat("a", 41)
	for i, c := range []struct{ method, target, want string }{
		{"GET", "/v2/invoices", "GET /v2/invoices"},
		{"PUT", "/v2/invoices/17/transitions/mark_as_sent", "PUT /v2/invoices/{id}/transitions/mark_as_sent"},
		{"GET", "/v2//invoices/17?access_token=secret", "GET /v2/invoices/{id}"},
		{"GET", "/accounts/acme/v2/invoices/17/", "GET /v2/invoices/{id}"},
		{"GET", "http://api.freeagent.com/v2/users/me", "GET /v2/users/me"},
		{"GET", "/v2/" + long + "/J%C3%BCrgen", "GET /v2/{id}/{id}"},
		{"GET", "/v2/a/b/c/d/e/f/g/h/i/j", "GET /v2/a/b/c/d/e/f/g/…"},
		{"GET", "/wp-login.php?x=secret", "GET"},
		{"GET", "/v2/../etc", "GET"},
		{"BREW", "/v2/coffee", "HTTP /v2/coffee"},
		{"GET", "/v2/\xff\xfe", "GET /v2/{id}"},
	} {
		id := fmt.Sprintf("name-%d", i)
		r.do(c.method, c.target, "", "X-Request-Id: "+id)
		var root sdk.ReadOnlySpan
		soon(t, "a span for "+c.target, func() bool {
			all := recorder.Ended()
			i := slices.IndexFunc(all, func(s sdk.ReadOnlySpan) bool { return attributes(s)["freeagent_proxy.request_id"] == id })
			if i >= 0 {
				root = all[i]
			}
			return i >= 0
		})
		if root.Name() != c.want {
			t.Errorf("%s %s: got %q, want %q", c.method, c.target, root.Name(), c.want)
		}
	}
	r.get("/v2/"+strings.Repeat("long/", 1000)).passed(t, 200, "{}")
	soon(t, "the span of a long path", func() bool {
		all := recorder.Ended()
		return len(attributes(all[len(all)-1])["url.path"]) == 512
	})
	for _, s := range recorder.Ended() {
		if path := attributes(s)["url.path"]; !utf8.ValidString(path) {
			t.Errorf("%q cannot be sent", path)
		}
		if text := fmt.Sprint(s.Name(), s.Attributes(), s.Events(), s.Status()); strings.Contains(text, "secret") {
			t.Errorf("a query is in span %s", text)
		}
	}
}

func attributes(s sdk.ReadOnlySpan) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes() {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

// Attempts that fail say how, and each span ends, whatever happens.
func TestSpansOfFailures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer string
		status string
		kind   string // of the last attempt's error
	}{
		"hangs up":         {"", "502", "connection_terminated"},
		"is no answer":     {"rubbish\r\n\r\n", "502", "connection_terminated"},
		"breaks off":       {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "200", "connection_terminated"},
		"is its own fault": {reply(500, "oops"), "500", "500"},
		"is 404":           {reply(404, "none"), "404", "404"},
	} {
		recorder, tracing := recorded(sdk.AlwaysSample())
		r, _ := withUpstream(t, func(q *received) bool {
			q.read()
			q.write(c.answer)
			return false
		}, tracing)
		r.dial().send(r.request("GET", "/v2/company", "", "Connection: close")).rest()
		soon(t, name+": the request's span", func() bool {
			all := recorder.Ended()
			return len(all) > 0 && all[len(all)-1].SpanKind() == trace.SpanKindServer
		})
		all := recorder.Ended()
		if started := len(recorder.Started()); started != len(all) {
			t.Errorf("%s: %d of %d spans have ended", name, len(all), started)
		}
		root := all[len(all)-1]
		if got := attributes(root)["http.response.status_code"]; got != c.status {
			t.Errorf("%s: status %s, want %s", name, got, c.status)
		}
		if failed := root.Status().Code == codes.Error; failed != strings.HasPrefix(c.status, "5") {
			t.Errorf("%s: the request's span says error: %t", name, failed)
		}
		var last sdk.ReadOnlySpan
		for _, s := range all {
			if s.SpanKind() == trace.SpanKindClient {
				last = s
			}
		}
		if got := attributes(last)["error.type"]; got != c.kind || last.Status().Code != codes.Error {
			t.Errorf("%s: the attempt's error is %q, want %q", name, got, c.kind)
		}
	}
}

// Tracing that is off is a nil check here and there.
func TestTracingThatIsOffAllocatesNothing(t *testing.T) {
	if got := testing.AllocsPerRun(100, proxy.TraceNothing); got != 0 {
		t.Errorf("%v allocations a request", got)
	}
}

// hollow is a ResponseWriter that costs nothing.
type hollow struct{ header http.Header }

func (h hollow) Header() http.Header              { return h.header }
func (h hollow) Write(p []byte) (int, error)      { return len(p), nil }
func (h hollow) WriteHeader(int)                  {}
func (h hollow) SetWriteDeadline(time.Time) error { return nil }
func (h hollow) Flush()                           {}

// What tracing costs a request, from its header to the end of its answer, with all that net/http does towards FreeAgent.
func BenchmarkTracing(b *testing.B) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	b.Cleanup(upstream.Close)
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(sdk.NewBatchSpanProcessor(tracetest.NewNoopExporter())))
	for mode, tracer := range map[string]trace.Tracer{
		"off": nil, "sampled": provider.Tracer("test"), "unsampled": sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample())).Tracer("test"),
	} {
		b.Run(mode, func(b *testing.B) {
			p := benched(b, upstream.URL, tracer)
			r := httptest.NewRequest("GET", "/v2/company", nil)
			r.Host = "localhost"
			w := hollow{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				p.ServeHTTP(w, r.WithContext(b.Context()))
			}
		})
	}
}

// benched is a proxy that logs nothing, with a good token.
func benched(b *testing.B, upstream string, tracer trace.Tracer) *proxy.Proxy {
	limits, err := limiter.NewLocal(limiter.Config{})
	if err != nil {
		b.Fatal(err)
	}
	store, err := tokens.OpenFile(tokens.FileConfig{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	manager := tokens.New(tokens.Config{Store: store, App: func(string) (tokens.App, bool) { return tokens.App{}, true }})
	now := time.Now()
	if err := manager.Put(b.Context(), tokens.Grant{Account: account, AccessToken: "a", RefreshToken: "r", ObtainedAt: now, ExpiresAt: now.Add(time.Hour), RefreshObtained: now}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = manager.Close(context.Background()), limits.Close(); _ = store.Close() })
	return proxy.New(proxy.Config{
		Upstream: mustURL(upstream), Timeout: time.Minute, Accounts: []proxy.Account{{Name: account, API: ample}}, Egress: ample,
		Sealer: sealer(), Tokens: manager, Limiter: limits, Log: zap.NewNop(), Tracer: tracer,
	})
}
