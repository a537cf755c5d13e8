package main

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// timedConn counts how often its deadline is really set.
type timedConn struct {
	net.Conn
	sets int
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
