package tokens

import "time"

// Locks and marks die by the clock of Redis's machine. If that is set forward they die at once, although their holders live, who put
// them back when they next renew. Each process compares that clock with its own whenever it takes a lock, or leave to spend; when it
// finds that it was set, it spends nothing before the others have had time for that.

// clockStep is what is taken for a step of Redis's clock: more than two clocks come apart between two refreshes, or an answer is
// late. A smaller one does no harm: a lock is renewed 10 s before it dies, and a mark has 5 s for clocks (see markLife).
const clockStep = 2500 * time.Millisecond

// serverClock is what is known of a server's clock.
type serverClock struct {
	ahead   time.Duration // of the time since this store was made
	trusted time.Time     // from when on it is known again who is spending there
}

// told notes what a server's clock said, in Unix ms, in an answer that came just now. It returns from when on the server can be trusted:
// later than now if its clock was set forward since it was last looked at. r.mu is held.
func (r *Redis) told(server string, unixMilli int64) time.Time {
	if server == "" { // it does not say, and in a Cluster each has a clock
		return time.Time{}
	}
	c, known := r.clocks[server]
	ahead := time.Duration(unixMilli)*time.Millisecond - time.Since(r.made)
	if known && ahead-c.ahead > clockStep {
		c.trusted = time.Now().Add(r.cfg.Lease/renewals + settleTime) // longer than holders take to put back what died
	}
	c.ahead = ahead
	r.clocks[server] = c
	return c.trusted
}

// latest is the latest that a server's clock says now if it was not set, in Unix ms; 0: it was never looked at.
func (r *Redis) latest(server string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, known := r.clocks[server]
	if !known {
		return 0
	}
	return (time.Since(r.made) + c.ahead + clockStep).Milliseconds()
}
