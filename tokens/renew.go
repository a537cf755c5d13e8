package tokens

import (
	"context"
	"fmt"
	"time"
)

// Attempt is one sending of a request with a token. Times are this process's own.
type Attempt struct {
	Account string
	Token   Token
	Sent    time.Time
	// Resource names what it was for, as coarsely as an answer to one request tells of
	// another: method, path with the ids taken out, subdomain.
	Resource string
	// Request names exactly what it was for: method, path, query, subdomain.
	Request string
	// Rejected is the token that the request's last attempt was answered 401 with, and
	// RejectedAt when its first one was; zero: none was.
	Rejected   Token
	RejectedAt time.Time
}

const (
	// minAge is how old a token must be before a 401 renews it: a newer one was good a moment ago,
	// and 500 requests whose token was revoked twice must not refresh for each.
	minAge = 5 * time.Second
	// stubbornAge is minAge for what is known to reject good tokens: asked again, since that may have
	// changed in the very moment in which the token was revoked, but no more than once a minute.
	stubbornAge = time.Minute
	// hearing is how long a 401 of which nobody knows whose fault it is waits for other answers to tell.
	hearing = 2 * time.Second
)

// Renew returns a token in place of one that was answered 401: the current one if that is
// another, else a new one. It renews only what may have been the token's fault, and returns
// ErrNotRenewed otherwise; its other errors are those of Token.
func (m *Manager) Renew(ctx context.Context, r Attempt) (Token, error) {
	a, err := m.account(r.Account)
	if err != nil {
		return Token{}, err
	}
	at, first := time.Now(), a.current.Load()
	return m.await(ctx, a, func(now time.Time) (Token, time.Time, error) {
		// An endpoint may give out the same token again: renewed all the same.
		if cur := a.current.Load(); cur == first && cur.good(now) && cur.token == r.Token {
			return m.renew(a, r, at, now)
		}
		return m.serve(a, now)
	})
}

// renew decides what a 401 to the current token, at that time, gets. a.mu is held.
func (m *Manager) renew(a *account, r Attempt, at, now time.Time) (Token, time.Time, error) {
	s, cur := &a.suspicion, a.current.Load()
	defer m.suspect(a)
	if a.flight != nil {
		return Token{}, time.Time{}, nil // what it brings may be the cure
	}
	if r.fresh(cur) || s.shownGood(r.Token, at) {
		s.blame(accusationOf(r, at), now)
		a.broadcast() // those who wait for the token to grow older need not
		return Token{}, time.Time{}, a.own(r)
	}
	trust := s.trust(r, now)
	allowed := s.allows(trust, now)
	if trust == stubborn && (!allowed || cur.age(now) < stubbornAge || a.refused != nil || a.failure != nil) {
		return Token{}, time.Time{}, a.own(r)
	}
	s.accuse(r, at)
	heard := at.Add(hearing)
	grown := now.Add(minAge - cur.age(now))
	switch {
	case a.refused != nil: // the token stays: it may be good for other resources
		return m.refusal(a, now)
	case (!allowed || trust == doubtful) && now.Before(heard):
		return Token{}, earlier(heard, cur.until), nil
	case !allowed:
		return Token{}, time.Time{}, a.own(r)
	case now.Before(grown):
		return Token{}, earlier(grown, cur.until), nil
	case now.Before(a.soonest()):
		return Token{}, a.soonest(), nil
	}
	s.begin(r, trust, now)
	m.start(a, errand{refresh: true, replace: r.Token})
	return Token{}, time.Time{}, nil
}

// fresh reports whether the request was rejected before the token was obtained, and then sent
// so soon that the token cannot have been revoked. A token that another request renewed
// earlier, or that waited long for its permit, can.
func (r Attempt) fresh(cur *access) bool {
	after := r.Sent.Sub(cur.obtained)
	return !r.RejectedAt.IsZero() && !cur.obtained.Before(r.RejectedAt) && 0 <= after && after < minAge
}

// own is the error that says that a 401 is the resource's own.
func (a *account) own(r Attempt) error {
	return fmt.Errorf("account %q, %s: %w", a.name, r.Resource, ErrNotRenewed)
}

// Suspicious reports whether Accepted has anything to note, which is rare: a caller may spare
// itself the making of names. It costs a nanosecond.
func (m *Manager) Suspicious() bool { return m.suspects.Load() > 0 }

// Accepted says that an attempt was answered with something other than 401. It costs next to
// nothing while no account is under suspicion.
func (m *Manager) Accepted(r Attempt) {
	if !m.Suspicious() {
		return
	}
	a, err := m.account(r.Account)
	if err != nil || !a.suspect.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.suspicion.accept(r, served(a.current.Load()), time.Now()) {
		a.broadcast()
	}
	m.suspect(a)
}

// suspect counts the account among the suspects, or no longer. a.mu is held.
func (m *Manager) suspect(a *account) {
	is := a.suspicion.any()
	if !is {
		a.suspicion = suspicion{}
	}
	if a.suspect.Swap(is) == is {
		return
	}
	if is {
		m.suspects.Add(1)
	} else {
		m.suspects.Add(-1)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
