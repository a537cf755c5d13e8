package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
)

// countedConn knows how much was written to it. Go's transport tells that a request failed, but of a kept-alive
// connection that FreeAgent closed just then not always whether a byte of it had left.
type countedConn struct {
	net.Conn
	written atomic.Int64
}

// Write counts all of b as written until it is known how much was: who looks meanwhile must not think that nothing was.
func (c *countedConn) Write(b []byte) (int, error) {
	c.written.Add(int64(len(b)))
	n, err := c.Conn.Write(b)
	if n < len(b) {
		c.written.Add(int64(n - len(b)))
	}
	return n, err
}

func counting(dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: conn}, nil
	}
}

// counted is the countedConn below a connection; nil if there is none.
func counted(conn net.Conn) *countedConn {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	c, _ := conn.(*countedConn)
	return c
}
