package tokens

import (
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// account is all that is known of one account. An idle one has neither goroutine nor timer.
type account struct {
	name    string
	current atomic.Pointer[access] // what is handed out; written under mu
	suspect atomic.Bool            // its suspicion has something to find out
	clock   func() time.Time       // the Store's
	writing chan struct{}          // full while the grant is being written or removed; taken before mu

	mu      sync.Mutex    // never held over network or disk
	changed chan struct{} // closed, and made anew, when those who wait should look again
	flight  *flight       // the one in progress
	timer   *time.Timer   // for what is due

	grant    Grant     // the newest, stored or not; Version 0: none
	epoch    int       // changes of grant: what was begun in an older epoch is void
	last     int64     // the highest version seen
	known    bool      // the store has said whether there is a grant
	lookedAt time.Time // when it was last asked to
	seed     seed

	owed         debt  // what the store does not have yet
	stored       int64 // the version it has
	looking      bool  // because of Changed
	lookAgain    bool  // it changed meanwhile
	saveErr      error
	saveFailures int
	saveAt       time.Time

	refused    *RefusedError // FreeAgent refuses the grant
	refusedApp App           // as which app
	refusals   int           // in a row
	fellBack   bool          // PreviousRefresh was refused too
	failure    error         // why the last try came to nothing
	failures   int           // in a row
	notBefore  time.Time     // when the next try may be
	spare      time.Duration // how much sooner it may be for somebody who waits
	outcome    LastRefresh   // if not ok

	suspicion   suspicion
	interrupted bool // Close cut a token request off whose answer nobody saw
}

// debt is what the store does not have yet, by the right with which it is written.
type debt int

const (
	nothing   debt = iota
	refreshed      // the outcome of a refresh: gives way to whatever was written meanwhile
	consented      // an operator's grant: replaces whatever was written meanwhile
)

func newAccount(name string, clock func() time.Time) *account {
	return &account{name: name, clock: clock, writing: make(chan struct{}, 1), changed: make(chan struct{})}
}

// at reports whether the grant is still the one of that epoch.
func (a *account) at(epoch int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.epoch == epoch
}

// set makes g the account's grant, and its token the one that is handed out; the zero Grant
// means none. a.mu is held, as in all that follow.
func (a *account) set(g Grant) {
	if g.AccessToken != a.grant.AccessToken || !g.ObtainedAt.Equal(a.grant.ObtainedAt) || !g.ExpiresAt.Equal(a.grant.ExpiresAt) {
		a.current.Store(newAccess(g))
	}
	a.hold(g)
	a.broadcast()
}

// hold makes g the account's grant, without handing its token out yet. What was held
// against the last grant is forgotten.
func (a *account) hold(g Grant) {
	a.grant, a.known = g.anchored(time.Now()), true
	a.epoch++
	a.last = max(a.last, g.Version)
	a.refused, a.refusals, a.fellBack = nil, 0, false
	a.failure, a.failures, a.notBefore = nil, 0, time.Time{}
}

// settled notes that the store has what we have, at that version.
func (a *account) settled(version int64) {
	a.owed, a.stored = nothing, version
	a.saveErr, a.saveFailures = nil, 0
}

// nextVersion is higher than any version seen.
func (a *account) nextVersion() int64 {
	return max(a.last+1, a.clock().UnixMilli())
}

// broadcast makes all who wait look again.
func (a *account) broadcast() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// fail notes trouble, and when to try again.
func (a *account) fail(err error, now time.Time) {
	a.failure = err
	a.failures++
	pause := backoff(a.failures)
	a.spare = 0
	if trouble := new(TroubleError); errors.As(err, &trouble) {
		a.outcome = LastRefresh{At: now, Outcome: OutcomeTrouble}
		soonest := max(pause, min(trouble.pause(), longestBackoff()))
		pause = max(pause, trouble.pause())
		a.spare = pause - soonest
	}
	if a.refused != nil { // a probe: it need not hurry
		pause = max(pause, probe(a.refusals))
	}
	a.notBefore = now.Add(pause)
}

// soonest is when the next try may be for somebody who waits.
func (a *account) soonest() time.Time { return a.notBefore.Add(-a.spare) }

// due is when something must be done though nobody asks; zero: never. For an account that is not configured, that is to pay
// what is owed to the store.
func (a *account) due(now time.Time, configured bool) time.Time {
	if a.flight != nil {
		return time.Time{} // when it ends we look again
	}
	var due time.Time
	earliest := func(at time.Time) {
		if due.IsZero() || at.Before(due) {
			due = at
		}
	}
	if a.owed != nothing {
		earliest(a.saveAt)
	}
	if !configured {
		return due
	}
	if a.refused != nil {
		earliest(later(a.notBefore, now))
	}
	if a.seedWaits() {
		earliest(later(later(a.notBefore, a.seed.notBefore), now))
	}
	if cur := a.current.Load(); cur.good(now) && cur.used.Load() {
		earliest(later(a.notBefore, cur.ahead))
	}
	return due
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// schedule sets the timer for what is due. a.mu is held.
func (m *Manager) schedule(a *account) {
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
	now := time.Now()
	if due := a.due(now, m.configured(a.name)); !due.IsZero() && m.open.Err() == nil {
		a.timer = time.AfterFunc(due.Sub(now), func() { m.wake(a) })
	}
}

// wake does what is due.
func (m *Manager) wake(a *account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	cur := a.current.Load()
	ready := !now.Before(a.notBefore) && m.configured(a.name)
	switch {
	case ready && a.refused != nil:
		m.start(a, errand{refresh: true, replace: served(cur)})
	case ready && cur.good(now) && cur.used.Load() && !now.Before(cur.ahead):
		m.start(a, errand{refresh: true, replace: cur.token})
	case ready && a.seedWaits() && !now.Before(a.seed.notBefore):
		m.start(a, errand{refresh: true})
	case a.owed != nothing && !now.Before(a.saveAt):
		m.start(a, errand{})
	default:
		m.schedule(a)
	}
}

// served is the token that is handed out, or the zero Token.
func served(cur *access) Token {
	if cur == nil {
		return Token{}
	}
	return cur.token
}

const (
	// minBackoff and maxBackoff bound the pause between tries while clients wait for a token,
	// to which up to a quarter is added: 1 s at first, 10 s at most.
	minBackoff = time.Second
	maxBackoff = 8 * time.Second
	// maxRetryAfter is the longest pause that a 429 can ask for while nobody waits: FreeAgent's limits on refreshes
	// are per minute, and a longer wish is more likely a mistake than a rule. FreeAgent says a minute whenever its
	// own began, so who waits tries again after maxBackoff at most: a few of the 15 tries of a minute.
	maxRetryAfter = time.Minute
	// minProbe and maxProbe bound the pause between tries of a refused grant: 1, 2, 4 … 60 minutes.
	minProbe = time.Minute
	maxProbe = time.Hour
)

// backoff is the pause after so many failures in a row.
func backoff(failures int) time.Duration {
	d := min(minBackoff<<min(failures-1, 10), maxBackoff)
	return d + rand.N(d/4)
}

// longestBackoff is the longest pause while clients wait.
func longestBackoff() time.Duration { return backoff(math.MaxInt) }

// probe is the pause before a refused grant is tried again.
func probe(refusals int) time.Duration {
	return min(minProbe<<min(refusals-1, 10), maxProbe)
}
