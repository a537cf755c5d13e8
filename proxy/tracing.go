package proxy

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// traced is the trace of one request: a span of its own, and one below it for each thing that takes time. A nil traced, which
// all requests have when tracing is off, does nothing and costs nothing.
//
// A span says what the access log says, and no more: no query, no header, no body.
type traced struct {
	tracer trace.Tracer
	ctx    context.Context // with span in it
	span   trace.Span
	method string
	route  string // see routeOf; empty: what was asked for is not FreeAgent's API
}

// Attributes for what OpenTelemetry's semantic conventions have no name for.
const (
	attrClient     = attribute.Key("freeagent_proxy.client")
	attrAccount    = attribute.Key("freeagent_proxy.account")
	attrRequestID  = attribute.Key("freeagent_proxy.request_id")
	attrAnsweredBy = attribute.Key("freeagent_proxy.answered_by") // upstream or proxy
	attrReason     = attribute.Key("freeagent_proxy.reason")
	attrAttempts   = attribute.Key("freeagent_proxy.attempts")
	attrReplayed   = attribute.Key("freeagent_proxy.replay_reason") // what became of the attempt before: a status, or "connection"
)

// trace begins the trace of a request, within the one that its client names in traceparent (https://www.w3.org/TR/trace-context/).
func (p *Proxy) trace(x *exchange, r *http.Request) {
	t := &traced{tracer: p.config.Tracer, method: r.Method}
	if target, err := parseTarget(r.RequestURI); err == nil {
		t.route = routeOf(target.path)
	}
	if !slices.Contains(methods, t.method) {
		t.method = "_OTHER"
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	attributes := append(make([]attribute.KeyValue, 0, 6),
		semconv.HTTPRequestMethodKey.String(t.method), semconv.URLScheme(scheme), semconv.URLPath(clipped(x.path)), attrRequestID.String(x.requestID),
		semconv.NetworkProtocolVersion(strconv.Itoa(r.ProtoMajor)+"."+strconv.Itoa(r.ProtoMinor)))
	if t.route != "" {
		attributes = append(attributes, semconv.HTTPRoute(t.route))
	}
	parent := propagation.TraceContext{}.Extract(context.Background(), traceHeaders(r.Header))
	t.ctx, t.span = t.tracer.Start(parent, t.name(),
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(x.began), trace.WithAttributes(attributes...))
	x.traced = t
}

// maxAttribute bounds what a client can put into a span, which is kept until it is sent.
const maxAttribute = 512

// clipped is a text of bounded length, in UTF-8 as the protocol wants it, which holds on to no other: a path does to the whole
// request-target.
func clipped(s string) string {
	return strings.Clone(strings.ToValidUTF8(s[:min(len(s), maxAttribute)], "\uFFFD"))
}

// name is a span's, of which there must be few different ones.
func (t *traced) name() string {
	method := t.method
	if method == "_OTHER" {
		method = "HTTP"
	}
	if t.route == "" {
		return method
	}
	return method + " " + t.route
}

// id is the trace's, for the log.
func (t *traced) id() string { return t.span.SpanContext().TraceID().String() }

// end says what became of the request.
func (t *traced) end(x *exchange) {
	if t == nil {
		return
	}
	if t.span.IsRecording() {
		answeredBy := "proxy"
		if x.upstream {
			answeredBy = "upstream"
		}
		if x.status != 0 {
			t.span.SetAttributes(semconv.HTTPResponseStatusCode(x.status))
		}
		t.span.SetAttributes(attrAnsweredBy.String(answeredBy), attrAttempts.Int(x.attempts))
		for _, a := range []attribute.KeyValue{attrClient.String(x.client), attrAccount.String(x.account), attrReason.String(clipped(x.reason))} {
			if a.Value.AsString() != "" {
				t.span.SetAttributes(a)
			}
		}
		if x.status >= http.StatusInternalServerError {
			t.span.SetStatus(codes.Error, "")
			t.span.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(x.status)))
		}
	}
	t.span.End()
}

// recording reports whether spans are made: not if tracing is off, or the trace is not among those that are sampled.
func (t *traced) recording() bool { return t != nil && t.span.IsRecording() }

// step is a span below a request's. The zero step is one of a request of which no spans are made.
type step struct{ span trace.Span }

// step begins a span.
func (t *traced) step(name string) step {
	if !t.recording() {
		return step{}
	}
	_, span := t.tracer.Start(t.ctx, name)
	return step{span}
}

func (s step) end() {
	if s.span != nil {
		s.span.End()
	}
}

// attemptStep begins the span of an attempt, with what made it necessary if it is a replay.
func (s *sending) attemptStep() step {
	t := s.x.traced
	if !t.recording() {
		return step{}
	}
	upstream := s.p.config.Upstream
	attributes := append(make([]attribute.KeyValue, 0, 8),
		semconv.HTTPRequestMethodKey.String(t.method), semconv.URLTemplate(t.route), semconv.URLScheme(upstream.Scheme), semconv.ServerAddress(upstream.Hostname()))
	if port, err := strconv.Atoi(upstream.Port()); err == nil {
		attributes = append(attributes, semconv.ServerPort(port))
	}
	if s.x.attempts > 1 {
		attributes = append(attributes, semconv.HTTPRequestResendCount(s.x.attempts-1), attrReplayed.String(s.replayReason()))
	}
	_, span := t.tracer.Start(t.ctx, t.name(), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	return step{span}
}

// answered says with which status FreeAgent answered an attempt.
func (s step) answered(status int) {
	if s.span == nil {
		return
	}
	s.span.SetAttributes(semconv.HTTPResponseStatusCode(status))
	if status >= http.StatusBadRequest {
		s.failed(strconv.Itoa(status))
	}
}

// failed says what went wrong, in one of a few words.
func (s step) failed(kind string) {
	if s.span != nil {
		s.span.SetStatus(codes.Error, "")
		s.span.SetAttributes(semconv.ErrorTypeKey.String(kind))
	}
}

// replayReason is what makes a replay necessary: the status of the answer before, or that there was none.
func (s *sending) replayReason() string {
	if s.replayed == 0 {
		return "connection"
	}
	return strconv.Itoa(s.replayed)
}

const (
	maxRouteSegments = 8
	maxRouteSegment  = 40
)

// routeOf is a path without what tells one record from another, as in /v2/invoices/{id}/transitions/mark_as_sent. FreeAgent's
// words have no digits.
func routeOf(path string) string {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	if len(segments) > maxRouteSegments {
		segments = append(segments[:maxRouteSegments], "…")
	}
	for i, s := range segments {
		if i > 0 && s != "…" && !isWord(s) { // the first one is v2
			segments[i] = "{id}"
		}
	}
	return "/" + strings.Join(segments, "/")
}

func isWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != '_' && c != '-' && c != '.' && !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			return false
		}
	}
	return len(s) <= maxRouteSegment
}

// maxTraceState is the longest tracestate that is taken in, which goes into each span: what every participant must take
// (https://www.w3.org/TR/trace-context/#tracestate-limits).
const maxTraceState = 512

// traceHeaders are a client's headers as OpenTelemetry reads them. What is not as the standard has it is as if it was not there.
type traceHeaders http.Header

// Get is traceparent, of which there may be one, or tracestate, which may be in several parts.
func (h traceHeaders) Get(key string) string {
	switch lines := h[http.CanonicalHeaderKey(key)]; {
	case key == "traceparent" && len(lines) == 1:
		return lines[0]
	case key == "tracestate":
		if state := strings.Join(lines, ","); len(state) <= maxTraceState {
			return state
		}
	}
	return ""
}

// Set and Keys are not used: nothing of ours goes upstream.
func (h traceHeaders) Set(string, string) {}

// Keys is none.
func (h traceHeaders) Keys() []string { return nil }
