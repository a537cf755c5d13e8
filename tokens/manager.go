package tokens

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Manager works with. Store, Endpoint and App are required.
type Config struct {
	Store    Store
	Endpoint *Endpoint
	// App is the app that an account authorised; false: there is no such account. It may
	// change its answer at any time. It must not call the Manager.
	App func(account string) (App, bool)
	// Permit takes leave to send one refresh request; nil: none is needed. It waits as
	// long as ctx allows. sent is called once the request was, or may have been, sent;
	// release always and last: a permit that was not sent is to be given back.
	Permit func(ctx context.Context, account string) (sent, release func(), err error)
	// Alone says that no other process uses the Store, so that a refresh is safe although the Store cannot be
	// reached: the new pair then serves from memory until it can.
	Alone bool
	// Observe is told what happens; nil: nobody. It must return soon, since the account's
	// next step waits for it, and of the Manager may only use what does not wait.
	Observe func(Event)
}

// Manager hands out access tokens and keeps the grants behind them. It is safe for
// concurrent use. It does not close its Store.
type Manager struct {
	cfg      Config
	accounts sync.Map     // name → *account
	suspects atomic.Int32 // accounts under suspicion (see suspicion.go)

	open context.Context // ends when Close begins: nothing is begun any more
	shut context.CancelFunc
	life context.Context // ends when Close's patience does: nothing is finished any more
	kill context.CancelFunc

	running sync.WaitGroup // all goroutines of ours
	mu      sync.Mutex     // so that none starts while Close waits for them
	closed  bool
}

// New returns a Manager that loads a grant when it is first asked for.
func New(cfg Config) *Manager {
	if cfg.Permit == nil {
		cfg.Permit = func(context.Context, string) (func(), func(), error) { return func() {}, func() {}, nil }
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Event) {}
	}
	m := &Manager{cfg: cfg}
	m.open, m.shut = context.WithCancel(context.Background())
	m.life, m.kill = context.WithCancel(context.Background())
	return m
}

// Token returns a good access token: from memory if there is one, else it waits for one until
// ctx ends, which disturbs nobody else. Its errors wrap ErrUnknownAccount, ErrNoGrant and
// ErrReauthorize, which come at once, ErrClosed, or are an *UnavailableError.
func (m *Manager) Token(ctx context.Context, name string) (Token, error) {
	if t, ok := m.TokenNow(name); ok {
		return t, nil
	}
	a, err := m.account(name)
	if err != nil {
		return Token{}, err
	}
	return m.await(ctx, a, func(now time.Time) (Token, time.Time, error) { return m.serve(a, now) })
}

// TokenNow returns a good access token from memory, or false. It never blocks.
func (m *Manager) TokenNow(name string) (Token, bool) {
	entry, ok := m.accounts.Load(name)
	if !ok {
		return Token{}, false
	}
	a := entry.(*account)
	cur := a.current.Load()
	if !cur.good(time.Now()) {
		return Token{}, false
	}
	if !cur.used.Load() {
		a.mu.Lock()
		m.use(a, cur)
		a.mu.Unlock()
	}
	return cur.token, true
}

// use marks a token as handed out, which is what makes it be renewed ahead of its expiry. a.mu is held.
func (m *Manager) use(a *account, cur *access) {
	if !cur.used.Swap(true) {
		m.schedule(a)
	}
}

// serve decides what a request for a token gets: the token, an error, or a wait until the
// account changes or a time has come. a.mu is held.
func (m *Manager) serve(a *account, now time.Time) (Token, time.Time, error) {
	cur := a.current.Load()
	switch {
	case cur.good(now):
		m.use(a, cur)
		return cur.token, time.Time{}, nil
	case a.refused != nil:
		return m.refusal(a, now)
	case a.known && a.grant.Version == 0 && a.seed.token == "":
		m.peek(a, now)
		return Token{}, time.Time{}, fmt.Errorf("account %q: %w", a.name, ErrNoGrant)
	case a.flight == nil && now.Before(a.soonest()):
		return Token{}, a.soonest(), nil
	}
	if _, err := m.app(a.name); err != nil {
		return Token{}, time.Time{}, err
	}
	m.start(a, errand{refresh: true})
	return Token{}, time.Time{}, nil
}

// refusal is what there is to say while FreeAgent refuses the grant. a.mu is held.
func (m *Manager) refusal(a *account, now time.Time) (Token, time.Time, error) {
	m.reconsider(a, now)
	return Token{}, time.Time{}, fmt.Errorf("account %q: %w", a.name, a.refused)
}

// await asks decide until it has a token or an error, again after each change of the
// account and at the time that it names, but only as long as somebody wants to know.
func (m *Manager) await(ctx context.Context, a *account, decide func(now time.Time) (Token, time.Time, error)) (Token, error) {
	for ctx.Err() == nil {
		a.mu.Lock()
		token, until, err := decide(time.Now())
		changed := a.changed
		a.mu.Unlock()
		if err != nil || token != (Token{}) {
			return token, err
		}
		if m.open.Err() != nil {
			return Token{}, ErrClosed
		}
		m.pause(ctx, changed, until)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return Token{}, &UnavailableError{
		Account: a.name,
		Err:     errors.Join(a.failure, context.Cause(ctx)),
		after:   time.Until(a.soonest()),
	}
}

func (m *Manager) pause(ctx context.Context, changed <-chan struct{}, until time.Time) {
	var due <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-changed:
	case <-due:
	case <-ctx.Done():
	case <-m.open.Done():
	}
}

// account returns what is known of a configured account.
func (m *Manager) account(name string) (*account, error) {
	if entry, ok := m.accounts.Load(name); ok {
		return entry.(*account), nil
	}
	if _, err := m.app(name); err != nil {
		return nil, err
	}
	return m.entry(name), nil
}

// app returns the app that an account authorised.
func (m *Manager) app(name string) (App, error) {
	app, ok := m.cfg.App(name)
	if !ok {
		return App{}, fmt.Errorf("account %q: %w", name, ErrUnknownAccount)
	}
	return app, nil
}

// configured reports whether there is such an account. One that was removed from the configuration keeps its grant, and what it
// had in memory serves whoever has asked for it before, but it is not refreshed any more.
func (m *Manager) configured(name string) bool {
	_, ok := m.cfg.App(name)
	return ok
}

// entry returns what is known of an account, configured or not.
func (m *Manager) entry(name string) *account {
	entry, _ := m.accounts.LoadOrStore(name, newAccount(name, m.cfg.Store.Now))
	return entry.(*account)
}

// spawn runs f in a goroutine that Close waits for; false: we are closed.
func (m *Manager) spawn(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.running.Go(f)
	return true
}
