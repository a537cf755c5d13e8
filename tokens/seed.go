package tokens

import (
	"context"
	"errors"
	"time"
)

// seed is a refresh token from the configuration that neither became the grant nor was found
// to be nothing new. It may be a newer authorisation than the stored one, or a worthless leftover: it
// is tried before the grant, and whatever is wrong with it is no trouble of the grant's.
type seed struct {
	token     string // empty: there is none
	refused   bool   // FreeAgent refused it, which a wrong client secret looks like
	app       App    // as which app
	failures  int    // in a row, other than refusals
	notBefore time.Time
	offered   []string // digests of all that this process was given: older than any consent that comes
}

// Seed offers a refresh token from the configuration. It becomes the grant if there is none.
// If there is one, a seed that it knows is ignored; another is tried in the background: it wins
// if FreeAgent takes it, else the grant stays. Seed returns when the store was asked; an error
// means that it could not be, and that the seed is kept and tried again.
func (m *Manager) Seed(ctx context.Context, name, refreshToken string) error {
	if refreshToken == "" {
		return errors.New("refresh token is empty")
	}
	a, err := m.account(name)
	if err != nil {
		return err
	}
	return m.detached(ctx, func(context.Context) error {
		a.mu.Lock()
		a.seed = seed{token: refreshToken, offered: withSeeds(a.seed.offered, digest(refreshToken))}
		a.mu.Unlock()
		err := m.look(a)
		a.mu.Lock()
		defer a.mu.Unlock()
		switch {
		case err != nil:
			a.fail(err, time.Now())
		case a.seed.token != "" && a.refused != nil:
			a.notBefore = time.Time{} // it is no probe of what was refused
		}
		m.schedule(a)
		return err
	})
}

// Supersede says that whatever is authorised from now on is newer than a refresh token in the
// configuration, which will be offered to another process: there it is to change nothing.
func (m *Manager) Supersede(name, refreshToken string) error {
	a, err := m.account(name)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seed.offered = withSeeds(a.seed.offered, digest(refreshToken))
	return nil
}

// drop ends with the seed, of which only its digest is remembered.
func (s *seed) drop() { *s = seed{offered: s.offered} }

// superseded returns the digests of seeds that a grant remembers when spending a token brought a new
// pair. If that was the grant's own, FreeAgent knows the app, and a seed that it refused is worthless. a.mu is held.
func (a *account) superseded(c choice, app App) []string {
	seeds := a.grant.Seeds
	if c.seed {
		seeds = withSeeds(seeds, digest(c.refreshToken))
	}
	if a.seed.token == c.refreshToken || a.seed.refused && a.seed.app == app {
		seeds = withSeeds(seeds, digest(a.seed.token))
		a.seed.drop()
	}
	return seeds
}

// seedWaits reports whether the seed is to be tried without being asked for. One that was refused is
// tried again with the grant, should that be refused too; if it is not, the seed is worthless. a.mu is held.
func (a *account) seedWaits() bool {
	return a.seed.token != "" && (!a.seed.refused || a.refused != nil)
}

// seedDue reports whether the seed may be tried now, as an app. a.mu is held.
func (a *account) seedDue(now time.Time, app App) bool {
	corrected := a.seed.token != "" && a.seed.app != app
	return (a.seedWaits() || corrected) && !now.Before(a.seed.notBefore)
}

// seedRefused notes that FreeAgent refused the seed. It is not dropped yet: if FreeAgent takes the
// grant next, as the same app, it was the seed's own fault.
func (f *flight) seedRefused(c choice, refusal *RefusedError) error {
	a := f.a
	f.seedTried = true
	a.mu.Lock()
	news := a.seed.token == c.refreshToken && (!a.seed.refused || a.seed.app != f.app)
	if a.seed.token == c.refreshToken {
		a.seed.refused, a.seed.app, a.seed.failures = true, f.app, 0
	}
	a.mu.Unlock()
	if news {
		f.m.cfg.Observe(Event{Account: a.name, Kind: EventSeedRefused, Err: refusal})
	}
	return errAgain
}

// seedFailed lets the flight go on to the grant when the seed met with trouble, and the seed wait
// ever longer, up to an hour.
func (f *flight) seedFailed(c choice, err error) error {
	a, now := f.a, time.Now()
	trouble := new(TroubleError)
	if !errors.As(err, &trouble) || f.m.open.Err() != nil {
		return err
	}
	f.seedTried = true
	a.mu.Lock()
	news := a.seed.token == c.refreshToken && a.seed.failures == 0
	a.seed.failures++
	a.seed.notBefore = now.Add(max(min(minBackoff<<min(a.seed.failures-1, 20), maxProbe), trouble.pause()))
	next := a.seed.notBefore
	a.mu.Unlock()
	if news {
		f.m.cfg.Observe(Event{Account: a.name, Kind: EventSeedTrouble, Err: err, Next: next})
	}
	if trouble.pause() > 0 { // which is for the grant, too
		return err
	}
	return errAgain
}
