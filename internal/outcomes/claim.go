package outcomes

import (
	"context"
	"fmt"
	"time"
)

// Claim is the right to send the one request of a name, and the duty to say what became of it. Its methods are for one
// goroutine. None of them depends on whether the client is still there.
type Claim struct {
	book *Book
	turn chan struct{} // holds one while the store is at this record: steps must not overtake one another
	left bool          // the store knows that the request may have been sent

	// All below is written with Book.mu held, and by the Claim's own goroutine but for told.
	record  record
	told    time.Time // when the store last heard of it
	settled bool
	dropped bool // the record is to be removed
}

// Leave must be called before each sending: the first time it returns nil when the store has, durably, that the
// request may have been sent. Else the request must not be sent: ErrRunning, another replica has it; ErrUnavailable.
func (c *Claim) Leave() error {
	if c.left {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	r := c.step(sent, Answer{})
	err := c.book.try(ctx, func() error { _, err := c.book.store.put(ctx, r); return err })
	c.book.note(err)
	switch {
	case err == nil:
		c.left = true
		return nil
	case isTaken(err):
		return fmt.Errorf("%w: %w", ErrRunning, err)
	default:
		c.book.refuse(r)
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

// Keep settles the claim: this is the answer, now and for Life. When it returns the store has it, unless that is away.
func (c *Claim) Keep(answer Answer) {
	if answer.Cut || len(answer.Body) > MaxBody {
		answer.Body, answer.Cut = nil, true
	}
	c.settle(done, answer)
}

// Doubt settles the claim: FreeAgent may have acted.
func (c *Claim) Doubt() { c.settle(unknown, Answer{}) }

// Drop settles the claim: FreeAgent did not act, and the name is free.
func (c *Claim) Drop() {
	if c.settled {
		return
	}
	c.book.mu.Lock()
	c.settled, c.dropped = true, true
	c.book.mu.Unlock()
	c.store()
}

// End settles the claim if nothing else has: as Drop if it never left, else as Doubt.
func (c *Claim) End() {
	if c.left {
		c.Doubt()
	} else {
		c.Drop()
	}
}

func (c *Claim) settle(s state, answer Answer) {
	if c.settled {
		return
	}
	c.turn <- struct{}{}
	c.step(s, answer)
	<-c.turn
	c.store()
}

// step brings the record into its next state, and returns what the store is to be told. The turn is held.
func (c *Claim) step(s state, answer Answer) *record {
	next := c.record
	next.state, next.answer, next.at, next.units = s, answer, time.Now(), 0
	next.seal(c.book.cfg.Sealer)
	switch s {
	case sent:
		next.units = 1
	case done:
		next.units = units(len(next.sealed)) - 1
	}
	c.book.mu.Lock()
	defer c.book.mu.Unlock()
	c.record, c.told, c.settled = next, next.at, s >= done
	return &next
}

// store offers a settled claim to the store; if that does not take it now, the Book goes on.
func (c *Claim) store() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	c.offered(c.offer(ctx))
}

// offered notes how the store did. That it let go of a record does not say that it takes any. The turn is held.
func (c *Claim) offered(err error) {
	if err != nil {
		c.book.refuse(&c.record)
	}
	if err != nil || !c.dropped {
		c.book.note(err)
	}
}

// offer writes or removes the record of a settled claim. The turn is held.
func (c *Claim) offer(ctx context.Context) error {
	b := c.book
	b.mu.Lock()
	r, dropped, here := c.record, c.dropped, b.held[c.record.id] == c
	b.mu.Unlock()
	if !here {
		return nil
	}
	err := b.try(ctx, func() (err error) {
		if dropped {
			return b.store.forget(ctx, &r)
		}
		_, err = b.store.put(ctx, &r)
		return err
	})
	if err != nil && !isTaken(err) { // taken: another record has come to stay, after the store had lost this one
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.held, r.id)
	if !dropped && err == nil && b.store.lease() > 0 {
		b.recent.add(r)
	}
	return nil
}
