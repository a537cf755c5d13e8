package tracing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	collected "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// client posts batches. It is what OpenTelemetry's exporter hands them to.
type client struct {
	url     string
	headers http.Header
	observe func(error)
	http    *http.Client
	ctx     context.Context // ends what is being sent
	hangUp  context.CancelFunc

	mu      sync.Mutex
	failing bool      // the last batch got lost
	began   time.Time // when the one that is being sent began; else zero
}

// tracesPath is where a collector takes spans, below the endpoint's own path (OTLP specification, "OTLP/HTTP Request").
const tracesPath = "/v1/traces"

func newClient(c Config) *client {
	made := &client{url: tracesURL(c.Endpoint), headers: c.Headers, observe: c.Observe}
	made.ctx, made.hangUp = context.WithCancel(context.Background())
	made.http = &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: exportPatience}).DialContext,
			TLSHandshakeTimeout: exportPatience,
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     time.Minute,
			ForceAttemptHTTP2:   true,
		},
		// The headers may hold a key, which is for one place.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return made
}

func tracesURL(endpoint *url.URL) string {
	whole := *endpoint
	whole.Path = strings.TrimSuffix(whole.Path, "/")
	if !strings.HasSuffix(whole.Path, tracesPath) {
		whole.Path += tracesPath
	}
	return whole.String()
}

// Start does nothing: the first batch dials.
func (c *client) Start(context.Context) error { return nil }

// Stop ends with the collector.
func (c *client) Stop(context.Context) error {
	c.hangUp()
	c.http.CloseIdleConnections()
	return nil
}

// UploadTraces sends a batch. It never fails: OpenTelemetry would write each error to standard error.
func (c *client) UploadTraces(ctx context.Context, spans []*collected.ResourceSpans) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	c.begin()
	err := c.post(ctx, spans)
	if changed := c.end(err); changed {
		c.observe(err)
	}
	return nil
}

func (c *client) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = time.Now()
}

// end reports whether a batch fared otherwise than the one before. That the last ones got lost is no news.
func (c *client) end(err error) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began = time.Time{}
	if err != nil && c.ctx.Err() != nil {
		return false
	}
	changed = c.failing != (err != nil)
	c.failing = err != nil
	return changed
}

// lost says that there is no use in waiting for the collector: it did not take the last batch, or has had one for long.
func (c *client) lost() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failing || !c.began.IsZero() && time.Since(c.began) > flushPatience
}

// maxAnswer is how much of the collector's answer is read so that the connection can be used again.
const maxAnswer = 64 << 10

// post sends a batch once. TracesData is, on the wire, the collector's ExportTraceServiceRequest, whose own package comes
// with a gRPC server.
func (c *client) post(ctx context.Context, spans []*collected.ResourceSpans) error {
	body, err := proto.Marshal(&collected.TracesData{ResourceSpans: spans})
	if err != nil {
		return fmt.Errorf("encode spans: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("send spans: %w", err)
	}
	if c.headers != nil {
		req.Header = c.headers.Clone()
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", "freeagent-proxy")
	resp, err := c.http.Do(req)
	if err != nil {
		return sendError(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("send spans: the collector answered %d", resp.StatusCode)
	}
	return nil
}

// sendError leaves the URL out, which may have a part that is a key.
func sendError(err error) error {
	if outer := (*url.Error)(nil); errors.As(err, &outer) {
		err = outer.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s", exportPatience)
	}
	return fmt.Errorf("send spans: %w", err)
}
