package main

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// lazyConn is a program's connection whose deadlines are changed only when they must be. net/http sets six for reading for each
// request (for its header, while the answer is made, while the connection is idle), and package proxy one for writing, which
// net/http takes off again behind the answer; to the kernel's poller each would be a change of a timer. One of the six ends a read.
type lazyConn struct {
	net.Conn
	slack time.Duration // how much later than asked for a write may end

	mu    sync.Mutex
	asked time.Time // the deadline of writes as it was set last
	set   time.Time // the one that the connection has: later than asked by no more than slack, if there is one

	// For reads, of which there is one at a time. The connection's deadline is never later than the one asked for. A read that it
	// ends too early goes on.
	reading   bool
	readAsked time.Time
	readSet   time.Time
	readEnded bool // by readSet: it must be set anew
}

// SetReadDeadline takes effect at once if it brings the deadline of a read forward that is under way, else when there is a read
// that needs it.
func (c *lazyConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readAsked = t
	if c.reading && c.readsTooLong() {
		return c.applyRead()
	}
	return nil
}

// readsTooLong reports whether the connection's deadline is later than the one asked for. c.mu is held.
func (c *lazyConn) readsTooLong() bool {
	return !c.readAsked.IsZero() && (c.readSet.IsZero() || c.readAsked.Before(c.readSet))
}

func (c *lazyConn) applyRead() error {
	c.readSet, c.readEnded = c.readAsked, false
	return c.Conn.SetReadDeadline(c.readSet)
}

// Read reads within the deadline that was last set.
func (c *lazyConn) Read(p []byte) (int, error) {
	for {
		if err := c.beginRead(); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(p)
		if c.endRead(err) {
			return n, err
		}
	}
}

func (c *lazyConn) beginRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readEnded || c.readsTooLong() {
		if err := c.applyRead(); err != nil {
			return err
		}
	}
	c.reading = true
	return nil
}

// endRead reports whether a read is over: not if a deadline ended it that was not asked for any more.
func (c *lazyConn) endRead(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	if err == nil {
		return true
	}
	c.readEnded = true
	if c.readAsked.Equal(c.readSet) || !errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	return !c.readAsked.IsZero() && time.Until(c.readAsked) <= 0
}

// SetWriteDeadline takes effect at once where it brings the deadline forward, which may end a write that is under way, else
// at the next write.
func (c *lazyConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = t
	if t.IsZero() || !c.set.IsZero() && !t.Before(c.set.Add(-c.slack)) {
		return nil
	}
	return c.apply(t)
}

// SetDeadline is for both directions.
func (c *lazyConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// Write writes within the deadline that was last set.
func (c *lazyConn) Write(p []byte) (int, error) {
	if err := c.ready(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// ready sets the deadline anew if it is not the one that was asked for, give or take the slack.
func (c *lazyConn) ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked.IsZero() == c.set.IsZero() && !c.asked.After(c.set) {
		return nil
	}
	if c.asked.IsZero() {
		c.set = time.Time{}
		return c.Conn.SetWriteDeadline(c.set)
	}
	return c.apply(c.asked)
}

// apply sets a deadline, with some slack for later ones to need nothing. c.mu is held.
func (c *lazyConn) apply(t time.Time) error {
	c.set = t
	if time.Until(t) > 0 {
		c.set = t.Add(c.slack)
	}
	return c.Conn.SetWriteDeadline(c.set)
}

// CloseWrite closes our half of the connection, by which net/http lets a client read a refusal before it sees a reset.
func (c *lazyConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
