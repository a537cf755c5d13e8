package tokens

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
)

// Lock waits for its turn among the goroutines of this process, the only one that may write
// here, and writes, syncs and removes a file as large as a grant.
func (f *File) Lock(ctx context.Context, account string) (unlock func(), err error) {
	if unlock, err = f.turns.take(ctx, account); err != nil {
		return nil, fmt.Errorf("%w: lock account %q: %w", ErrStore, account, err)
	}
	if err := f.probe(); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

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
