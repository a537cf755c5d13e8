package proxy_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"freeagent-proxy/proxy"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"freeagent-proxy/limiter"
	"freeagent-proxy/tokens"
)

// BenchmarkCost is what the proxy's own code costs a request, beside a bare httputil.ReverseProxy: no sockets, an upstream
// that answers at once.
func BenchmarkCost(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	b.Run("bare", func(b *testing.B) {
		measure(b, &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(mustURL("http://127.0.0.1:1"))
				r.Out.Header.Set("Authorization", "Bearer a")
			},
			Transport:  instant{},
			BufferPool: &pooled{sync.Pool{New: func() any { return new([32 << 10]byte) }}},
		})
	})
	b.Run("proxy", func(b *testing.B) { measure(b, benchProxy(b)) })
}

type pooled struct{ pool sync.Pool }

func (b *pooled) Get() []byte  { return b.pool.Get().(*[32 << 10]byte)[:] }
func (b *pooled) Put(p []byte) { b.pool.Put((*[32 << 10]byte)(p)) }

func benchProxy(b *testing.B) http.Handler {
	b.Helper()
	limits, err := limiter.NewLocal(limiter.Config{Guard: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	store, err := tokens.OpenFile(tokens.FileConfig{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	manager := tokens.New(tokens.Config{
		Store:    store,
		Endpoint: tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: mustURL("http://127.0.0.1:1"), Timeout: time.Second}),
		App:      func(string) (tokens.App, bool) { return tokens.App{ClientID: "id", ClientSecret: "secret"}, true },
	})
	now := time.Now()
	err = manager.Put(context.Background(), tokens.Grant{
		Account: account, AccessToken: "a", RefreshToken: "r", ObtainedAt: now, ExpiresAt: now.Add(time.Hour),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = manager.Close(context.Background())
		_ = limits.Close()
		_ = store.Close()
	})
	many := []limiter.Window{{Requests: 1 << 20, Per: time.Minute}, {Requests: 1 << 20, Per: time.Hour}}
	p := proxy.New(proxy.Config{
		Upstream: mustURL("http://127.0.0.1:1"), Timeout: 75 * time.Second, Version: "test",
		Accounts: []proxy.Account{{Name: account, API: many, Default: true}},
		MaxWait:  20 * time.Second, Egress: many[:1], Sealer: sealer(), Tokens: manager, Limiter: limits,
		Log: zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.InfoLevel)),
	})
	proxy.SetTransport(p, instant{})
	return p
}

var company = append(append([]byte(`{"company":"`), bytes.Repeat([]byte("x"), 2000)...), `"}`...)

// instant is an upstream that answers at once.
type instant struct{}

func (instant) RoundTrip(r *http.Request) (*http.Response, error) {
	if t := httptrace.ContextClientTrace(r.Context()); t != nil {
		if t.GotConn != nil {
			t.GotConn(httptrace.GotConnInfo{})
		}
		if t.WroteRequest != nil {
			t.WroteRequest(httptrace.WroteRequestInfo{})
		}
	}
	return &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: r,
		ContentLength: int64(len(company)),
		Header: http.Header{
			"Content-Type": {"application/json; charset=utf-8"}, "Content-Length": {strconv.Itoa(len(company))},
			"Date": {"Thu, 26 Nov 2026 09:00:00 GMT"},
		},
		Body: io.NopCloser(bytes.NewReader(company)),
	}, nil
}

// sink is a client's end.
type sink struct {
	header http.Header
	n      int
}

func (s *sink) Header() http.Header              { return s.header }
func (s *sink) WriteHeader(int)                  {}
func (s *sink) Write(p []byte) (int, error)      { s.n += len(p); return len(p), nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) Flush()                           {}

func measure(b *testing.B, handler http.Handler) {
	b.ReportAllocs()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for b.Loop() {
		r := (&http.Request{
			Method: http.MethodGet, URL: mustURL("/v2/company"), RequestURI: "/v2/company", Host: "127.0.0.1:8080",
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "127.0.0.1:4711",
			Header: http.Header{"User-Agent": {"bench"}, "Accept": {"application/json"}}, Body: http.NoBody,
		}).WithContext(ctx)
		s := &sink{header: http.Header{}}
		handler.ServeHTTP(s, r)
		if s.n != len(company) {
			b.Fatalf("got %d bytes, want %d", s.n, len(company))
		}
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := func(u *syscall.Rusage) int64 { return u.Utime.Nano() + u.Stime.Nano() }
	b.ReportMetric(float64(cpu(&after)-cpu(&before))/float64(b.N), "cpu-ns/op")
}
