// Package tracing sends spans to an OpenTelemetry collector, by OTLP over HTTP in protobuf
// (https://opentelemetry.io/docs/specs/otlp/#otlphttp).
//
// Its vocabulary is OpenTelemetry's: a span is a piece of work with a beginning and an end, a trace all spans of one
// request, a collector whoever takes them.
//
// Two decisions a reader would question:
//   - Package proxy makes its spans by OpenTelemetry's API alone; the SDK behind it is known here only.
//   - The spans are posted by a client of our own. OpenTelemetry's, otlptracehttp, links gRPC into the program, reads its
//     settings from the environment beside our configuration, and tries each batch again for a minute.
package tracing

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"net/url"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

const (
	// queue is how many ended spans may wait to be sent; more are dropped. At about 1 KB each that is 4 MB at most.
	queue = 4096
	// batch is how many are sent at once, and batchWait how long the first of them waits for others.
	batch     = 512
	batchWait = time.Second
	// exportPatience is how long the collector may take for a batch.
	exportPatience = 10 * time.Second
	// flushPatience is what is waited at the end for the last spans to be sent.
	flushPatience = 2 * time.Second
)

// Config is what a Provider is made of.
type Config struct {
	Endpoint *url.URL    // http or https; /v1/traces is appended unless it ends so
	Headers  http.Header // sent with each batch, such as a key; may be nil
	Sample   float64     // the part, 0 to 1, of the traces begun here that is sent; a client's own are sent if it says so
	Version  string      // of the program
	// Observe is told when batches begin to get lost, with the reason, and when one arrives again, with nil. It must not wait.
	Observe func(error)
	// Complaint is told what else OpenTelemetry finds wrong, such as a malformed OTEL_RESOURCE_ATTRIBUTES. It must not wait.
	Complaint func(error)
}

// Provider makes spans and sends them in the background. What cannot be sent is dropped: nobody who makes spans ever waits.
type Provider struct {
	spans  *sdk.TracerProvider
	client *client
}

// New makes a Provider, which dials when there is something to send. A process makes one: OpenTelemetry, which would write its complaints
// to standard error, has one place for them.
func New(c Config) *Provider {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(c.Complaint))
	sender := newClient(c)
	exporter := otlptrace.NewUnstarted(sender)
	_ = exporter.Start(context.Background()) // the client has nothing to start
	return &Provider{
		client: sender,
		spans: sdk.NewTracerProvider(
			sdk.WithResource(about(c.Version)), // joined with OTEL_RESOURCE_ATTRIBUTES
			sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(c.Sample))),
			sdk.WithBatcher(exporter, sdk.WithMaxQueueSize(queue), sdk.WithMaxExportBatchSize(batch),
				sdk.WithBatchTimeout(batchWait), sdk.WithExportTimeout(exportPatience)),
		),
	}
}

// about is what every span says of this process.
func about(version string) *resource.Resource {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	attributes := []attribute.KeyValue{
		semconv.ServiceName("freeagent-proxy"), semconv.ServiceVersion(version), semconv.ServiceInstanceID(hex.EncodeToString(id[:])),
	}
	if host, err := os.Hostname(); err == nil {
		attributes = append(attributes, semconv.HostName(host))
	}
	return resource.NewWithAttributes(semconv.SchemaURL, attributes...)
}

// Tracer makes the spans.
func (p *Provider) Tracer() trace.Tracer { return p.spans.Tracer("freeagent-proxy") }

// Close sends what is left, for 2 s at most. It does not wait for a collector that did not take the last batch.
func (p *Provider) Close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushPatience)
	defer cancel()
	if p.client.lost() {
		p.client.hangUp()
	}
	_ = p.spans.Shutdown(ctx) // the client reports what it could not send
	p.client.hangUp()
}
