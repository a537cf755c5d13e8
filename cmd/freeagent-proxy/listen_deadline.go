package main

import (
	"net"
	"sync"
	"time"
)

// lazyConn is a program's connection whose write deadline is moved on only now and then. Each answer gets a deadline of its
// own, and net/http takes it off again behind it; to the kernel's poller these would be two changes of a timer for every request.
type lazyConn struct {
	net.Conn
	slack time.Duration // how much later than asked for a write may end

	mu    sync.Mutex
	asked time.Time // the deadline as it was set last
	set   time.Time // the one that the connection has: later than asked by no more than slack, if there is one
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
