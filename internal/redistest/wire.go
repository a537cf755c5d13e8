package redistest

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
)

// Wire is a TCP relay before a server that can hold back all that is sent through it, as a network does that is cut: connections stay,
// and nothing arrives.
type Wire struct {
	listener net.Listener
	server   string

	mu    sync.Mutex
	open  chan struct{} // closed while it forwards
	whole chan struct{} // closed while ends of connections are passed on
	conns []net.Conn
}

// NewWire starts a relay to an address, which forwards. It ends with the test.
func NewWire(t testing.TB, server string) *Wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{listener: listener, server: server, open: make(chan struct{}), whole: make(chan struct{})}
	close(w.open)
	close(w.whole)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				near.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, near, far)
			w.mu.Unlock()
			running.Go(func() { w.carry(far, near) })
			running.Go(func() { w.carry(near, far) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		w.Mend()
		w.mu.Lock()
		for _, c := range w.conns {
			c.Close()
		}
		w.mu.Unlock()
		running.Wait()
	})
	return w
}

// Addr is where it listens.
func (w *Wire) Addr() string { return w.listener.Addr().String() }

// carry forwards one direction.
func (w *Wire) carry(to, from net.Conn) {
	chunks := make(chan []byte, 1000)
	var writing sync.WaitGroup
	writing.Go(func() {
		for chunk := range chunks {
			open, _ := w.state()
			<-open
			if _, err := to.Write(chunk); err != nil {
				continue // until from ends
			}
		}
	})
	data := make([]byte, 64<<10)
	for {
		n, err := from.Read(data)
		if err != nil {
			break
		}
		chunks <- slices.Clone(data[:n])
	}
	_, whole := w.state()
	<-whole
	to.Close()
	close(chunks)
	writing.Wait()
}

func (w *Wire) state() (open, whole chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open, w.whole
}

// Jam holds back what is sent. That a connection was closed is passed on all the same, as it is by a proxy.
func (w *Wire) Jam() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = make(chan struct{})
}

// Cut holds back everything.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open, w.whole = make(chan struct{}), make(chan struct{})
}

// Mend forwards again, first what was held back.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, held := range []chan struct{}{w.open, w.whole} {
		select {
		case <-held:
		default:
			close(held)
		}
	}
}

// Detour is for a client's Dialer: it connects to other addresses than it is asked for, where there are any.
type Detour map[string]string

// Dial is net.Dialer's DialContext.
func (d Detour) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if other, ok := d[addr]; ok {
		addr = other
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}
