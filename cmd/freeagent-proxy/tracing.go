package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"freeagent-proxy/internal/tracing"
)

// openTracing makes what sends spans, if they are to be sent anywhere.
func (s *server) openTracing() {
	c := s.config().Tracing
	if c.OTLPEndpoint == nil {
		return
	}
	headers, _ := parseHeaders(c.Headers.Reveal()) // validated when the configuration was loaded
	s.tracing = tracing.New(tracing.Config{
		Endpoint: c.OTLPEndpoint, Headers: headers, Sample: c.Sample, Version: version, Observe: observeTracing(s.log),
		Complaint: func(err error) {
			s.log.Warn("OpenTelemetry complains; requests are not affected. See to the variables that begin with OTEL_", zap.Error(err))
		},
	})
}

// tracer is nil if tracing is off: not an interface with nil in it.
func (s *server) tracer() trace.Tracer {
	if s.tracing == nil {
		return nil
	}
	return s.tracing.Tracer()
}

// closeTracing sends the last spans. It comes when all else is done, and has its own short time.
func (s *server) closeTracing(ctx context.Context) {
	if s.tracing != nil {
		s.tracing.Close(context.WithoutCancel(ctx))
	}
}

// observeTracing tells when spans begin to get lost, and when they arrive again.
func observeTracing(log logbook) func(error) {
	return func(err error) {
		if err == nil {
			log.Info("the collector takes spans again")
			return
		}
		log.Warn("spans are lost, since the collector does not take them; requests are not affected. See to it, or to tracing in the configuration", zap.Error(err))
	}
}

func (c Config) validateTracing(p *problems) {
	const key = "tracing.otlp_endpoint"
	u := c.Tracing.OTLPEndpoint
	if u != nil && (u.Scheme != "http" && u.Scheme != "https" || !bare(&url.URL{Scheme: u.Scheme, Host: u.Host}) || *u != url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}) {
		p.add(key, "must be http:// or https://, the collector's host, perhaps port and path, such as http://127.0.0.1:4318; a key belongs in tracing.headers_env or headers_file")
	}
	if !(c.Tracing.Sample >= 0 && c.Tracing.Sample <= 1) { // also not NaN
		p.add("tracing.sample", "must be from 0 to 1, the part of the requests that is traced")
	}
	text := c.Tracing.Headers.Reveal()
	if text == "" {
		return
	}
	if _, err := parseHeaders(text); err != nil {
		p.add(p.given("tracing.headers_env", "tracing.headers_file"), "%s", err)
	}
	if u != nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		p.note(key, "the headers, which may hold a key, travel in plain text; https:// keeps them from others on the way")
	}
}

var (
	headerName  = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	headerValue = regexp.MustCompile(`^[!-~]([ -~]*[!-~])?$`)
)

// parseHeaders reads headers as OTEL_EXPORTER_OTLP_HEADERS has them: name=value, joined by commas, values percent-encoded
// where they must be. Its error repeats none of it.
func parseHeaders(text string) (http.Header, error) {
	headers := http.Header{}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if err != nil || !headerName.MatchString(name) || !headerValue.MatchString(value) {
			return nil, errors.New("must hold headers as name=value, several joined by commas, such as api-key=…; a comma or % in a value is written %2C or %25")
		}
		headers.Add(name, value)
	}
	return headers, nil
}
