package main

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector takes spans by OTLP over HTTP, as an OpenTelemetry collector does.
type collector struct {
	t       *testing.T
	url     string
	refuses atomic.Bool   // with 503
	hangs   chan struct{} // until this is closed; nil: it does not
	asked   atomic.Int32

	mu      sync.Mutex
	spans   []arrived
	headers http.Header // of the last batch
	raw     strings.Builder
}

// arrived is a span that did.
type arrived struct {
	*tracepb.Span
	resource []*commonpb.KeyValue
}

func newCollector(t *testing.T) *collector {
	c := &collector{t: t}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.asked.Add(1)
	body, err := io.ReadAll(r.Body)
	var data tracepb.TracesData
	if err == nil {
		err = proto.Unmarshal(body, &data)
	}
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		c.t.Errorf("the collector got %s %s of %q: %v", r.Method, r.URL, r.Header, err)
	}
	if c.hangs != nil {
		<-c.hangs
	}
	if c.refuses.Load() {
		http.Error(w, "come again later", http.StatusServiceUnavailable)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers = r.Header
	c.raw.Write(body)
	for _, resource := range data.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, arrived{s, resource.Resource.Attributes})
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// traceOf waits for a request's own span, which ends last, and returns it with those of the same process below it, in the order in
// which they began.
func (c *collector) traceOf(requestID string) (root arrived, below []arrived) {
	c.t.Helper()
	eventually(c.t, "the span of "+requestID, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.IndexFunc(c.spans, func(s arrived) bool { return s.text("freeagent_proxy.request_id") == requestID })
		if i < 0 {
			return false
		}
		root, below = c.spans[i], nil
		for _, s := range c.spans {
			if string(s.ParentSpanId) == string(root.SpanId) && string(s.TraceId) == string(root.TraceId) {
				below = append(below, s)
			}
		}
		return true
	})
	slices.SortStableFunc(below, func(a, b arrived) int { return int(int64(a.StartTimeUnixNano) - int64(b.StartTimeUnixNano)) })
	return root, below
}

// text is an attribute, "" if there is none.
func (s arrived) text(key string) string { return attributeText(s.Attributes, key) }

// about is an attribute of the process.
func (s arrived) about(key string) string { return attributeText(s.resource, key) }

// number is one that is a number, 0 if there is none.
func (s arrived) number(key string) int64 {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetIntValue()
		}
	}
	return 0
}

func (s arrived) trace() string { return hex.EncodeToString(s.TraceId) }

func attributeText(attributes []*commonpb.KeyValue, key string) string {
	for _, a := range attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

func spanNames(spans []arrived) string {
	var all []string
	for _, s := range spans {
		all = append(all, s.Name)
	}
	return strings.Join(all, ", ")
}
