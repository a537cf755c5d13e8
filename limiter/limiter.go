// Package limiter answers one question: when may the next request go?
//
// A window says "at most 120 in any minute"; a budget is all the windows of one
// key (an account, the address we leave from, an account's refreshes); a permit
// is leave to send one attempt. A request takes one permit, which is counted in
// every budget it names, in one step or not at all.
//
// The count is exact: at most N in any window of the stated length plus guard,
// wherever that window begins, so it also holds in every clock-aligned window.
// A token bucket cannot promise that (one of 120 a minute lets 239 through in
// its first minute), which is why golang.org/x/time/rate is not used here.
//
// When the upstream counts a request is not known: some time between the permit
// and the last byte of the request leaving. So a permit is open until its holder
// says that the request was sent, and counts as taken this moment while it is.
//
// A request over budget waits its turn if that is expected within its MaxWait; if not,
// it is told at once when to come back. Those of one client are served in order of arrival,
// and several clients in turn, by weight, however many requests each lets wait.
package limiter

import (
	"errors"
	"fmt"
	"time"
)

// Window is "at most Requests in any Per". Requests is at least 1.
type Window struct {
	Requests int
	Per      time.Duration
}

// Budget names what a permit is counted in.
type Budget struct {
	// Key identifies the budget; two requests with one key share it.
	Key string
	// Windows hold together: a permit needs room in all of them. They may
	// change from one request to the next (configuration is reloaded): the past
	// counts in the new windows as far back as the old ones made it worth keeping.
	Windows []Window
	// Headroom permits of every window, but never its last one, are left to
	// others that use the same key with less headroom: API requests leave some
	// of the egress budget to refreshes, which they must never starve.
	Headroom int
}

// Request asks for one permit.
type Request struct {
	// Budgets are all charged, or none. The first one's key is also the
	// queue in which the request waits. Without budgets nothing is limited.
	Budgets []Budget
	// Client is who the permit is for: it takes turns with other clients of the same queue, and
	// what is used is reported by client.
	Client string
	// Weight is the client's part of what several share, in proportion to the others'. It counts as 1 if it
	// is 0, which says that no other client is expected: this one may use up the shortest window at
	// once. One that has a weight leaves room for others that may come, and gets its second half of the window, or more,
	// at an even pace.
	Weight int
	// MaxWait bounds the wait. 0 means now or not at all.
	MaxWait time.Duration
}

// Usage is what is left of one window of a budget.
type Usage struct {
	Window    Window
	Remaining int           // permits that could be taken now, beyond the headroom; 0 while paused
	Reset     time.Duration // until more can be taken: the oldest counted permit leaves the window, or a pause is over; 0 when there is neither
}

// ErrClosed is returned to all who wait, and to all who ask, once the limiter shuts down.
var ErrClosed = errors.New("limiter is shutting down")

// OverBudgetError says that a permit could not be had within MaxWait. Nothing was charged.
type OverBudgetError struct {
	Key        string        // the budget that has no room
	Window     Window        // its tightest window, or the zero Window while paused
	RetryAfter time.Duration // when a permit is expected for one who then asks again, from now; above 0
}

func (e *OverBudgetError) Error() string {
	return fmt.Sprintf("budget %q is used up for another %s", e.Key, e.RetryAfter.Round(time.Millisecond))
}

// EventKind says what an Event reports. Its text is fit for a log.
type EventKind string

// What is reported.
const (
	BudgetPaused     EventKind = "budget paused"             // Key, For
	BudgetShrunk     EventKind = "budget shrunk"             // Key: another program uses it, too; it grows back
	RedisLost        EventKind = "Redis lost"                // Err; each replica has its share of the budgets until it is back
	RedisReturned    EventKind = "Redis returned"            // each replica has its share until the others are back, too
	RedisLinked      EventKind = "Redis linked"              // all is counted in Redis
	ReplicaSilent    EventKind = "replica silent"            // it does not reach Redis and may count alone: the others leave it its share
	ReplicasHeard    EventKind = "replicas heard"            // none is silent any more, or it was one that died
	JournalDamaged   EventKind = "limiter journal damaged"   // Err; some of the past is unknown and taken for the worst
	JournalFailed    EventKind = "limiter journal failed"    // Err; it is tried again, meanwhile a restart would forget
	JournalRecovered EventKind = "limiter journal recovered" // all of it is on disk again
)

// Event is something that an operator may want to know.
type Event struct {
	Kind EventKind
	Key  string        // the budget
	For  time.Duration // how long, from now
	Err  error
}
