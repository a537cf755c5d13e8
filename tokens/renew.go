package tokens

import (
	"context"
	"fmt"
	"time"
)

// Rejection is a 401 that a token met with.
type Rejection struct {
	Account string
	Token   Token // the one that was sent
	// Resource names what rejected it, as coarsely as an answer to one request tells
	// of another: method, path with the ids taken out, subdomain.
	Resource string
}

const (
	// minAge is how old a token must be before a 401 renews it: a newer one was good a moment ago,
	// and 500 requests whose token was revoked twice must not refresh for each.
	minAge = 5 * time.Second
	// maxAge is what minAge doubles to, from the second renewal in a row that cured nothing: a
	// company where everything is 401 does not cost a refresh for each of its resources.
	maxAge = time.Minute
	// stubbornAge is minAge for a resource that rejected a fresh token before: at
	// most two refreshes in any minute, however often it is polled.
	stubbornAge = 31 * time.Second
	// maxPatience is the longest that a request is held back for its token to grow old enough. A
	// longer wait takes three useless renewals: by then the 401 is no token's fault.
	maxPatience = 10 * time.Second
	// maxStubborn bounds what is remembered of an account; what lies back longest is forgotten.
	maxStubborn = 256
)

// Renew returns a token in place of one that was rejected: the current one if that is
// another, else a new one. It renews only what may have been the token's fault, and returns
// ErrNotRenewed otherwise; its other errors are those of Token.
func (m *Manager) Renew(ctx context.Context, r Rejection) (Token, error) {
	a, err := m.account(r.Account)
	if err != nil {
		return Token{}, err
	}
	first := a.current.Load()
	return m.await(ctx, a, func(now time.Time) (Token, time.Time, error) {
		// An endpoint may give out the same token again: renewed all the same.
		if cur := a.current.Load(); cur == first && served(cur) == r.Token && r.Token != (Token{}) {
			return m.renew(a, r, cur, now)
		}
		return m.serve(a, now)
	})
}

// renew decides what the rejection of the current token gets. a.mu is held.
func (m *Manager) renew(a *account, r Rejection, cur *access, now time.Time) (Token, time.Time, error) {
	_, stubborn := a.stubborn[r.Resource]
	wait := a.minAge(stubborn) - cur.age(now)
	switch {
	case !cur.good(now):
	case stubborn && (wait > 0 || a.refused != nil), wait > maxPatience:
		return Token{}, time.Time{}, fmt.Errorf("account %q, %s: %w", a.name, r.Resource, ErrNotRenewed)
	case wait > 0:
		return Token{}, earlier(now.Add(wait), cur.until), nil
	}
	if a.refused != nil {
		a.current.Store(nil) // it was the last one
		return m.serve(a, now)
	}
	if a.flight == nil && now.Before(a.notBefore) {
		return Token{}, a.notBefore, nil
	}
	m.start(a, errand{refresh: true, replace: r.Token, rejected: !stubborn})
	return Token{}, time.Time{}, nil
}

// minAge is how old the account's token must be before a 401 renews it.
func (a *account) minAge(stubborn bool) time.Duration {
	age := min(minAge<<min(max(a.useless-1, 0), 10), maxAge)
	if stubborn {
		age = max(age, stubbornAge)
	}
	return age
}

// Suspicious reports whether Accepted has anything to note, which is rare: a caller may spare
// itself the making of a resource's name. It costs a nanosecond.
func (m *Manager) Suspicious() bool { return m.suspects.Load() > 0 }

// Accepted says that upstream answered the token with something other than 401. It costs next
// to nothing while no account is under suspicion.
func (m *Manager) Accepted(account, resource string, t Token) {
	if !m.Suspicious() {
		return
	}
	a, err := m.account(account)
	if err != nil || !a.suspect.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if served(a.current.Load()) == t {
		a.useless = 0
		delete(a.stubborn, resource)
		m.suspect(a)
	}
}

// StillRejected says that a resource rejected the token that Renew had returned for it. If
// the token is fresh the fault is the resource's.
func (m *Manager) StillRejected(account, resource string, t Token) {
	a, err := m.account(account)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	cur := a.current.Load()
	if served(cur) != t || t == (Token{}) || cur.age(now) >= stubbornAge {
		return
	}
	// Counted once for each token, however many requests say so, and not for a
	// resource of which nothing else was to be expected.
	if _, known := a.stubborn[resource]; !known && a.uselessFor != t {
		a.useless, a.uselessFor = a.useless+1, t
	}
	if a.stubborn == nil {
		a.stubborn = make(map[string]time.Time)
	}
	a.stubborn[resource] = now
	a.forget()
	m.suspect(a)
	a.broadcast() // those who wait for the token to grow older need not
}

// forget drops the resource that last rejected a fresh token longest ago, if there are too many.
func (a *account) forget() {
	if len(a.stubborn) <= maxStubborn {
		return
	}
	var oldest string
	for resource, at := range a.stubborn {
		if oldest == "" || at.Before(a.stubborn[oldest]) {
			oldest = resource
		}
	}
	delete(a.stubborn, oldest)
}

// suspect counts the account among the suspects, or no longer. a.mu is held.
func (m *Manager) suspect(a *account) {
	is := a.useless > 0 || len(a.stubborn) > 0
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
