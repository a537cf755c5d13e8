package main

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// gate is a listener with a bound on its open connections. At the bound the next one waits in the system's queue, rather
// than being turned away, and meanwhile connections make room: idle ones are closed, and the others after their answer.
type gate struct {
	net.Listener
	server *http.Server
	open   chan struct{} // holds one for each open connection, and one for the next
	closed chan struct{}
	once   sync.Once
	log    *zap.Logger
	warned time.Time     // used by Accept alone
	slack  time.Duration // of write deadlines
	full   string        // what the log says at the bound

	connected atomic.Int64 // open connections
}

// defaultConnections is how many connections each listener may have if nothing else is configured.
const defaultConnections = 10_000

// unsent is what the system may hold of an answer for a client that has not taken it yet, in bytes; some systems double it. A write goes
// on when about a third of it is free again, and to get there is all that a slow client has to do within a write's deadline: a third of
// the megabytes to which Linux lets it grow would take a client of 15 KB/s longer than upstream.timeout, though it never stopped.
const unsent = 128 << 10

// maxConnections is how many connections each listener may have: what is configured, and no more than fit into half of
// the limit of open files. The other half is for connections to FreeAgent, bodies on disk and the stores.
func (s *server) maxConnections() int {
	most := s.config().MaxConnections
	if fit := s.config().fitting(); fit < most {
		level := zap.WarnLevel
		if most == defaultConnections {
			level = zap.InfoLevel // nobody asked for so many
		}
		s.log.Log(level, "the limit of open files is too low for max_connections, so fewer are taken; raise it (LimitNOFILE= in systemd, ulimit -n), or lower max_connections",
			zap.Int("max_connections", most), zap.Int("taken", fit))
		return fit
	}
	return most
}

// fitting is how many connections each listener may have by half of the limit of open files.
func (c Config) fitting() int { return max(1, openFiles()/2/c.listeners()) }

// listeners is how many there are for programs, if each socket that systemd passed is used.
func (c Config) listeners() int {
	n := len(c.Listen)
	if slices.ContainsFunc(c.Listen, isInherited) {
		n += max(0, c.Inherited.number()-1)
	}
	for _, client := range c.Clients {
		if client.Listen != "" {
			n++
		}
	}
	return n
}

// bounded puts a gate before the server's connections.
func (s *server) bounded(listener net.Listener, server *http.Server, most int) *gate {
	g := &gate{Listener: listener, server: server, open: make(chan struct{}, most), closed: make(chan struct{}), log: s.log.Logger,
		slack: s.config().Upstream.Timeout / 8,
		full:  "as many connections are open as may be; more wait until some end. Raise max_connections, or look for programs that do not close theirs"}
	server.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			g.connected.Add(-1)
			<-g.open
		}
	}
	return g
}

// Accept waits until there is room, then for the next connection.
func (g *gate) Accept() (net.Conn, error) {
	if err := g.enter(); err != nil {
		return nil, err
	}
	conn, err := g.Listener.Accept()
	if err != nil {
		<-g.open
		return nil, err
	}
	g.connected.Add(1)
	if sized, ok := conn.(interface{ SetWriteBuffer(int) error }); ok {
		_ = sized.SetWriteBuffer(unsent) // else it is as large as the system has it
	}
	return &lazyConn{Conn: conn, slack: g.slack}, nil
}

func (g *gate) enter() error {
	select {
	case g.open <- struct{}{}:
		return nil
	default:
	}
	if time.Since(g.warned) > time.Minute {
		g.warned = time.Now()
		g.log.Warn(g.full, zap.String("listen", g.Addr().String()), zap.Int("open", cap(g.open)))
	}
	g.server.SetKeepAlivesEnabled(false)
	defer g.server.SetKeepAlivesEnabled(true)
	select {
	case g.open <- struct{}{}:
		return nil
	case <-g.closed:
		return net.ErrClosed
	}
}

// Close ends Accept, too.
func (g *gate) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.Listener.Close()
}
