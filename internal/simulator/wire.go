package simulator

import (
	"context"
	"encoding/binary"
	"net"
	"sync/atomic"
	"time"
)

// wire is the connection of a request, for faults that net/http has no words for.
type wire struct {
	net.Conn
	requests atomic.Uint32 // that came on it
}

// wireKey finds it in a request's context; it is not there without a Server.
type wireKey struct{}

func withWire(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, wireKey{}, &wire{Conn: conn})
}

func (c *call) wire() *wire {
	w, _ := c.r.Context().Value(wireKey{}).(*wire)
	return w
}

// goAway ends the connection as a server does that restarts. In HTTP/2 it says by GOAWAY (RFC 9113, section 6.8) whether this
// request was processed: streams above the last one that it names were not. It counts them, so that it is right for
// connections on which requests come one after another. In HTTP/1.1 there is no such word. It does not return.
func (c *call) goAway(acted bool) {
	w := c.wire()
	if w == nil || c.r.ProtoMajor != 2 {
		hangUp()
	}
	last := 2*c.stream - 1 // clients' streams are 1, 3, 5 …
	if !acted {
		last = max(last, 2) - 2
	}
	frame := []byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // 8 bytes of type 7, on no stream; no error
	binary.BigEndian.PutUint32(frame[9:], last)
	_, _ = w.Write(frame) // a client that has gone reads no error
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // all of it would reset the connection, and the client might never read the frame
	}
	hangUp()
}

// resetAfter resets the connection when d has passed, whatever is on it then.
func (c *call) resetAfter(d time.Duration) {
	w := c.wire()
	if w == nil {
		return
	}
	time.AfterFunc(d, func() { resetConn(w.Conn) })
}

// resetConn closes a connection with RST.
func resetConn(conn net.Conn) {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // without it the connection is closed all the same
	}
	_ = conn.Close()
}
