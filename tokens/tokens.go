// Package tokens gets, keeps and renews grants.
//
// A grant is one FreeAgent user's authorisation of one app: an access token that
// lives an hour and a refresh token that is exchanged for a new pair each time it
// is used (RFC 6749's terms; https://dev.freeagent.com/docs/oauth). Whether the
// spent refresh token dies at once is not known, so a new pair is never risked: it
// is stored before it is used, and if that fails serves from memory and is written
// until the write succeeds.
//
// The Manager answers from memory. What takes time happens in flights: at most
// one per account, detached from whoever waits for it, so that a client that
// hangs up disturbs nobody and no two requests refresh twice. A flight locks the
// grant in the Store (which proves that the Store can be written), reads it again,
// asks for leave to spend (see Lease), and only then spends the refresh token. Whoever needs a token that is not there
// waits for the account to change; nothing is tried for those who have left.
//
// Nobody but an operator deletes a grant. A refresh token that FreeAgent refuses is
// kept and tried again ever more rarely, since a wrong client secret looks the same.
package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Grant is one account's authorisation as it is kept.
type Grant struct {
	Account          string    `json:"account"`
	AccessToken      string    `json:"access_token,omitempty"` // empty: never refreshed yet
	RefreshToken     string    `json:"refresh_token"`
	PreviousRefresh  string    `json:"previous_refresh_token,omitempty"` // one-shot fallback, should the newest one be refused
	ObtainedAt       time.Time `json:"obtained_at"`                      // when AccessToken was received
	ExpiresAt        time.Time `json:"expires_at"`                       // of the access token
	RefreshObtained  time.Time `json:"refresh_obtained_at"`              // when RefreshToken was received
	RefreshExpiresAt time.Time `json:"refresh_expires_at,omitzero"`      // zero: not known
	// Version orders the writes of one account: max(previous+1, Unix milliseconds by the
	// Store's clock), so that it is not used twice, not even after Remove.
	Version int64 `json:"version"`
	// Seeds are the SHA-256 digests (hex) of the refresh tokens that were once
	// given from outside (environment, import). A seed that is listed was used or
	// superseded and never overwrites this grant again.
	Seeds []string `json:"seeds,omitempty"`
}

// Format prints a Grant without its tokens, whatever the verb. Its JSON is whole:
// that is what stores seal.
func (g Grant) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "grant of account %q, version %d [redacted]", g.Account, g.Version)
}

// Store keeps grants. A Store serialises nothing but what it says here; the
// Manager above it sees to it that one process refreshes an account once. An error
// that is none of those named wraps ErrStore and says what to do about it.
type Store interface {
	// Load returns the account's grant, with times by this process's clock, or ErrNoGrant. A store that remembers removals
	// returns with ErrNoGrant a Grant that has the removal's Version and nothing else,
	// and ErrForgotten when it knows of neither a grant nor a removal.
	Load(ctx context.Context, account string) (Grant, error)
	// Save writes next if the stored version is still previous (0: nothing is
	// stored, or a removal of a lower version than next); otherwise it writes nothing
	// and returns ErrConflict. A stored grant that cannot be read is never overwritten.
	// When Save returns nil the grant survives a crash and, with the file store, a power cut.
	Save(ctx context.Context, next Grant, previous int64) error
	// Remove deletes the account's grant; ErrNoGrant if there is none. What was saved
	// before it is not stored again by whoever still holds it.
	Remove(ctx context.Context, account string) error
	// Accounts lists the accounts that have a grant, sorted.
	Accounts(ctx context.Context) ([]string, error)
	// Lock makes the caller the only one who may refresh the account, over all
	// processes that share the store, and proves that the store can be
	// written before a refresh token is spent. It blocks until then, or until ctx
	// ends; the lock itself lasts until its Release. Save needs no lock: its versions
	// fence a holder that was too slow.
	Lock(ctx context.Context, account string) (Lease, error)
	// Now is what time it is for all processes that share the store, whose own clocks may differ. It does not block;
	// before the store was heard of it is our own.
	Now() time.Time
	Close() error
}

// Lease is the lock on an account, for its holder.
type Lease interface {
	// Spend gives leave to send one refresh request, with the grant of that version as it
	// is stored (0: with a refresh token from outside). The request must have begun to
	// leave before until (zero: no such bound): after it, another process may think that
	// nothing was sent. Spend blocks, until ctx ends, while a process that had the
	// lock before may yet bring the answer to its own request for the same version.
	// ErrConflict: another version is stored by now.
	Spend(ctx context.Context, version int64) (until time.Time, err error)
	// Release gives the lock to the next, and says that no answer is waited for any more. It
	// does not block; once more does nothing.
	Release()
}

// What a caller must tell apart.
var (
	// ErrNoGrant: the account was never authorised, or was removed.
	ErrNoGrant = errors.New("no grant stored")
	// ErrForgotten: the store knows nothing of the account, as if it had lost its data:
	// whoever holds a grant stores it again. It wraps ErrNoGrant.
	ErrForgotten = fmt.Errorf("%w, nor a removal", ErrNoGrant)
	// ErrReauthorize: FreeAgent refuses the grant; a person must authorise again.
	ErrReauthorize = errors.New("grant refused by FreeAgent")
	// ErrUnavailable: no token now, but the grant is kept and it goes on being tried.
	ErrUnavailable = errors.New("token endpoint unavailable")
	// ErrConflict: somebody else wrote the grant since it was read.
	ErrConflict = errors.New("grant changed meanwhile")
	// ErrStore: the store cannot be read or written. errors.Is finds it in every storage error.
	ErrStore = errors.New("grant store")
	// ErrNotRenewed: the token was not renewed, because it is not what the
	// resource rejects (see Manager.Renew); the 401 is the resource's own answer.
	ErrNotRenewed = errors.New("token not renewed: the resource rejects good tokens")
	// ErrUnknownAccount: no app is configured for the account.
	ErrUnknownAccount = errors.New("account is not configured")
	// ErrClosed: the manager is shutting down.
	ErrClosed = errors.New("token manager is shutting down")
)

// UnavailableError says that there is no token before the caller's patience ended.
// It wraps ErrUnavailable, what was wrong (such as ErrStore or a *TroubleError) if
// anything was, and the caller's context error.
type UnavailableError struct {
	Account string
	Err     error
	after   time.Duration
}

// RetryAfter is when asking again has a chance, from now: at least a second.
func (e *UnavailableError) RetryAfter() time.Duration { return max(e.after, time.Second) }

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("no access token for account %q now: %v", e.Account, e.Err)
}

// Unwrap makes errors.Is find ErrUnavailable and the cause.
func (e *UnavailableError) Unwrap() []error { return []error{ErrUnavailable, e.Err} }
