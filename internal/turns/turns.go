// Package turns lets what must not happen at the same time happen one after the other: FreeAgent gives the same
// reference to two invoices that are created at once (https://api-discuss.freeagent.com/t/931, 2015, 2515).
//
// Its vocabulary: a turn is the leave to do some work that nobody else does meanwhile; its holder has it until it ends
// it. Who waits stands in a line, first come, first served. Local keeps the lines of one process, Redis those of several.
//
// Two decisions a reader would question:
//   - A turn in Redis is a lease, not a fencing token, since FreeAgent would not look at one: a process that is halted for longer than
//     the lease and then goes on does its work beside somebody else's. Nothing worse than FreeAgent's race comes of that.
//   - Without Redis work goes on, one at a time in each process: a create that may meet the race is better than none. A
//     failure or two are not enough for that: Redis may only have been slow, and others still know whose turn it is. Who
//     cannot work without Redis anyway insists, and gets no turn that others do not know of.
package turns

import (
	"errors"
	"fmt"
	"time"
)

// Key is what there is one turn of.
type Key struct {
	Account string // of the proxy's configuration; in a Redis Cluster it decides which server has the turn
	Work    string // which of the account's work, in any words: its company, method and path
}

// ErrAway says that Redis cannot be asked, to one who insists on a turn that all processes know of.
var ErrAway = errors.New("turns: Redis is away")

// ErrClosed says that no turns are given any more.
var ErrClosed = errors.New("turns: closed")

// BusyError says that the turn would come too late, or did not come in time.
type BusyError struct {
	RetryAfter time.Duration // when it may be free, by how long recent ones took; a second at least
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("turns: others have it for longer than this one may wait; free in about %s", e.RetryAfter)
}
