package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// What a role needs, from its environment.
const (
	certVariable     = "FREEAGENT_PROXY_BENCH_CERT" // a file with certificate and key; empty: plain HTTP
	upstreamVariable = "FREEAGENT_PROXY_BENCH_UPSTREAM"
)

// serveUpstream is FreeAgent as cheap as can be: any token, no limits, 2 KB.
func serveUpstream(ctx context.Context, cert string) error {
	company := bytes.Repeat([]byte("x"), 2<<10)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v2/token_endpoint", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"a","token_type":"bearer","expires_in":3600,"refresh_token":"r","refresh_token_expires_in":631151957}`)
	})
	mux.HandleFunc("GET /v2/company", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(len(company)))
		_, _ = w.Write(company)
	})
	mux.HandleFunc("GET /v2/stream", func(w http.ResponseWriter, r *http.Request) {
		left, _ := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
		_, _ = io.Copy(w, io.LimitReader(zeros{}, left))
	})
	mux.HandleFunc("GET /v2/list", serveList())
	created := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(len(company)))
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(company)
	}
	mux.HandleFunc("POST "+anyTime, created)
	mux.HandleFunc("POST "+oneAtATime, created)
	mux.HandleFunc("POST /v2/stream", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n)
	})
	return serve(ctx, mux, cert)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// serveBare is the yardstick: a tuned httputil.ReverseProxy that only sets a header. Without
// the BufferPool it costs 1.6 times as much, without idle connections 2.1 times.
func serveBare(ctx context.Context, base string) error {
	upstream, err := url.Parse(base)
	if err != nil {
		return fmt.Errorf("parse the upstream: %w", err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(true)
	return serve(ctx, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Header.Set("Authorization", "Bearer a")
		},
		Transport:  transport,
		BufferPool: &buffers{sync.Pool{New: func() any { return new([32 << 10]byte) }}},
	}, "")
}

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { return b.pool.Get().(*[32 << 10]byte)[:] }
func (b *buffers) Put(p []byte) { b.pool.Put((*[32 << 10]byte)(p)) }

// serve listens on a free port, prints its address, and serves until ctx ends.
func serve(ctx context.Context, handler http.Handler, cert string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	fmt.Println(listener.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if cert == "" {
		err = server.Serve(listener)
	} else {
		err = server.ServeTLS(listener, cert, cert)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}

// makeCert writes a certificate for 127.0.0.1 and its key into one file.
func makeCert(folder string) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return "", fmt.Errorf("make a certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("encode the key: %w", err)
	}
	var file bytes.Buffer
	_ = pem.Encode(&file, &pem.Block{Type: "CERTIFICATE", Bytes: cert})
	_ = pem.Encode(&file, &pem.Block{Type: "PRIVATE KEY", Bytes: private})
	path := filepath.Join(folder, "upstream.pem")
	if _, err := tls.X509KeyPair(file.Bytes(), file.Bytes()); err != nil {
		return "", fmt.Errorf("pair certificate and key: %w", err)
	}
	return path, os.WriteFile(path, file.Bytes(), 0o600)
}
