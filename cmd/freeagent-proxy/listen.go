package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

const (
	// headerPatience is how long a client may take for a request's header, or for a TLS handshake.
	headerPatience = 10 * time.Second
	// idlePatience is how long a connection may wait for its next request.
	idlePatience = 2 * time.Minute
	// maxHeader is the longest header of a request, in bytes; a longer one is answered with 431.
	maxHeader = 64 << 10
	// maxStreams is how many requests an HTTP/2 connection may carry at a time: the least that RFC 9113 recommends.
	maxStreams = 100
)

// socketMode lets owner and group connect to a unix socket. Its folder may narrow that, or choose the group.
const socketMode = 0o660

// bind makes the listeners and their servers.
func (s *server) bind() error {
	if err := s.bindPrograms(); err != nil {
		return err
	}
	admin, err := net.Listen("tcp", s.config().Admin.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; change admin.listen, or stop what uses it", s.config().Admin.Listen, err)
	}
	s.admin = admin.Addr()
	s.addOperator(admin)
	s.log.Info("serving the operator", zap.String("listen", admin.Addr().String()), zap.String("page", s.adminURL()))
	if s.config().Store.Redis.given() {
		return nil // other processes use it beside us
	}
	control, err := listenControl(s.config().Store.File)
	if lacksSockets(err) {
		s.log.Warn("this system has no unix sockets; stop the proxy before you run authorize or accounts", zap.Error(err))
		return nil
	}
	if err != nil {
		return err
	}
	s.add(control, s.newHTTP(controlHandler(writer{s.tokens, s.store}, addresses{admin.Addr().String()}, s.proxy.ForOperator())))
	return nil
}

// The operator's listener may be reached by who means no good, and has none of the programs' own bounds: nothing that it serves
// takes longer than a code that is exchanged, and its connections must not use up the open files that programs need.
const (
	operatorPatience    = 90 * time.Second // which is bounded by a minute
	operatorConnections = 1000
)

// addOperator makes the server of the operator's listener.
func (s *server) addOperator(listener net.Listener) {
	server := s.newHTTP(bodiless(s.adminHandler()))
	server.ReadTimeout, server.WriteTimeout = operatorPatience, operatorPatience
	gate := s.bounded(listener, server, min(operatorConnections, max(1, s.config().fitting()/2)))
	gate.full = "as many connections are open at admin.listen as may be; more wait until some end. See who holds them, and let only those reach it who must"
	s.operator = server
	s.add(gate, server)
}

// bodyLinger is how long the body of a request to the operator's listener may take to come.
const bodyLinger = 5 * time.Second

// bodiless answers requests that have a body, which nobody reads here, without waiting for it: net/http would, and shutting down
// would wait for net/http.
func bodiless(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			w.Header().Set("Connection", "close")
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyLinger))
		}
		handler.ServeHTTP(w, r)
	})
}

// bindPrograms opens what programs connect to.
func (s *server) bindPrograms() error {
	var err error
	if s.certificates, err = newCertificates(s.config().TLS, s.log.Logger); err != nil {
		return err
	}
	if s.config().Inherited.given() && !slices.ContainsFunc(s.config().Listen, isInherited) {
		s.log.Warn("systemd passed sockets that nobody listens on; write systemd into listen, or disable the socket unit")
	}
	most := s.maxConnections()
	for _, address := range s.config().Listen {
		listeners, err := s.open(address)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", address, err)
		}
		for _, listener := range listeners {
			s.addPrograms(listener, s.proxy, most)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.config().Clients)) {
		address := s.config().Clients[name].Listen
		if address == "" {
			continue
		}
		listener, err := listen(address)
		if err != nil {
			return fmt.Errorf("listen on %s: %w; change clients.%s.listen, or stop what uses it", address, err, name)
		}
		s.own[name] = address
		s.addPrograms(listener, s.proxy.For(name), most, zap.String("client", name))
	}
	return nil
}

// open binds an address of listen, or takes the sockets that it stands for.
func (s *server) open(address string) ([]net.Listener, error) {
	if name, ok := inheritedName(address); ok {
		return s.config().Inherited.take(name, len(s.config().Clients) > 0)
	}
	listener, err := listen(address)
	if err != nil {
		return nil, fmt.Errorf("%w; change listen, or stop what uses it", err)
	}
	return []net.Listener{listener}, nil
}

// addPrograms makes the server of a listener for programs.
func (s *server) addPrograms(listener net.Listener, handler http.Handler, most int, about ...zap.Field) {
	server := s.newHTTP(handler)
	s.speakHTTP2(server)
	secure := s.certificates != nil && listener.Addr().Network() == "tcp"
	if secure {
		server.TLSConfig = s.certificates.config()
	}
	gate := s.bounded(listener, server, most)
	s.gates = append(s.gates, gate)
	s.add(gate, server)
	s.log.Info("serving programs", append(about, zap.String("listen", listener.Addr().String()), zap.Bool("tls", secure))...)
}

// newHTTP makes the server of one listener. What a client may take its time for is bounded here for headers and idle
// connections, and in package proxy for bodies and answers.
func (s *server) newHTTP(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:                      handler,
		ReadHeaderTimeout:            headerPatience,
		IdleTimeout:                  idlePatience,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true, // `OPTIONS *` is refused as every OPTIONS is
		ErrorLog:                     s.httpLog,
	}
}

// speakHTTP2 takes HTTP/2 beside HTTP/1: by TLS where client and server agree on it, and in plain text from clients that
// begin with it (curl --http2-prior-knowledge). `Upgrade: h2c`, which RFC 9113 has dropped, is ignored.
func (s *server) speakHTTP2(server *http.Server) {
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	server.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: maxStreams,
		// A stream's deadline cannot end a write that the connection itself is stuck in.
		WriteByteTimeout: s.config().Upstream.Timeout,
	}
}

func (s *server) add(listener net.Listener, server *http.Server) {
	s.listen = append(s.listen, listener)
	s.http = append(s.http, server)
}

// serveOn serves until the server is shut down or its listener fails.
func serveOn(server *http.Server, listener net.Listener) error {
	if server.TLSConfig != nil {
		return server.ServeTLS(listener, "", "")
	}
	return server.Serve(listener)
}

// listen binds host:port or unix:/path.
func listen(address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, unixPrefix)
	if !isUnix {
		return net.Listen("tcp", address)
	}
	if err := clearSocket(path); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path) // closed, it removes its file
	if err != nil {
		return nil, err
	}
	if err := protect(path, socketMode); err != nil {
		return nil, errors.Join(fmt.Errorf("let owner and group use the socket: %w", err), listener.Close())
	}
	return listener, nil
}

// clearSocket removes a socket that a dead process left: one that refuses to be connected to. A living process's, also
// a busy one's, is left alone, and so is whatever is no socket.
func clearSocket(path string) error {
	conn, err := net.Dial("unix", path)
	if err == nil {
		_ = conn.Close()
		return errors.New("another process serves this socket")
	}
	info, gone := os.Lstat(path)
	switch {
	case errors.Is(gone, os.ErrNotExist):
		return nil
	case gone != nil:
		return gone
	case info.Mode()&os.ModeSocket == 0:
		return errors.New("what is there is no socket")
	case !refused(err):
		return fmt.Errorf("another process may serve this socket: %w", err)
	}
	return os.Remove(path)
}
