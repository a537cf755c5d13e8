package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// maxConflicts bounds how often a consent is written over what others write meanwhile.
const maxConflicts = 5

// save pays what is owed to the store, once. If it fails the grant serves from memory and is
// saved again later.
func (m *Manager) save(a *account) error {
	event, err := m.pay(a)
	if event.Kind != "" {
		m.cfg.Observe(event)
	}
	return err
}

// pay always writes the newest grant, so that whoever comes late writes nothing old.
func (m *Manager) pay(a *account) (Event, error) {
	a.writing <- struct{}{} // whoever holds it has a deadline
	defer func() { <-a.writing }()
	ctx, cancel := context.WithTimeout(m.life, storeTimeout)
	defer cancel()
	for range maxConflicts {
		ours, stored, owed := a.owes()
		if owed == nothing {
			return Event{}, nil
		}
		var err error
		if owed == consented {
			ours, stored, err = m.rebase(ctx, a)
		}
		if err == nil {
			err = m.cfg.Store.Save(ctx, ours, stored)
		}
		if !errors.Is(err, ErrConflict) {
			return m.saved(a, ours, err)
		}
		if owed == refreshed {
			if event, err := m.yield(ctx, a, ours, stored); !errors.Is(err, errAgain) {
				return event, err
			}
		}
	}
	return m.saved(a, Grant{}, fmt.Errorf("%w: account %q: %w", ErrStore, a.name, ErrConflict))
}

// owes is what is owed, and the version that it replaces.
func (a *account) owes() (ours Grant, stored int64, owed debt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.grant, a.stored, a.owed
}

// rebase puts a consent on top of whatever is stored.
func (m *Manager) rebase(ctx context.Context, a *account) (ours Grant, stored int64, err error) {
	old, err := m.read(ctx, a.name)
	if err != nil {
		return Grant{}, 0, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = max(a.last, old.newest())
	if a.grant.Version <= old.newest() {
		a.grant.Version = a.nextVersion()
		a.last = a.grant.Version
	}
	a.grant.Seeds = withSeeds(old.grant.Seeds, a.grant.Seeds...)
	return a.grant, old.grant.Version, nil
}

// reading is what the store said of an account.
type reading struct {
	grant     Grant
	removal   int64 // the version of the removal, if there is no grant; 0: there was none, or it is not known
	forgotten bool  // it knows of neither
}

// newest is the highest version that the store has had.
func (r reading) newest() int64 { return max(r.grant.Version, r.removal) }

// older reports whether the store lacks a version because it lost it, or never had it; and not
// because that was removed.
func (r reading) older(version int64) bool {
	return r.forgotten || 0 < r.newest() && r.newest() < version
}

// read reads the store. That there is no grant is no error.
func (m *Manager) read(ctx context.Context, name string) (reading, error) {
	grant, err := m.cfg.Store.Load(ctx, name)
	switch {
	case err == nil:
		return reading{grant: grant}, nil
	case errors.Is(err, ErrNoGrant):
		return reading{removal: grant.Version, forgotten: errors.Is(err, ErrForgotten)}, nil
	default:
		return reading{}, err
	}
}

// yield gives a refreshed grant up for what somebody else stored meanwhile: an operator's
// grant, or none when it was removed. errAgain: nobody did, the store went back in time, before
// the version that ours was to replace; it is to be written once more, over what is there now.
func (m *Manager) yield(ctx context.Context, a *account, ours Grant, replaced int64) (Event, error) {
	stored, err := m.read(ctx, a.name)
	if err != nil {
		return m.saved(a, ours, err)
	}
	if stored.grant.same(ours) { // an earlier try had succeeded, though it seemed not to
		return m.saved(a, ours, nil)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.grant.Version != ours.Version: // ours was given up for an operator's already
		return Event{}, nil
	case stored.older(replaced + 1):
		a.stored = stored.grant.Version
		return Event{}, errAgain
	}
	a.set(stored.grant)
	a.last = max(a.last, stored.removal)
	a.settled(stored.grant.Version)
	return Event{Account: a.name, Kind: EventSuperseded}, nil
}

// saved notes how a write ended. The event tells the first failure of a row, and its end.
func (m *Manager) saved(a *account, ours Grant, err error) (event Event, _ error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer m.schedule(a)
	if err != nil {
		a.saveFailures++
		a.saveAt = time.Now().Add(backoff(a.saveFailures))
		if a.saveErr == nil {
			event = Event{Account: a.name, Kind: EventUnsaved, Err: err, Next: a.saveAt}
		}
		a.saveErr = err
		return event, err
	}
	if a.saveErr != nil {
		event = Event{Account: a.name, Kind: EventSaved}
	}
	a.stored, a.saveErr, a.saveFailures = ours.Version, nil, 0
	if a.grant.Version == ours.Version {
		a.owed = nothing
	}
	return event, nil
}

// look asks the store, after paying what is owed to it, and takes over what is newer there.
func (m *Manager) look(a *account) error {
	if err := m.save(a); err != nil {
		return err
	}
	a.mu.Lock()
	epoch := a.epoch
	a.lookedAt = time.Now()
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(m.open, storeTimeout)
	defer cancel()
	stored, err := m.read(ctx, a.name)
	if err != nil {
		return err
	}
	if event := a.compare(epoch, stored); event.Kind != "" {
		m.cfg.Observe(event)
	}
	return m.save(a)
}

// compare takes over what was read from the store, unless ours changed meanwhile.
func (a *account) compare(epoch int, stored reading) (event Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.epoch != epoch || a.owed != nothing {
		return Event{}
	}
	a.last = max(a.last, stored.removal)
	switch ours := a.grant.Version; {
	case stored.grant.Version > ours:
		if a.known {
			event = Event{Account: a.name, Kind: EventAdopted}
		}
		a.set(stored.grant)
		a.settled(stored.grant.Version)
	case ours != 0 && stored.older(ours): // the store went back in time, as after a failover
		a.stored, a.owed = stored.grant.Version, refreshed
	case ours != 0 && stored.grant.Version == 0: // removed by another process
		a.set(Grant{})
		a.settled(0)
		event = Event{Account: a.name, Kind: EventRemoved}
	}
	if !a.known {
		a.known, a.failure, a.failures, a.notBefore = true, nil, 0, time.Time{}
	}
	a.sow()
	a.broadcast()
	return event
}

// sow decides what can be decided without FreeAgent about a refresh token from outside: it
// is nothing new, or it is all there is. a.mu is held.
func (a *account) sow() {
	switch {
	case a.seed.token == "":
	case a.grant.Version == 0:
		a.set(Grant{
			Account:         a.name,
			RefreshToken:    a.seed.token,
			RefreshObtained: time.Now(),
			Version:         a.nextVersion(),
			Seeds:           []string{digest(a.seed.token)},
		})
		a.owed = refreshed
		a.seed.drop()
	case a.grant.seen(a.seed.token):
		a.seed.drop()
	}
}
