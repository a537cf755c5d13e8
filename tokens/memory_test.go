package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"freeagent-proxy/tokens"
)

// memory is a Store that several managers can share, like replicas.
type memory struct {
	mu     sync.Mutex
	grants map[string]tokens.Grant
	locks  map[string]chan struct{}
}

func newMemory() *memory {
	return &memory{grants: make(map[string]tokens.Grant), locks: make(map[string]chan struct{})}
}

func (s *memory) Load(_ context.Context, account string) (tokens.Grant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.grants[account]
	if !ok {
		return tokens.Grant{}, fmt.Errorf("account %q: %w", account, tokens.ErrNoGrant)
	}
	g.Seeds = slices.Clone(g.Seeds)
	return g, nil
}

func (s *memory) Save(_ context.Context, next tokens.Grant, previous int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grants[next.Account].Version != previous {
		return fmt.Errorf("account %q: %w", next.Account, tokens.ErrConflict)
	}
	next.Seeds = slices.Clone(next.Seeds)
	s.grants[next.Account] = next
	return nil
}

func (s *memory) Remove(_ context.Context, account string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.grants[account]; !ok {
		return fmt.Errorf("account %q: %w", account, tokens.ErrNoGrant)
	}
	delete(s.grants, account)
	return nil
}

func (s *memory) Accounts(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.grants)), nil
}

func (s *memory) Now() time.Time { return time.Now() }

func (s *memory) Lock(ctx context.Context, account string) (tokens.Lease, error) {
	s.mu.Lock()
	lock, ok := s.locks[account]
	if !ok {
		lock = make(chan struct{}, 1)
		s.locks[account] = lock
	}
	s.mu.Unlock()
	select {
	case lock <- struct{}{}:
		return lease(sync.OnceFunc(func() { <-lock })), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", tokens.ErrStore, ctx.Err())
	}
}

func (s *memory) Close() error { return nil }

// lease always lets spend.
type lease func()

func (l lease) Spend(context.Context, int64) (time.Time, error) { return time.Time{}, nil }
func (l lease) Release()                                        { l() }

// faulty is a Store whose steps can be made to fail or to wait.
type faulty struct {
	tokens.Store
	mu     sync.Mutex
	before map[string]func() error // by name of the step; an error is returned instead of doing it
	after  map[string]func() error // and after it was done
}

var errDisk = fmt.Errorf("%w: no space left on device", tokens.ErrStore)

func newFaulty(s tokens.Store) *faulty {
	return &faulty{Store: s, before: make(map[string]func() error), after: make(map[string]func() error)}
}

// fail makes steps return errDisk.
func (s *faulty) fail(steps ...string) {
	for _, step := range steps {
		s.on(step, func() error { return errDisk })
	}
}

// heal makes steps work again.
func (s *faulty) heal(steps ...string) {
	for _, step := range steps {
		s.on(step, nil)
	}
}

func (s *faulty) on(step string, f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before[step] = f
}

func (s *faulty) then(step string, f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after[step] = f
}

func (s *faulty) do(step string, f func() error) error {
	s.mu.Lock()
	before, after := s.before[step], s.after[step]
	s.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	err := f()
	if after != nil {
		err = errors.Join(err, after())
	}
	return err
}

func (s *faulty) Load(ctx context.Context, account string) (g tokens.Grant, err error) {
	err = s.do("load", func() error { g, err = s.Store.Load(ctx, account); return err })
	return g, err
}

func (s *faulty) Save(ctx context.Context, next tokens.Grant, previous int64) error {
	return s.do("save", func() error { return s.Store.Save(ctx, next, previous) })
}

func (s *faulty) Remove(ctx context.Context, account string) error {
	return s.do("remove", func() error { return s.Store.Remove(ctx, account) })
}

func (s *faulty) Accounts(ctx context.Context) (accounts []string, err error) {
	err = s.do("accounts", func() error { accounts, err = s.Store.Accounts(ctx); return err })
	return accounts, err
}

func (s *faulty) Lock(ctx context.Context, account string) (lease tokens.Lease, err error) {
	err = s.do("lock", func() error { lease, err = s.Store.Lock(ctx, account); return err })
	return lease, err
}
