package outcomes

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// patience is how long a request waits for the store, before it is sent and after.
	patience = 2 * time.Second
	// lookEvery is how often what is held is looked at.
	lookEvery = 250 * time.Millisecond
)

// store keeps records. All that it does can be done again: a step whose answer was lost changes nothing the second time.
type store interface {
	// begin claims a name, unless there is a record of it, which it then returns. Its errors are ErrFull, else the store's.
	begin(ctx context.Context, r *record) (found *record, err error)
	// put writes the next state of a record that is ours, or that the store has lost, which it reports. Of another's it
	// takes the place only with an outcome, and only if that other is waiting; else it is errTaken.
	put(ctx context.Context, r *record) (lost bool, err error)
	// forget removes a record that is ours.
	forget(ctx context.Context, r *record) error
	// lease is how long the store believes that an owner lives without hearing of it; 0: it knows of no other processes.
	lease() time.Duration
	// sweep removes what has expired, if the store does not do so by itself.
	sweep()
	close() error
}

// errTaken: another process has claimed the name meanwhile.
var errTaken = errors.New("another replica has claimed the key meanwhile")

// Book keeps outcomes in a store, and in memory what the store has still to take.
type Book struct {
	cfg   Config
	store store

	stop    context.CancelFunc
	stopped chan struct{}

	mu      sync.Mutex
	held    map[string]*Claim // by id: all that run, or whose outcome is not stored
	recent  recent
	trouble error // of the store, as it was told
	refused Name  // whose record it last did not take, without the key
}

func newBook(cfg Config, s store) *Book {
	ctx, stop := context.WithCancel(context.Background())
	b := &Book{
		cfg: cfg, store: s, held: make(map[string]*Claim),
		stop: stop, stopped: make(chan struct{}),
	}
	go b.look(ctx)
	return b
}

// Begin claims the name for a request, unless there was one before: then it returns the answer to that, or ErrRunning,
// ErrDifferent, ErrUnknown. ErrFull and ErrUnavailable are for a request that cannot be remembered and so must not be sent.
// A Claim must be settled: by Keep, Doubt or Drop.
func (b *Book) Begin(ctx context.Context, name Name, print Fingerprint) (*Claim, *Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, here := b.claim(name, print)
	if here != nil {
		answer, err := here.verdict(print)
		return nil, answer, err
	}
	var found *record
	err := b.try(ctx, func() (err error) { found, err = b.store.begin(ctx, &c.record); return err })
	if !errors.Is(err, ErrFull) && found == nil { // else nothing was written
		b.note(err)
	}
	switch {
	case errors.Is(err, ErrFull):
		b.release(c)
		return nil, nil, err
	case err != nil: // if it was claimed after all, it is free again soon: the owner shows no life
		b.release(c)
		b.refuse(&c.record)
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case found != nil:
		b.release(c)
		if err := found.open(b.cfg.Sealer); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		answer, err := found.verdict(print)
		return nil, answer, err
	}
	<-c.turn
	return c, nil, nil
}

// claim holds the name in this process, or returns what this process knows of it.
func (b *Book) claim(name Name, print Fingerprint) (c *Claim, here *record) {
	now := time.Now()
	c = &Claim{book: b, turn: make(chan struct{}, 1), told: now, record: record{
		id: name.id(), account: name.Account, client: name.Client, owner: rand.Text(), state: waiting, print: print, at: now,
	}}
	c.turn <- struct{}{} // until it is begun
	c.record.seal(b.cfg.Sealer)
	b.mu.Lock()
	defer b.mu.Unlock()
	if other := b.held[c.record.id]; other != nil {
		r := other.record
		r.alive = true
		return nil, &r
	}
	if r := b.recent.find(c.record.id, now); r != nil {
		return nil, r
	}
	b.held[c.record.id] = c
	return c, nil
}

// refuse remembers whose record the store has not taken.
func (b *Book) refuse(r *record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused = Name{Account: r.account, Client: r.client}
}

// release lets go of a name in this process.
func (b *Book) release(c *Claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.held, c.record.id)
}

// tries is how often a step is tried: connections that Redis has closed are found out one at a time.
const tries = 3

// try does a step until it works, or it is certain that it does not.
func (b *Book) try(ctx context.Context, step func() error) (err error) {
	for range tries {
		if err = step(); err == nil || errors.Is(err, errTaken) || errors.Is(err, ErrFull) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// Close stores what is held, until ctx ends. What is then not stored is unknown to whoever asks next.
func (b *Book) Close(ctx context.Context) error {
	b.stop()
	<-b.stopped
	for {
		left := b.flush(ctx)
		if left == 0 {
			return b.store.close()
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("outcomes of %d writes could not be stored; a client that asks for one hears that it is unknown", left), b.store.close())
		}
	}
}
