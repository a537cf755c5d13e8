package limiter_test

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"

	"github.com/redis/go-redis/v9"
)

// wire is a TCP proxy that can hold back all that is sent through it, as a network does that is cut: connections stay, and
// nothing arrives.
type wire struct {
	listener net.Listener
	server   string

	mu    sync.Mutex
	open  chan struct{} // closed while it forwards
	conns []net.Conn
}

func newWire(t *testing.T, server string) *wire {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: listener, server: server, open: make(chan struct{})}
	close(w.open)
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
		w.mend()
		w.mu.Lock()
		for _, c := range w.conns {
			c.Close()
		}
		w.mu.Unlock()
		running.Wait()
	})
	return w
}

// carry forwards one direction. That an end is closed is passed on even while nothing else is, as it is by proxies.
func (w *wire) carry(to, from net.Conn) {
	chunks := make(chan []byte, 1000)
	var writing sync.WaitGroup
	writing.Go(func() {
		for chunk := range chunks {
			w.mu.Lock()
			open := w.open
			w.mu.Unlock()
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
	to.Close()
	close(chunks)
	writing.Wait()
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = make(chan struct{})
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.open:
	default:
		close(w.open)
	}
}

// One replica of three is cut off, and goes on with its share; the others leave it that. No window holds too much.
func TestFleetPartition(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := newWire(t, server.Addr())
	addresses := []string{w.listener.Addr().String(), server.Addr(), server.Addr()}
	f := newFleet(t, 3, func() redis.UniversalClient {
		address := addresses[0]
		addresses = addresses[1:]
		return redis.NewClient(&redis.Options{Addr: address, ContextTimeoutEnabled: true, MaxRetries: -1})
	})
	lonely := f.members[0]
	until(t, "all know of all", func() bool {
		return lonely.Replicas() == 3 && f.members[1].Replicas() == 3 && f.members[2].Replicas() == 3
	})
	for _, m := range f.members {
		f.load(m, 15)
	}
	cycle := fleetWindows[1].Per + guard
	time.Sleep(3 * time.Second)
	w.cut()
	cut := time.Now()
	until(t, "counts alone", func() bool { return lonely.State() == "alone" })
	time.Sleep(3 * cycle)
	mended := time.Now()
	alone := f.taken(lonely, cut.Add(cycle), mended)
	w.mend()
	until(t, "counts in Redis again", func() bool { return lonely.State() == "linked" })
	time.Sleep(cycle)
	f.end()
	f.check()
	if want := 2 * fleetWindows[1].Requests / 3; alone < want*8/10 || alone > want+fleetWindows[1].Requests/3 {
		t.Errorf("%d permits while it was cut off, want about %d", alone, want)
	}
	if used := f.used(cut.Add(cycle), mended); used < 0.9 {
		t.Errorf("%.1f %% of the budget were used while one was cut off", 100*used)
	}
	if n := f.refused.Load(); n > 0 {
		t.Errorf("%d were refused", n)
	}
	if n := f.silences.Load(); n != 2 {
		t.Errorf("%d replicas told that one is silent, want 2", n)
	}
}
