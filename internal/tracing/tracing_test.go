package tracing_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"

	"freeagent-proxy/internal/tracing"
)

// What is for the collector, its key above all, goes nowhere that an answer names.
func TestRedirectedSpansGoNowhere(t *testing.T) {
	var asked, strayed atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
	t.Cleanup(elsewhere.Close)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Api-Key") != "k" {
			t.Errorf("the collector got %v, want its key", r.Header)
		}
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(collector.Close)
	endpoint, err := url.Parse(collector.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := tracing.New(tracing.Config{
		Endpoint: endpoint, Headers: http.Header{"Api-Key": {"k"}}, Sample: 1, Version: "test",
		Observe: func(error) {}, Complaint: func(error) {},
	})
	_, span := p.Tracer().Start(t.Context(), "GET /v2/company")
	span.End()
	p.Close(t.Context())
	if asked.Load() == 0 || strayed.Load() != 0 {
		t.Errorf("the collector was asked %d times, and who it pointed to %d times, want never", asked.Load(), strayed.Load())
	}
}
