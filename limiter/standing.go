package limiter

import "time"

// Standing is how one budget stands at this process.
type Standing struct {
	Key     string
	Waiting int           // requests that wait and name it first
	Paused  time.Duration // for how much longer nobody has a permit; 0: it is not paused
	Whole   float64       // how much of it is ours: below 1 while another program uses it, too
}

// Standings tells of all budgets that are in use, or were until a moment ago, in no order: for who watches, since it
// looks at each of them.
func (l *Local) Standings() []Standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	all := make([]Standing, 0, len(l.all))
	for _, b := range l.all {
		all = append(all, Standing{
			Key: b.key, Waiting: len(b.queue.tickets), Paused: max(0, b.paused-now), Whole: b.shrunk.share(now),
		})
	}
	return all
}
