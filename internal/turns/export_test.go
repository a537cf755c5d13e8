package turns

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

// LeaseFor is how long a turn outlives its holder.
const LeaseFor = leaseFor
