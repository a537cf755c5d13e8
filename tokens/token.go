package tokens

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
	"unique"
)

// Token is an access token, ready to be sent. Tokens compare with ==; the zero
// Token is none. It prints as [redacted] however it is printed: the value is behind
// a handle because fmt calls no method of a value in an unexported field.
type Token struct {
	header unique.Handle[string]
}

const redacted = "[redacted]"

func newToken(accessToken string) Token {
	return Token{unique.Make("Bearer " + accessToken)}
}

// Authorization is the value of the Authorization header: "Bearer …"; "" for the zero Token.
func (t Token) Authorization() string {
	if t == (Token{}) {
		return ""
	}
	return t.header.Value()
}

// String returns [redacted].
func (t Token) String() string { return redacted }

// Format prints [redacted] for every verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns [redacted].
func (t Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

const (
	// refreshAhead is how long before expiry a token is renewed in the background: longer than
	// any upstream call may take (75 s) and than a refresh budget's minute, much shorter than
	// FreeAgent's hour. A token that lives less than 25 minutes takes a fifth of its life.
	refreshAhead = 5 * time.Minute
	// expiryMargin is how long before expiry a token serves no more: its way to FreeAgent,
	// and clocks that differ. A token that lives less than 100 s takes a tenth of its life.
	expiryMargin = 10 * time.Second
)

// access is an access token in service.
type access struct {
	token    Token
	obtained time.Time
	until    time.Time // serves until then: its expiry less the margin
	ahead    time.Time // if in use, renewed from then on
	used     atomic.Bool
}

// newAccess returns nil for a grant that was never refreshed.
func newAccess(g Grant) *access {
	if g.AccessToken == "" {
		return nil
	}
	now := time.Now()
	g = g.anchored(now)
	life := max(g.ExpiresAt.Sub(g.ObtainedAt), 0)
	expires := earlier(g.ExpiresAt, now.Add(life)) // it was obtained before now, whatever the clock says
	ahead := min(refreshAhead, life/5)
	ahead -= rand.N(ahead/5 + 1) // so that replicas do not all come at once
	return &access{
		token:    newToken(g.AccessToken),
		obtained: g.ObtainedAt,
		until:    expires.Add(-min(expiryMargin, life/10)),
		ahead:    expires.Add(-ahead),
	}
}

// good reports whether the token may be sent. A nil access is not good.
func (c *access) good(now time.Time) bool {
	return c != nil && now.Before(c.until)
}

// age is how long ago the token was obtained. One from the future, after a clock was
// set back, is old: else nobody could tell for how long it had not been renewed.
func (c *access) age(now time.Time) time.Duration {
	if c.obtained.After(now) {
		return math.MaxInt64
	}
	return now.Sub(c.obtained)
}
