package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// sweepEvery is how often refresh tokens near their end are looked for.
	sweepEvery = time.Minute
	// maxSweep is how many refreshes one sweep begins, so that a hundred thousand idle
	// accounts do not wake at once: FreeAgent takes 1,000 requests a minute from one address.
	maxSweep = 100
	// lookEvery is how often, at most, the store is asked whether a grant has come for an account that has no good one.
	lookEvery = 3 * time.Second
	// closeRetry is the pause between saves while Close waits.
	closeRetry = 200 * time.Millisecond
)

// Start loads the grants of the accounts and begins to watch the lives of their refresh
// tokens. An error tells what could not be loaded; the Manager works all the same, and goes on
// trying to load it.
func (m *Manager) Start(ctx context.Context, names []string) error {
	listed, err := m.load(ctx, names)
	if !m.spawn(func() { m.watch(names, listed) }) {
		return ErrClosed
	}
	return err
}

// Load loads the grants of accounts that were configured since Start. An error tells what could not be loaded, which is tried again.
func (m *Manager) Load(ctx context.Context, names []string) error {
	_, err := m.load(ctx, names)
	for _, name := range names { // one that was configured before may have something due
		if a, unknown := m.account(name); unknown == nil {
			a.mu.Lock()
			m.schedule(a)
			a.mu.Unlock()
		}
	}
	return err
}

// loadsAtOnce is how many grants are loaded at the same time: enough to hide the way to Redis and back.
const loadsAtOnce = 32

// load loads grants. listed: the store could be asked at all.
func (m *Manager) load(ctx context.Context, names []string) (listed bool, err error) {
	stored, listErr := m.cfg.Store.Accounts(ctx)
	errs := make([]error, len(names))
	var loading errgroup.Group
	loading.SetLimit(loadsAtOnce)
	for i, name := range names {
		loading.Go(func() error {
			errs[i] = m.loadOne(ctx, name, stored, listErr)
			return nil
		})
	}
	_ = loading.Wait()
	return listErr == nil, errors.Join(append(errs, listErr, context.Cause(ctx))...)
}

// loadOne loads an account's grant if it is among those stored. listErr says that this is not known.
func (m *Manager) loadOne(ctx context.Context, name string, stored []string, listErr error) error {
	if ctx.Err() != nil {
		return nil
	}
	a, err := m.account(name)
	if err != nil {
		return err
	}
	_, found := slices.BinarySearch(stored, name)
	switch {
	case listErr != nil:
		a.loaded(listErr)
		return nil
	case found:
		err = m.look(a)
	}
	a.loaded(err)
	return err
}

// loaded notes how loading went.
func (a *account) loaded(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil:
		a.known = true
	case !a.known:
		a.fail(err, time.Now())
	}
}

// watch goes on trying to load the grants, then refreshes those whose refresh tokens have used
// most of their lives, at once and every minute.
func (m *Manager) watch(names []string, listed bool) {
	for tries := 1; !listed; tries++ {
		m.pause(m.open, nil, time.Now().Add(backoff(tries)))
		if m.open.Err() != nil {
			return
		}
		listed, _ = m.load(m.open, names) // each account's Status says why not
	}
	for m.open.Err() == nil {
		m.sweep()
		m.pause(m.open, nil, time.Now().Add(sweepEvery))
	}
}

// sweep begins what is due for accounts that nobody asks for.
func (m *Manager) sweep() {
	begun := 0
	for a := range m.all {
		a.mu.Lock()
		now := time.Now()
		idle := m.configured(a.name) && a.flight == nil && a.refused == nil && !now.Before(a.notBefore)
		switch {
		case idle && !a.known:
			m.start(a, errand{})
			begun++
		case idle && a.grant.aging(now):
			m.start(a, errand{refresh: true, replace: served(a.current.Load())})
			begun++
		}
		a.mu.Unlock()
		if begun == maxSweep {
			return
		}
	}
}

// all ranges over the accounts.
func (m *Manager) all(yield func(*account) bool) {
	m.accounts.Range(func(_, entry any) bool { return yield(entry.(*account)) })
}

// peek looks, in the background and not too often, whether another process stored a grant. a.mu is held.
func (m *Manager) peek(a *account, now time.Time) {
	if now.Sub(a.lookedAt) >= lookEvery {
		a.lookedAt = now
		m.start(a, errand{})
	}
}

// reconsider tries a refused grant again if the app was corrected since, or another grant was stored. a.mu is held.
func (m *Manager) reconsider(a *account, now time.Time) {
	if app, ok := m.cfg.App(a.name); ok && app != a.refusedApp {
		a.refusedApp = app
		m.start(a, errand{refresh: true, replace: served(a.current.Load())})
		return
	}
	m.peek(a, now)
}

// Close ends the Manager. Who waits gets ErrClosed at once; what was sent is waited for, and what
// is not stored yet is tried to be, until ctx ends. Good tokens are handed out to the end.
// The error names the accounts whose newest pair could not be stored.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.shut()
	defer m.kill()
	defer context.AfterFunc(ctx, m.kill)()
	m.running.Wait()
	for a := range m.all {
		a.mu.Lock()
		m.schedule(a) // stops its timer
		a.mu.Unlock()
	}
	lost := m.saveAll()
	for lost != nil && ctx.Err() == nil {
		select {
		case <-time.After(closeRetry):
			lost = m.saveAll()
		case <-ctx.Done():
		}
	}
	return lost
}

// saveAll saves what is owed, once, and names the accounts whose newest pair is not stored.
func (m *Manager) saveAll() error {
	var lost []error
	for a := range m.all {
		if err := m.save(a); err != nil {
			lost = append(lost, fmt.Errorf("the newest tokens of account %q are not stored: %w", a.name, err))
		} else if a.interrupted {
			lost = append(lost, fmt.Errorf("a token request of account %q was cut off; its new tokens, if any, are not stored", a.name))
		}
	}
	return errors.Join(lost...)
}
