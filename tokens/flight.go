package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errand is what a flight is for.
type errand struct {
	refresh bool  // get a good token; else only look into the store, and pay what is owed to it
	replace Token // a token that does not count as good
}

// flight runs one errand, detached from all who wait for it. Each of its steps has a
// deadline, so it cannot run for ever.
type flight struct {
	errand
	m         *Manager
	a         *account
	epoch     int // in which it last chose what to do
	refusedIn int // the epoch whose refresh token it saw refused; 0: none
	app       App // as which app it spent a token
	seedTried bool
}

const (
	// lockTimeout bounds the wait for another process's refresh: its permit, its call, its save.
	lockTimeout = 2 * time.Minute
	// permitTimeout is longer than FreeAgent's minute with any guard, so that a permit comes.
	permitTimeout = 75 * time.Second
	// spendTimeout bounds the wait for an answer that another process may yet bring: longer than
	// its call (30 s) and what a Store adds to it.
	spendTimeout = time.Minute
	// storeTimeout bounds one read or write of the store.
	storeTimeout = 10 * time.Second
	// savePatience is how long a new token may be held back by its save, which takes milliseconds.
	savePatience = time.Second
	// maxSpends bounds the tokens that one flight tries: a seed, the newest, one that another
	// process wrote meanwhile, and the one before.
	maxSpends = 4
)

// errAgain says that the grant is another one now: choose anew.
var errAgain = errors.New("choose again")

// start begins a flight, unless one is in progress. a.mu is held.
func (m *Manager) start(a *account, e errand) {
	if a.flight != nil {
		return
	}
	f := &flight{errand: e, m: m, a: a, epoch: a.epoch}
	if m.spawn(f.fly) {
		a.flight = f
	}
}

func (f *flight) fly() {
	err := f.run()
	f.a.mu.Lock()
	f.a.flight = nil
	event, ok := f.land(err)
	f.m.schedule(f.a)
	f.a.broadcast()
	f.a.mu.Unlock()
	if ok {
		f.m.cfg.Observe(event)
	}
}

// run does the errand. An error means that there is no new token: a *RefusedError, or trouble.
func (f *flight) run() error {
	if !f.refresh {
		return f.m.look(f.a)
	}
	lease, err := f.lock()
	switch {
	case err == nil:
		err = f.m.look(f.a)
	case f.m.goesOn(err):
		lease = noLease{}
	default:
		return err
	}
	defer lease.Release()
	if err != nil && !f.m.goesOn(err) {
		return err
	}
	for range maxSpends {
		c := f.choose()
		switch {
		case c.unread: // there is nothing to go on with
			return err
		case c.nothing:
			return nil
		}
		f.epoch = c.epoch
		err := f.spend(c, lease)
		if !errors.Is(err, errAgain) {
			return err
		}
	}
	return fmt.Errorf("refresh account %q: %w", f.a.name, ErrConflict)
}

// goesOn reports whether a refresh is safe although the store said this.
func (m *Manager) goesOn(err error) bool { return m.cfg.Alone && errors.Is(err, ErrStore) }

// noLease is the lease of a process that nobody else can disturb.
type noLease struct{}

func (noLease) Spend(context.Context, int64) (time.Time, error) { return time.Time{}, nil }
func (noLease) Release()                                        {}

func (f *flight) lock() (Lease, error) {
	ctx, cancel := context.WithTimeout(f.m.open, lockTimeout)
	defer cancel()
	return f.m.cfg.Store.Lock(ctx, f.a.name)
}

// choice is a refresh token to spend, in the epoch in which it was chosen.
type choice struct {
	nothing      bool // needs to be spent
	unread       bool // the store has not said yet whether there is anything
	refreshToken string
	version      int64 // of the grant
	epoch        int
	seed         bool
	previous     bool
}

// choose picks what to spend, now that the store was read under its lock.
func (f *flight) choose() choice {
	a, now := f.a, time.Now()
	app, _ := f.m.app(a.name)
	a.mu.Lock()
	defer a.mu.Unlock()
	cur := a.current.Load()
	switch {
	case a.seedDue(now, app) && !f.seedTried:
		return choice{refreshToken: a.seed.token, version: a.grant.Version, epoch: a.epoch, seed: true}
	case a.grant.Version == 0:
		return choice{nothing: true, unread: !a.known}
	case cur.good(now) && cur.token != f.replace:
		return choice{nothing: true}
	case f.refusedIn == a.epoch:
		return choice{refreshToken: a.grant.PreviousRefresh, version: a.grant.Version, epoch: a.epoch, previous: true}
	default:
		return choice{refreshToken: a.grant.RefreshToken, version: a.grant.Version, epoch: a.epoch}
	}
}

// spend spends the chosen token and keeps what it brings.
func (f *flight) spend(c choice, lease Lease) error {
	app, err := f.m.app(f.a.name)
	if err != nil {
		return err
	}
	f.app = app
	got, err := f.m.refresh(f.m.open, spending{
		app: app, account: f.a.name, refreshToken: c.refreshToken, version: c.version, lease: lease,
		wanted: func() bool { return f.a.at(c.epoch) },
	})
	refusal, trouble := new(RefusedError), new(TroubleError)
	switch {
	case err == nil:
		return f.keep(c, got)
	case !c.seed && errors.As(err, &trouble) && trouble.rotated != "" && trouble.rotated != c.refreshToken:
		f.keepRotated(c, trouble.rotated)
		return err
	case errors.As(err, &refusal):
		return f.refused(c, refusal)
	case errors.Is(err, ErrConflict):
		if err := f.m.look(f.a); err != nil {
			return err
		}
		return errAgain
	case c.seed:
		return f.seedFailed(c, err)
	default:
		return err
	}
}

// spending is a refresh token to spend, and the right to.
type spending struct {
	app          App
	account      string
	refreshToken string
	version      int64 // of the stored grant that has it; 0: it is from outside
	lease        Lease
	wanted       func() bool // still; asked once the permit has come
}

// refresh takes a permit and spends a token, if that is still wanted when the permit comes.
// ctx bounds the waiting alone: what was sent is waited for, whoever has left.
func (m *Manager) refresh(ctx context.Context, s spending) (Grant, error) {
	permitCtx, cancel := context.WithTimeout(ctx, permitTimeout)
	defer cancel()
	sent, release, err := m.cfg.Permit(permitCtx, s.account)
	if err != nil {
		return Grant{}, fmt.Errorf("wait for leave to refresh account %q: %w", s.account, err)
	}
	defer release()
	if !s.wanted() {
		return Grant{}, errAgain
	}
	spendCtx, cancel := context.WithTimeout(ctx, spendTimeout)
	defer cancel()
	until, err := s.lease.Spend(spendCtx, s.version)
	switch {
	case err != nil:
		return Grant{}, err
	case !s.wanted():
		return Grant{}, errAgain
	}
	got, err := m.cfg.Endpoint.refresh(m.life, s.app, s.refreshToken, until)
	if trouble := new(TroubleError); !errors.As(err, &trouble) || trouble.Status != 0 || trouble.Uncertain {
		sent()
	}
	return got, err
}

// keep stores a new pair, then hands its token out: what FreeAgent has seen used survives a
// crash. But a store that fails, or takes long, keeps nobody waiting: the pair serves from memory
// then, and is owed to the store.
func (f *flight) keep(c choice, got Grant) error {
	a := f.a
	a.mu.Lock()
	if a.epoch != c.epoch {
		a.mu.Unlock()
		f.m.cfg.Observe(Event{Account: a.name, Kind: EventSuperseded})
		return errAgain
	}
	next := a.grant.refreshed(got, c.refreshToken)
	next.Account, next.Version = a.name, a.nextVersion()
	next.Seeds = a.superseded(c, f.app)
	a.hold(next)
	a.owed = max(a.owed, refreshed)
	epoch, cur := a.epoch, newAccess(next)
	a.mu.Unlock()
	late := time.AfterFunc(savePatience, func() { a.handOut(cur, epoch) })
	_ = f.m.save(a) // if it fails it is observed, and tried again
	late.Stop()
	a.handOut(cur, epoch)
	f.m.cfg.Observe(Event{Account: a.name, Kind: EventRefreshed})
	if !cur.good(time.Now()) {
		return &TroubleError{Err: errors.New("the access token had expired when it came")}
	}
	return nil
}

// keepRotated stores a new refresh token that came without an access token: the one that was spent may be worth nothing
// now. The grant's access token stays.
func (f *flight) keepRotated(c choice, refreshToken string) {
	a, now := f.a, time.Now()
	a.mu.Lock()
	if a.epoch != c.epoch {
		a.mu.Unlock()
		f.m.cfg.Observe(Event{Account: a.name, Kind: EventSuperseded})
		return
	}
	next := a.grant.refreshed(Grant{
		AccessToken: a.grant.AccessToken, ObtainedAt: a.grant.ObtainedAt, ExpiresAt: a.grant.ExpiresAt,
		RefreshToken: refreshToken, RefreshObtained: now,
	}, c.refreshToken)
	next.Version = a.nextVersion()
	failures := a.failures
	a.hold(next)
	a.failures = failures // it has failed all the same
	f.epoch = a.epoch
	a.owed = max(a.owed, refreshed)
	a.mu.Unlock()
	_ = f.m.save(a) // if it fails it is observed, and tried again
}

// handOut puts a held grant's token into service, unless the grant was replaced meanwhile.
func (a *account) handOut(cur *access, epoch int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.epoch == epoch {
		a.current.Store(cur)
		a.broadcast()
	}
}

// refused looks for another token to try: a newer one in the store, then once the one before.
func (f *flight) refused(c choice, refusal *RefusedError) error {
	a := f.a
	if c.seed {
		return f.seedRefused(c, refusal)
	}
	if !c.previous {
		if err := f.m.look(a); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.epoch != c.epoch:
		return errAgain
	case c.previous:
		a.fellBack = true
		return refusal
	case a.grant.PreviousRefresh == "" || a.fellBack:
		return refusal
	default:
		f.refusedIn = c.epoch
		return errAgain
	}
}

// land notes how the flight ended. a.mu is held. ok: the event is worth telling.
func (f *flight) land(err error) (event Event, ok bool) {
	a, now := f.a, time.Now()
	a.suspicion.end(f.replace, err, now)
	replaced := a.epoch != f.epoch // the grant; what happened says nothing of the new one
	refusal := new(RefusedError)
	switch {
	case err == nil && f.refresh:
		a.failure, a.failures, a.notBefore = nil, 0, time.Time{}
		return Event{}, false
	case f.m.life.Err() != nil && uncertain(err):
		a.interrupted = true
		return Event{}, false
	case err == nil, f.m.open.Err() != nil, !f.refresh && a.known, replaced && a.current.Load().good(now):
		return Event{}, false
	case errors.As(err, &refusal) && !replaced:
		a.refused, a.refusedApp = refusal, f.app
		a.refusals++
		a.notBefore = now.Add(probe(a.refusals))
		a.outcome = LastRefresh{At: now, Outcome: OutcomeRefused}
		return Event{Account: a.name, Kind: EventRefused, Err: err, Next: a.notBefore}, true
	default:
		a.fail(err, now)
		return Event{Account: a.name, Kind: EventTrouble, Err: err, Next: a.notBefore}, true
	}
}

// uncertain reports whether a refresh token may have been spent without our seeing the answer.
func uncertain(err error) bool {
	trouble := new(TroubleError)
	return errors.As(err, &trouble) && trouble.Uncertain
}
