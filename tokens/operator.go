package tokens

import (
	"context"
	"errors"
	"fmt"
)

// Put takes a grant that an operator just got by authorising. It always wins over whatever
// is there, and serves at once. An error that wraps ErrStore says that it serves from memory but
// is not stored yet, which goes on being tried. ctx bounds the waiting only.
func (m *Manager) Put(ctx context.Context, g Grant) error {
	if g.Account == "" || g.RefreshToken == "" {
		return errors.New("grant has no account or no refresh token")
	}
	return m.detached(ctx, func(context.Context) error {
		return m.consent(m.entry(g.Account), g)
	})
}

// Import takes a refresh token that was got elsewhere: it is refreshed once to prove it, then
// as Put. One that FreeAgent refuses changes nothing. ctx bounds the waiting; once the
// token was sent, what it brings is kept whatever happens to ctx.
func (m *Manager) Import(ctx context.Context, name, refreshToken string) error {
	if refreshToken == "" {
		return errors.New("refresh token is empty")
	}
	a, err := m.account(name)
	if err != nil {
		return err
	}
	return m.detached(ctx, func(ctx context.Context) error {
		got, err := m.prove(ctx, name, refreshToken)
		m.interrupt(a, err)
		if err != nil {
			return fmt.Errorf("import into account %q: %w%s", name, err, wayOut(err))
		}
		grant := Grant{RefreshToken: refreshToken, RefreshObtained: got.ObtainedAt}.refreshed(got, refreshToken)
		grant.Seeds = []string{digest(refreshToken)}
		return m.consent(a, grant)
	})
}

// Exchange takes the code of FreeAgent's redirect (see Endpoint.Exchange) for a grant, then does as Put. A code that FreeAgent
// refuses changes nothing. ctx bounds the waiting; what a code brings that was sent is kept whatever happens to ctx, and though Close
// begins meanwhile. ErrClosed: it was not sent.
func (m *Manager) Exchange(ctx context.Context, name, code, redirectURI string) error {
	a, err := m.account(name)
	if err != nil {
		return err
	}
	return m.detached(ctx, func(context.Context) error {
		app, err := m.app(name)
		if err != nil {
			return err
		}
		grant, err := m.cfg.Endpoint.Exchange(m.life, app, code, redirectURI)
		m.interrupt(a, err)
		if err != nil {
			return err
		}
		return m.consent(a, grant)
	})
}

// wayOut is what to do when the token that was to be imported could not be proved.
func wayOut(err error) string {
	trouble := new(TroubleError)
	switch {
	case errors.As(err, new(*RefusedError)):
		return "; nothing was changed. A refresh token is good once, and for the app that it was given to"
	case !errors.As(err, &trouble):
		return ""
	case trouble.Uncertain:
		return "; nothing was changed. Try again in a minute; if it is refused then, FreeAgent has used it up: get another one"
	default:
		return "; nothing was changed. Try again in a minute"
	}
}

// prove refreshes a token under the account's lock: it may be the one that a flight is spending.
func (m *Manager) prove(ctx context.Context, name, refreshToken string) (Grant, error) {
	lease, err := m.cfg.Store.Lock(ctx, name)
	if err != nil {
		return Grant{}, err
	}
	defer lease.Release()
	app, err := m.app(name)
	if err != nil {
		return Grant{}, err
	}
	got, err := m.refresh(ctx, spending{
		app: app, account: name, refreshToken: refreshToken, lease: lease,
		wanted: func() bool { return ctx.Err() == nil },
	})
	if errors.Is(err, errAgain) {
		err = context.Cause(ctx)
	}
	return got, err
}

// interrupt notes that Close cut a token request off, if it did.
func (m *Manager) interrupt(a *account, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.interrupted = a.interrupted || m.life.Err() != nil && uncertain(err)
}

// consent makes an operator's grant the account's.
func (m *Manager) consent(a *account, g Grant) error {
	a.mu.Lock()
	g.Account, g.Version = a.name, a.nextVersion()
	g.Seeds = withSeeds(withSeeds(a.grant.Seeds, g.Seeds...), a.seed.offered...)
	a.seed.drop()
	a.set(g)
	a.owed = consented
	m.exonerate(a)
	a.mu.Unlock()
	m.cfg.Observe(Event{Account: a.name, Kind: EventAuthorized})
	if err := m.save(a); err != nil {
		return fmt.Errorf("account %q is authorised, but that could not be stored yet: %w", a.name, err)
	}
	return nil
}

// Remove deletes the account's grant, from the store and from memory; a refresh that is under way
// is not kept. It returns ErrNoGrant if there is none.
func (m *Manager) Remove(ctx context.Context, name string) error {
	a := m.entry(name)
	return m.detached(ctx, func(context.Context) error {
		a.writing <- struct{}{} // nothing is written until we are done
		defer func() { <-a.writing }()
		ctx, cancel := context.WithTimeout(m.life, storeTimeout)
		defer cancel()
		err := m.cfg.Store.Remove(ctx, name)
		if err != nil && !errors.Is(err, ErrNoGrant) {
			return err
		}
		a.mu.Lock()
		if a.grant.Version != 0 {
			err = nil // it was not stored, but it was there
		}
		a.seed.drop()
		a.set(Grant{})
		a.settled(0)
		m.exonerate(a)
		a.mu.Unlock()
		if err == nil {
			m.cfg.Observe(Event{Account: name, Kind: EventRemoved})
		}
		return err
	})
}

// exonerate forgets what was held against the account's tokens. a.mu is held.
func (m *Manager) exonerate(a *account) {
	a.suspicion = suspicion{}
	m.suspect(a)
}

// detached runs f to its end, and waits for it until ctx ends. The context that it gives to
// f also ends when Close begins.
func (m *Manager) detached(ctx context.Context, f func(context.Context) error) error {
	result := make(chan error, 1)
	started := m.spawn(func() {
		ctx, cancel := context.WithCancelCause(ctx)
		defer context.AfterFunc(m.open, func() { cancel(ErrClosed) })()
		defer cancel(nil)
		result <- f(ctx)
	})
	if !started {
		return ErrClosed
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
