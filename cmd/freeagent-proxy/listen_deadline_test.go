package main

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// timedConn counts how often its deadlines are really set.
type timedConn struct {
	net.Conn
	sets     int // for writing
	readSets atomic.Int64
}

func (c *timedConn) SetReadDeadline(t time.Time) error {
	c.readSets.Add(1)
	return c.Conn.SetReadDeadline(t)
}

func (c *timedConn) SetWriteDeadline(t time.Time) error {
	c.sets++
	return c.Conn.SetWriteDeadline(t)
}

// newLazyConn is one end of a connection whose other end reads nothing unless the test does.
func newLazyConn(t *testing.T, slack time.Duration) (*lazyConn, *timedConn, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	far, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	timed := &timedConn{Conn: near}
	return &lazyConn{Conn: timed, slack: slack}, timed, far
}

// What net/http and package proxy do for each answer costs no change of the deadline, but now and then.
func TestDeadlineIsSetSeldom(t *testing.T) {
	t.Parallel()
	c, timed, far := newLazyConn(t, time.Hour)
	go func() {
		for buffer := make([]byte, 1024); ; {
			if _, err := far.Read(buffer); err != nil {
				return
			}
		}
	}()
	for range 100 {
		_ = c.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := c.Write([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		_ = c.SetWriteDeadline(time.Time{})
	}
	if timed.sets != 1 {
		t.Errorf("the deadline was set %d times for 100 answers, want once", timed.sets)
	}
}

// A write ends after its deadline, and no later than that and the slack: also one that follows many in time.
func TestDeadlineHolds(t *testing.T) {
	t.Parallel()
	const patience, slack = 400 * time.Millisecond, 200 * time.Millisecond
	c, _, _ := newLazyConn(t, slack)
	for range 3 {
		_ = c.SetWriteDeadline(time.Now().Add(patience))
		_, _ = c.Write([]byte("answer"))
		_ = c.SetWriteDeadline(time.Time{})
		time.Sleep(slack / 2)
	}
	began := time.Now()
	_ = c.SetWriteDeadline(began.Add(patience))
	fill(t, c)
	if took := time.Since(began); took < patience || took > patience+slack+time.Second {
		t.Errorf("the write ended after %s, want %s to %s", took, patience, patience+slack)
	}
}

// A deadline that is taken off does not end a later write.
func TestDeadlineIsTakenOff(t *testing.T) {
	t.Parallel()
	c, timed, _ := newLazyConn(t, time.Millisecond)
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	_, _ = c.Write([]byte("answer"))
	_ = c.SetWriteDeadline(time.Time{})
	time.Sleep(50 * time.Millisecond)
	if _, err := c.Write([]byte("answer")); err != nil {
		t.Error(err)
	}
	if timed.sets != 2 {
		t.Errorf("the deadline was set %d times, want 2: on and off", timed.sets)
	}
}

// A deadline that is brought forward ends a write that is under way.
func TestDeadlineIsBroughtForward(t *testing.T) {
	t.Parallel()
	c, _, _ := newLazyConn(t, time.Second)
	began := time.Now()
	_ = c.SetWriteDeadline(began.Add(time.Minute))
	time.AfterFunc(100*time.Millisecond, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	fill(t, c)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the write ended after %s", took)
	}
}

// What net/http does for each request costs two changes of the deadline: one that ends the read by which it learns whether the
// client leaves, and one for the next request to come.
func TestReadDeadlineIsSetSeldom(t *testing.T) {
	t.Parallel()
	const requests = 20
	c, timed, far := newLazyConn(t, 0)
	for range requests {
		if _, err := far.Write([]byte("request")); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Minute)) // idle
		if _, err := c.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second)) // its header
		_ = c.SetReadDeadline(time.Time{})
		ended := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
		_ = c.SetReadDeadline(time.Unix(1, 0))
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the read ended with %v", err)
		}
		_ = c.SetReadDeadline(time.Time{})
	}
	if sets := timed.readSets.Load(); sets > 2*requests {
		t.Errorf("the deadline was set %d times for %d requests, want twice for each", sets, requests)
	}
}

// A read ends after its deadline, whatever the one was that was set before, and whether or not it had begun by then.
func TestReadDeadlineHolds(t *testing.T) {
	t.Parallel()
	const patience = 200 * time.Millisecond
	for _, before := range []time.Duration{0, patience / 4, time.Minute} {
		for _, begun := range []bool{false, true} {
			c, _, far := newLazyConn(t, 0)
			if before > 0 {
				request(t, c, far, before)
			}
			began := time.Now()
			if begun {
				_ = c.SetReadDeadline(time.Time{})
				time.AfterFunc(patience/2, func() { _ = c.SetReadDeadline(began.Add(patience)) })
			} else {
				_ = c.SetReadDeadline(began.Add(patience))
			}
			_, err := c.Read(make([]byte, 100))
			if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took < patience || took > patience+5*time.Second {
				t.Errorf("after one of %s, set while reading: %t: the read ended after %s with %v, want %s", before, begun, took, err, patience)
			}
		}
	}
}

// A read is not ended by a deadline that was taken off, also one that came to pass.
func TestReadDeadlineIsTakenOff(t *testing.T) {
	t.Parallel()
	c, _, far := newLazyConn(t, 0)
	request(t, c, far, 20*time.Millisecond)
	_ = c.SetReadDeadline(time.Time{})
	time.AfterFunc(100*time.Millisecond, func() { _, _ = far.Write([]byte("more")) })
	if n, err := c.Read(make([]byte, 100)); n != len("more") || err != nil {
		t.Errorf("%d bytes were read, and %v", n, err)
	}
}

// request sends one, and reads it before a deadline if the machine lets it; else after that.
func request(t *testing.T, c *lazyConn, far net.Conn, before time.Duration) {
	t.Helper()
	if _, err := far.Write([]byte("request")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(before))
	_, err := c.Read(make([]byte, 100))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = c.SetReadDeadline(time.Time{})
		_, err = c.Read(make([]byte, 100))
		_ = c.SetReadDeadline(time.Now().Add(before))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// fill writes until the deadline ends it.
func fill(t *testing.T, c net.Conn) {
	t.Helper()
	for buffer := make([]byte, 1<<20); ; {
		_, err := c.Write(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
