package simulator

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server is a simulator on a real listener.
type Server struct {
	url    string
	http   *http.Server
	stop   context.CancelFunc // ends what waits inside requests
	served chan struct{}      // closed when no connection is accepted any more
	conns  sync.WaitGroup
	root   *x509.Certificate
}

// Start listens on addr ("127.0.0.1:0" for a free port) and serves HTTP/1.1 and
// unencrypted HTTP/2 with prior knowledge.
func (s *Simulator) Start(addr string) (*Server, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("start simulator: %w", err)
	}
	srv := &Server{url: "http://" + listener.Addr().String()}
	srv.serve(s, listener)
	return srv, nil
}

// StartTLS is Start with TLS, HTTP/2 included, and a certificate of its own for
// localhost and the loopback addresses, which Root lets a client trust.
func (s *Simulator) StartTLS(addr string) (*Server, error) {
	cert, err := newCertificate()
	if err != nil {
		return nil, fmt.Errorf("start simulator: make certificate: %w", err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}
	listener, err := tls.Listen("tcp", addr, config)
	if err != nil {
		return nil, fmt.Errorf("start simulator: %w", err)
	}
	srv := &Server{url: "https://" + listener.Addr().String(), root: cert.Leaf}
	srv.serve(s, listener)
	return srv, nil
}

// URL is the address without a trailing slash.
func (srv *Server) URL() string { return srv.url }

// Root is the certificate that clients of StartTLS must trust; nil after Start.
func (srv *Server) Root() *x509.Certificate { return srv.root }

// Close stops listening, drops all connections and waits for what runs on them.
func (srv *Server) Close() error {
	err := srv.http.Close()
	srv.stop() // only now, or what waits would still answer
	<-srv.served
	srv.conns.Wait()
	return err
}

func (srv *Server) serve(s *Simulator, listener net.Listener) {
	ctx, stop := context.WithCancel(context.Background())
	ctx = context.WithValue(ctx, lifeKey{}, ctx.Done())
	srv.stop, srv.served = stop, make(chan struct{})
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	srv.http = &http.Server{
		Handler:           s,
		Protocols:         protocols,
		ReadHeaderTimeout: 60 * time.Second,
		IdleTimeout:       75 * time.Second, // nginx's keepalive_timeout
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withWire,
		ConnState:         srv.connState,
	}
	go func() {
		defer close(srv.served)
		if err := srv.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			stop()
		}
	}()
}

// connState counts connections. StateNew comes from Serve's own goroutine, so
// that none begins once Close has seen Serve return.
func (srv *Server) connState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		srv.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		srv.conns.Done()
	}
}

// newCertificate makes a self-signed certificate that is good for a day.
func newCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
