// Package admin is what the operator sees of a running proxy: the page, its JSON, and the buttons that connect an
// account to FreeAgent.
//
// It knows none of the parts of the proxy: whoever makes the handler says how things stand, as a Status, and does
// what the buttons ask for.
package admin

import "time"

// Status is how the proxy stands: the answer of /api/status, and what the page shows. It never holds a secret.
type Status struct {
	Version   string     `json:"version"`
	StartedAt time.Time  `json:"started_at"`
	Now       time.Time  `json:"now"` // by the proxy's clock, which the other times are to be compared with
	Ready     bool       `json:"ready"`
	Reason    string     `json:"reason,omitempty"` // why it is not ready
	Accounts  []Account  `json:"accounts"`         // by name
	Store     Store      `json:"store"`
	Egress    *Budget    `json:"egress,omitempty"` // of the address that all accounts leave from
	Incidents []Incident `json:"incidents"`        // the newest first; at most 50
}

// Account is how one FreeAgent user's authorisation stands.
type Account struct {
	Name    string `json:"name"`
	Default bool   `json:"default"`
	App     string `json:"app"`
	Company string `json:"company,omitempty"` // its name at FreeAgent, once known
	State   string `json:"state"`             // ok, reauthorise, unauthorised or trouble
	Reason  string `json:"reason"`            // a sentence, unless State is ok
	Unsaved bool   `json:"unsaved,omitempty"` // the newest tokens are in memory only

	AccessObtainedAt *time.Time   `json:"access_obtained_at"`
	AccessExpiresAt  *time.Time   `json:"access_expires_at"`  // null: there is no access token
	RefreshExpiresAt *time.Time   `json:"refresh_expires_at"` // null: not known
	LastRefresh      *LastRefresh `json:"last_refresh"`       // null: none is known
	NextTry          *time.Time   `json:"next_try,omitempty"` // after a failure

	Budget
	// Companies are a practice's, of which each has a budget of its own: those in use, by subdomain. Of more than 50, the busiest.
	Companies []Company `json:"companies,omitempty"`
}

// LastRefresh is when a refresh or an authorisation last ended, and how: ok, refused or trouble.
type LastRefresh struct {
	At      time.Time `json:"at"`
	Outcome string    `json:"outcome"`
}

// Company is a client's company of a practice.
type Company struct {
	Subdomain string `json:"subdomain"`
	Budget
}

// Budget is what is left of some windows that hold together. All but Queue is over all processes that share the store.
type Budget struct {
	Windows     []Window   `json:"budget"`
	PausedUntil *time.Time `json:"paused_until"` // null: it is not paused
	Queue       int        `json:"queue"`        // requests that wait at this process
}

// Window is what is left of "at most Requests in any Per".
type Window struct {
	Requests  int            `json:"requests"`
	Per       string         `json:"per"`       // as the configuration writes it: 1m
	Allowed   int            `json:"allowed"`   // of Requests, now: fewer while the budget has shrunk, or this process has a share alone
	Remaining int            `json:"remaining"` // that could go now; 0 while paused
	UsedBy    map[string]int `json:"used_by"`   // by client
}

// Store is where the grants are kept.
type Store struct {
	Kind     string `json:"kind"`               // file or redis
	Up       bool   `json:"up"`                 // it answers; a folder could be read and written when that was last tried
	State    string `json:"state"`              // the limiter's: local; linked, returning, alone or unseen
	Replicas int    `json:"replicas,omitempty"` // seen alive in Redis, this one included
	Silent   int    `json:"silent,omitempty"`   // more that do not reach Redis, and may count their shares alone
}

// Incident is a request that was refused or failed, or a warning of the proxy's: one, or several that are alike.
type Incident struct {
	At        time.Time `json:"at"`    // of the newest
	Count     int       `json:"count"` // how many were alike
	RequestID string    `json:"request_id,omitempty"`
	Client    string    `json:"client,omitempty"`
	Account   string    `json:"account,omitempty"`
	Method    string    `json:"method,omitempty"`
	Path      string    `json:"path,omitempty"`
	Status    int       `json:"status,omitempty"` // that the client got; none: it is a warning
	Reason    string    `json:"reason"`           // a sentence, as in the log
}
