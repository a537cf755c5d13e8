package tokens

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"
)

// Lock waits for its turn among the goroutines of this process, the only one that may write
// here, and writes, syncs and removes a file as large as a grant.
func (f *File) Lock(ctx context.Context, account string) (Lease, error) {
	giveBack, err := f.turns.take(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("%w: lock account %q: %w", ErrStore, account, err)
	}
	if err := f.probe(); err != nil {
		giveBack()
		return nil, err
	}
	return turn(giveBack), nil
}

// turn is a lock among goroutines: its holder cannot be thought dead while it lives.
type turn func()

// Spend always gives leave.
func (t turn) Spend(context.Context, int64) (time.Time, error) { return time.Time{}, nil }

// Release ends the turn.
func (t turn) Release() { t() }

// probe proves that a grant can be written.
func (f *File) probe() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.writable(); err != nil {
		return err
	}
	path := filepath.Join(f.grants(), probeName)
	if err := probeFile(path); err != nil {
		return storeError("write", path, err)
	}
	return nil
}

// turns lets one goroutine at a time have each account.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed when the account is given back
}

func (t *turns) take(ctx context.Context, account string) (giveBack func(), err error) {
	for {
		taken, mine := t.try(account)
		if mine {
			return sync.OnceFunc(func() { t.giveBack(account) }), nil
		}
		select {
		case <-taken:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (t *turns) try(account string) (taken <-chan struct{}, mine bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if taken, busy := t.taken[account]; busy {
		return taken, false
	}
	if t.taken == nil {
		t.taken = make(map[string]chan struct{})
	}
	t.taken[account] = make(chan struct{})
	return nil, true
}

func (t *turns) giveBack(account string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.taken[account])
	delete(t.taken, account)
}
