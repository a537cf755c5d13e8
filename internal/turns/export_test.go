package turns

import "time"

// Waiting is how many wait for a turn in this process.
func (l *Local) Waiting(key Key) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held := l.lines[key]; held != nil {
		return len(held.waiting)
	}
	return 0
}

// Lines is how many turns are held in this process.
func (l *Local) Lines() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

// Patient lets Redis take longer for an answer than a busy machine does.
func (r *Redis) Patient() *Redis {
	r.callFor = 10 * time.Second
	return r
}

// Hopeful takes Redis for slow, not for away, for so long.
func (r *Redis) Hopeful(d time.Duration) *Redis {
	r.hopeFor = d
	return r
}

// Lasting lets a turn outlive its holder for longer than a busy machine halts that.
func (r *Redis) Lasting() *Redis {
	r.lease = 10 * leaseFor
	return r
}

// LeaseFor is how long a turn outlives its holder.
const LeaseFor = leaseFor
