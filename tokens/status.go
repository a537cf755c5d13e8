package tokens

import (
	"errors"
	"fmt"
	"time"
)

// EventKind says what happened to an account.
type EventKind string

// The kinds of events. Those that a person should know of are marked.
const (
	EventRefreshed   EventKind = "refreshed"    // a new pair serves
	EventAdopted     EventKind = "adopted"      // another process stored a newer grant, which serves now
	EventAuthorized  EventKind = "authorized"   // an operator gave a new grant
	EventRemoved     EventKind = "removed"      // the grant was removed, here or by another process
	EventSuperseded  EventKind = "superseded"   // a refreshed pair was dropped: the grant had been replaced or removed meanwhile
	EventRefused     EventKind = "refused"      // someone must authorise again, or correct client id and secret; Err says how FreeAgent answered
	EventTrouble     EventKind = "trouble"      // no new token for now, because of Err
	EventUnsaved     EventKind = "unsaved"      // someone must see to the store: a new pair serves from memory alone, because of Err
	EventSaved       EventKind = "saved"        // and now it is stored
	EventSeedRefused EventKind = "seed refused" // FreeAgent refuses the configured refresh token; the stored grant goes on
	EventSeedTrouble EventKind = "seed trouble" // the configured refresh token could not be tried, because of Err; the stored grant goes on
)

// Event is a change of an account's state, or the outcome of an attempt. It holds no secret.
type Event struct {
	Account string
	Kind    EventKind
	Err     error     // the cause, where there is one
	Next    time.Time // when it is tried again; zero: when somebody asks
}

// State is how an account stands.
type State string

// The states of an account.
const (
	StateOK           State = "ok"           // there is a good token, or one will be had when it is asked for
	StateReauthorise  State = "reauthorise"  // FreeAgent refuses the grant
	StateUnauthorised State = "unauthorised" // there is no grant
	StateTrouble      State = "trouble"      // the last try failed, or the newest pair is not stored; it is tried again
)

// LastRefresh is when a refresh (or an authorisation) last ended, and how. The zero value: none is known.
type LastRefresh struct {
	At      time.Time
	Outcome Outcome
}

// Outcome is how a refresh ended.
type Outcome string

// The outcomes of a refresh.
const (
	OutcomeOK      Outcome = "ok"
	OutcomeRefused Outcome = "refused"
	OutcomeTrouble Outcome = "trouble"
)

// Status is how an account stands, for the operator.
type Status struct {
	Account          string
	State            State
	Reason           string // a sentence, unless State is ok
	Usable           bool   // there is a good access token now
	Refreshing       bool
	Unsaved          bool      // the newest grant is in memory only, and is written until that works
	StoreFails       bool      // it is the Store that kept the last try from working
	AccessObtainedAt time.Time // zero: there is no access token
	AccessExpiresAt  time.Time // likewise
	RefreshExpiresAt time.Time // zero: not known
	LastRefresh      LastRefresh
	NextTry          time.Time // after a failure; zero: when somebody asks
}

// Status says how an account stands, as far as memory knows. It does not count as use.
func (m *Manager) Status(name string) Status {
	a, err := m.account(name)
	if err != nil {
		return Status{Account: name, State: StateUnauthorised, Reason: err.Error()}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	s := Status{
		Account:          name,
		Usable:           a.usable(now),
		Refreshing:       a.flight != nil && a.flight.refresh,
		Unsaved:          a.owed != nothing,
		StoreFails:       a.saveErr != nil || errors.Is(a.failure, ErrStore),
		AccessExpiresAt:  a.grant.ExpiresAt,
		RefreshExpiresAt: a.grant.RefreshExpiresAt,
		LastRefresh:      a.outcome,
	}
	if a.grant.ObtainedAt.After(s.LastRefresh.At) {
		s.LastRefresh = LastRefresh{At: a.grant.ObtainedAt, Outcome: OutcomeOK}
	}
	if a.notBefore.After(now) {
		s.NextTry = a.notBefore
	}
	if a.grant.AccessToken != "" {
		s.AccessObtainedAt = a.grant.ObtainedAt
	}
	s.State, s.Reason = a.state()
	return s
}

// usable reports whether there is a good token. When the grant is refused, one that was rejected
// is not, until a resource accepts it again. a.mu is held.
func (a *account) usable(now time.Time) bool {
	cur := a.current.Load()
	return cur.good(now) && (a.refused == nil || !a.suspicion.accuses(cur.token))
}

// state sums an account up. a.mu is held.
func (a *account) state() (State, string) {
	switch {
	case a.refused != nil:
		return StateReauthorise, fmt.Sprintf("FreeAgent refuses the grant: %v", a.refused)
	case a.failure != nil:
		return StateTrouble, fmt.Sprintf("no refresh for now, it is tried again: %v", a.failure)
	case a.saveErr != nil:
		return StateTrouble, fmt.Sprintf("the newest tokens are held in memory only, and saved again until it works: %v", a.saveErr)
	case a.grant.Version != 0 || a.seed.token != "":
		return StateOK, ""
	case a.known:
		return StateUnauthorised, "never authorised, or removed: authorise this account"
	default:
		return StateOK, "" // not asked for yet
	}
}
