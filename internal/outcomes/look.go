package outcomes

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
)

const (
	// sweepEvery is how often the store is asked to remove what has expired.
	sweepEvery = 10 * time.Minute
	// askEvery is how often one that is in trouble is asked whether it still is.
	askEvery = time.Second
)

// look goes on offering the store what it has not taken, shows it that the owners of running requests live, and finds out
// whether it has lost what it had.
func (b *Book) look(ctx context.Context) {
	defer close(b.stopped)
	swept, probed, asked := time.Now(), time.Now(), time.Now()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		left := b.flush(ctx)
		b.renew(ctx)
		if lease := b.store.lease(); lease > 0 && (b.troubled() || time.Since(probed) > lease/3) {
			probed = time.Now()
			b.putBack(ctx)
		}
		if left == 0 && time.Since(asked) > askEvery {
			asked = time.Now()
			b.ask(ctx)
		}
		if time.Since(swept) > sweepEvery {
			swept = time.Now()
			b.store.sweep()
		}
	}
}

// ask finds out whether the store is well again after it refused something, which may be the last thing that it is asked for a long
// time.
func (b *Book) ask(ctx context.Context) {
	b.mu.Lock()
	name, bad := b.refused, b.trouble != nil
	b.mu.Unlock()
	if !bad || name == (Name{}) {
		return
	}
	name.Key = rand.Text() // nobody's: it is begun and forgotten
	switch c, _, err := b.Begin(ctx, name, Fingerprint{}); {
	case err == nil:
		c.Drop()
	case errors.Is(err, ErrFull): // so the store can tell
		b.note(nil)
	}
}

// flush offers the store all settled claims that it has not taken, and returns how many it still has not.
func (b *Book) flush(ctx context.Context) (left int) {
	for _, c := range b.which(func(c *Claim) bool { return c.settled }) {
		if left > 0 || !b.take(c) {
			left++
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, patience)
		err := c.offer(ctx)
		cancel()
		c.offered(err)
		<-c.turn
		if err != nil {
			left++
		}
	}
	return left
}

// renew tells the store that running requests have a living owner; what it has lost of them it gets anew.
func (b *Book) renew(ctx context.Context) {
	lease := b.store.lease()
	if lease == 0 {
		return
	}
	for _, c := range b.which(func(c *Claim) bool { return !c.settled && time.Since(c.told) > lease/3 }) {
		if !b.take(c) {
			continue
		}
		b.mu.Lock()
		r, settled := c.record, c.settled
		r.units = 0
		b.mu.Unlock()
		var err error
		if !settled {
			ctx, cancel := context.WithTimeout(ctx, patience)
			_, err = b.store.put(ctx, &r)
			cancel()
		}
		if err == nil || isTaken(err) { // taken: Leave will find out
			b.mu.Lock()
			c.told = time.Now()
			b.mu.Unlock()
		}
		<-c.turn
		b.note(err)
		if err != nil && !isTaken(err) {
			return // the others would fare no better
		}
	}
}

// take takes the turn if it is free.
func (b *Book) take(c *Claim) bool {
	select {
	case c.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

// which are the held claims of that kind.
func (b *Book) which(kind func(*Claim) bool) []*Claim {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []*Claim
	for _, c := range b.held {
		if kind(c) {
			all = append(all, c)
		}
	}
	return all
}

// note remembers how the store does, and tells when that changes.
func (b *Book) note(err error) {
	if isTaken(err) || errors.Is(err, context.Canceled) {
		return
	}
	b.mu.Lock()
	changed := (b.trouble == nil) != (err == nil)
	if err != nil {
		b.recent.suspect = true
	}
	b.trouble = err
	b.mu.Unlock()
	if changed && b.cfg.Degraded != nil {
		b.cfg.Degraded(err)
	}
}

func (b *Book) troubled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.recent.suspect
}

func isTaken(err error) bool { return errors.Is(err, errTaken) }

// putBack gives the store again what it has lost of the recent outcomes: after trouble all are offered, else the newest
// alone, as a sample.
func (b *Book) putBack(ctx context.Context) {
	b.mu.Lock()
	all, suspect := b.recent.list(time.Now()), b.recent.suspect
	b.mu.Unlock()
	for i := len(all) - 1; i >= 0; i-- { // the newest first
		ctx, cancel := context.WithTimeout(ctx, patience)
		lost, err := b.store.put(ctx, &all[i])
		cancel()
		b.note(err)
		if err != nil && !isTaken(err) {
			return
		}
		if suspect = suspect || lost; !suspect {
			return
		}
	}
	b.mu.Lock()
	b.recent.suspect = false
	b.mu.Unlock()
}
