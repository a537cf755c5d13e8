package simulator

import (
	"cmp"
	"slices"
	"time"
)

// Stats is what was seen at the wire since the last reset; GET /_sim/stats.
// Every figure counts arrivals, answered or not, refused or not.
type Stats struct {
	Since         time.Time `json:"since"`
	Requests      int64     `json:"requests"`       // below /v2, the token endpoint included
	InFlight      int64     `json:"in_flight"`      // now
	MaxInFlight   int64     `json:"max_in_flight"`  // the most at any time
	RateLimited   int64     `json:"rate_limited"`   // 429 by a limit, not by a fault
	Unauthorized  int64     `json:"unauthorized"`   // 401 of the API for whatever reason; the token endpoint is not part of it
	FaultsApplied int64     `json:"faults_applied"` // requests that a fault befell
	// Authorization counts API requests by what they showed: none, other (not
	// Bearer), unknown, expired, revoked, good.
	Authorization map[string]int64 `json:"authorization"`
	Users         []UserStats      `json:"users"`
	Sources       []SourceStats    `json:"sources"`
	Tokens        TokenStats       `json:"tokens"`
	Writes        WriteStats       `json:"writes"`
}

// UserStats is one user and subdomain. A request is its user's although its
// token has expired; one with an unknown token is nobody's.
type UserStats struct {
	User      string `json:"user"`
	Subdomain string `json:"subdomain,omitempty"`
	Source    string `json:"source,omitempty"` // with limit_by_source
	App       string `json:"app,omitempty"`    // with limit_by_app
	Count
}

// SourceStats is one source address.
type SourceStats struct {
	Source string `json:"source"`
	Count
}

// Count is how many requests came, how many of them got 429, and the most that any window held.
type Count struct {
	Requests    int64         `json:"requests"`
	RateLimited int64         `json:"rate_limited"`
	Windows     []WindowStats `json:"windows"`
}

// WindowStats is the most requests that any window of length Per held, wherever
// it began, and any that began at a multiple of Per on the clock.
type WindowStats struct {
	Window
	MaxSliding int `json:"max_sliding"` // 1048576 means: that many or more
	MaxAligned int `json:"max_aligned"`
}

// TokenStats is the token endpoint.
type TokenStats struct {
	Exchanges       int64          `json:"exchanges"`        // codes exchanged
	Refreshes       int64          `json:"refreshes"`        // refreshes that issued tokens
	RefreshRequests int64          `json:"refresh_requests"` // refreshes asked for, whatever came of it
	SpentTokens     int64          `json:"spent_tokens"`     // of those, with a refresh token that had been used before
	RateLimited     int64          `json:"rate_limited"`     // of those, refused with 429 by a limit
	Refused         int64          `json:"refused"`          // exchanges and refreshes refused: bad code, token or client
	Users           []RefreshStats `json:"users"`
}

// RefreshStats is the refresh requests of one user.
type RefreshStats struct {
	User string `json:"user"`
	Count
}

// tokenCounts are the figures of TokenStats that are not by user.
type tokenCounts struct{ exchanges, refreshes, requests, spent, limited, refused int64 }

// countTokens lets f add to the token endpoint's figures.
func (m *meter) countTokens(f func(*tokenCounts)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.tokens)
}

// countDenied counts a 401 of the API.
func (m *meter) countDenied() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.denied++
}

// stats fills in all but what other parts count.
func (m *meter) stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := Stats{
		Since: m.since, Requests: m.total, RateLimited: m.refused, Unauthorized: m.denied,
		Authorization: make(map[string]int64, len(m.auth)),
		Users:         make([]UserStats, 0, len(m.users)),
		Sources:       make([]SourceStats, 0, len(m.sources)),
		Tokens: TokenStats{
			Exchanges: m.tokens.exchanges, Refreshes: m.tokens.refreshes, RefreshRequests: m.tokens.requests,
			SpentTokens: m.tokens.spent, RateLimited: m.tokens.limited, Refused: m.tokens.refused,
			Users: make([]RefreshStats, 0, len(m.refreshes)),
		},
	}
	for shown, n := range m.auth {
		out.Authorization[shown] = n
	}
	for k, c := range m.users {
		out.Users = append(out.Users, UserStats{k.user, k.subdomain, k.source, k.app, c.count(m.rules.user)})
	}
	for source, c := range m.sources {
		out.Sources = append(out.Sources, SourceStats{source, c.count(m.rules.source)})
	}
	for user, c := range m.refreshes {
		out.Tokens.Users = append(out.Tokens.Users, RefreshStats{user, c.count(m.rules.refresh)})
	}
	slices.SortFunc(out.Users, func(a, b UserStats) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Subdomain, b.Subdomain),
			cmp.Compare(a.Source, b.Source), cmp.Compare(a.App, b.App))
	})
	slices.SortFunc(out.Sources, func(a, b SourceStats) int { return cmp.Compare(a.Source, b.Source) })
	slices.SortFunc(out.Tokens.Users, func(a, b RefreshStats) int { return cmp.Compare(a.User, b.User) })
	return out
}

func (c *counter) count(windows []Window) Count {
	out := Count{Requests: c.requests, RateLimited: c.refused, Windows: make([]WindowStats, 0, len(windows))}
	for i, w := range windows {
		t := c.seen.windows[i]
		out.Windows = append(out.Windows, WindowStats{w, t.maxSliding, t.maxAligned})
	}
	return out
}
