package limiter

import "time"

// Whoever floods would use up a window as soon as there is room, and the next client would find none until the window
// has passed by. So where several share a budget, a client takes half of its fair part of the shortest window as it
// likes, and what goes beyond that at an even pace: at each moment the slowest by which neither this window nor a longer
// one is used up before room comes back. That costs no throughput, but for the last one in fifty permits of a
// window, which is for those who have not had their half.

// paces are the windows with which the pace is kept: the shortest and the longest. They may be the same.
func (b *Budget) paces() (shortest, longest *Window) {
	for i := range b.Windows {
		w := &b.Windows[i]
		if shortest == nil || w.Per < shortest.Per {
			shortest = w
		}
		if longest == nil || w.Per > longest.Per {
			longest = w
		}
	}
	return shortest, longest
}

// parts are times in the shortest and in the longest window.
type parts [2]time.Duration

// cost is how much one permit is of the line's fair part of these windows: after as many as the part has, the window's
// length is paid for.
func (l *Local) cost(n *line, want *Budget, now time.Duration) (costs parts) {
	shortest, longest := want.paces()
	if shortest == nil {
		return costs
	}
	costs[0] = l.costIn(n, want, *shortest, now)
	if costs[1] = costs[0]; longest != shortest {
		costs[1] = l.costIn(n, want, *longest, now)
	}
	return costs
}

func (l *Local) costIn(n *line, want *Budget, w Window, now time.Duration) time.Duration {
	length := w.Per + l.guard
	weights := n.budget.queue.weights(n, now-length)
	return time.Duration(float64(length) * weights / (n.weight * float64(want.allowed(w))))
}

// pay adds the cost of a permit to what the line has paid for. A window of excess is remembered, no more.
//
// A line goes as it likes while it keeps to its part's own pace, or nearly so (steady), or for half of its part at once and
// half of that pace after it (burst), which together are its part of a window.
func (l *Local) pay(n *line, want *Budget, now time.Duration) (costs parts) {
	shortest, longest := want.paces()
	if shortest == nil {
		return costs
	}
	costs = l.cost(n, want, now)
	for i, w := range []*Window{shortest, longest} {
		n.steady[i] = min(max(n.steady[i], now)+costs[i], now+w.Per+l.guard)
		n.burst[i] = min(max(n.burst[i], now)+2*costs[i], now+2*(w.Per+l.guard))
	}
	return costs
}

// unsteady is the part of a window by which a line may be ahead of its pace and still be steady.
const unsteady = 16

// mostWeighed bounds the work for one permit.
const mostWeighed = 16

// weights is the sum of weights of the line and of the others that asked after the time.
func (q *queue) weights(n *line, after time.Duration) float64 {
	sum, weighed := n.weight, 0
	for e := q.recent.Back(); e != nil && weighed < mostWeighed; e = e.Prev() {
		other := e.Value.(*line)
		if other.seen <= after {
			break
		}
		if weighed++; other != n {
			sum += other.weight
		}
	}
	return sum
}

// contended reports whether another client has asked after the time.
func (q *queue) contended(n *line, after time.Duration) bool {
	e := q.recent.Back()
	if e != nil && e.Value.(*line) == n {
		e = e.Prev()
	}
	return e != nil && e.Value.(*line).seen > after
}

// paced is when the pace allows the i-th permit of the queue from now, counted from 1, if the line gets it when own
// others are ahead of it in the line. longAgo: the pace does not matter.
func (l *Local) paced(n *line, r *Request, own, i int, now time.Duration) time.Duration {
	want, q := &r.Budgets[0], &n.budget.queue
	expected := r.Weight > 0 // others
	if len(want.Windows) == 0 || !expected && !q.contended(n, now-n.budget.span) {
		return longAgo
	}
	costs := l.cost(n, want, now)
	shortest, longest := want.paces()
	var at time.Duration = longAgo
	for j := range want.Windows {
		w, which, length := &want.Windows[j], 1, longest.Per+l.guard
		if w.Per == shortest.Per {
			which, length = 0, shortest.Per+l.guard
		}
		more := time.Duration(own) * costs[which]
		free := min(max(n.steady[which], now)+more-length/unsteady, max(n.burst[which], now)+2*more-length/l.replicas())
		if free <= now {
			continue
		}
		others := q.contended(n, now-w.Per) || expected && (which == 0 || l.shared())
		if others && (which == 0 || n.budget.scarce(want, *w, now, l.guard)) {
			pace := n.budget.even(want, *w, which == 0, i, now, l.guard)
			if wait := q.yield(n, now-length); wait > 0 {
				pace = max(pace, n.budget.opened(want, *w, i, now, l.guard)) + wait
			}
			at = max(at, min(free, pace))
		}
	}
	return at
}

// replicas is how many processes share the budgets, as a factor: each takes at once before it hears of what the others do.
func (l *Local) replicas() time.Duration {
	if l.redis == nil {
		return 1
	}
	return time.Duration(max(1, l.redis.seen))
}

// shared reports whether several processes count together. Those who wait at another one are not known before they had a permit.
func (l *Local) shared() bool { return l.replicas() > 1 }

// scarce reports whether more than half of a window is used.
func (b *budget) scarce(want *Budget, w Window, now, guard time.Duration) bool {
	return 2*(b.ring.since(now-w.Per-guard)+b.open) > b.hoped(want, w, now)
}

// catchUp is the part of the shortest window in which what was not taken in time may be taken at once.
const catchUp = 16

// even is when the i-th permit from now may be taken if they follow one another as evenly as room comes back. The times
// at which there is room for the first, second, third … are known; a string drawn over them is the pace. steady: it
// is nowhere faster than the window's own.
func (b *budget) even(want *Budget, w Window, steady bool, i int, now, guard time.Duration) time.Duration {
	limit, length := b.hoped(want, w, now), w.Per+guard
	limit -= limit / 50
	own := time.Duration(0)
	if steady {
		own = length / time.Duration(limit)
	}
	shortest, _ := want.paces()
	at, from := max(b.queue.served, now-(shortest.Per+guard)/catchUp), 0
	for step := 1 + limit/128; ; {
		pace, to := own, i
		for j := from + 1; j <= limit; j += step {
			if room := b.room(limit, j, length, now); room > now && (room-at)/time.Duration(j-from) > pace {
				pace, to = (room-at)/time.Duration(j-from), j
			}
		}
		if to >= i {
			return at + time.Duration(i-from)*pace
		}
		at, from = at+time.Duration(to-from)*pace, to
	}
}

// room is when there is room for the j-th permit from now, if what is open is sent now.
func (b *budget) room(limit, j int, length, now time.Duration) time.Duration {
	switch k := limit - b.open - j + 1; {
	case k > b.ring.count:
		return now
	case k <= 0:
		return now + length
	default:
		return b.ring.last(k) + length
	}
}

// advance moves the pace on by the permit that is taken now. It returns how far, if other processes may have taken the same turn.
func (l *Local) advance(n *line, r *Request, now time.Duration) time.Duration {
	q := &n.budget.queue
	shortest, _ := r.Budgets[0].paces()
	switch {
	case shortest == nil:
		return 0
	case l.shared():
		return l.step(n.budget, &r.Budgets[0], now)
	}
	q.served, q.lead, q.jitter = now, 0, 0
	if at := l.paced(n, r, 0, 1, now); at != longAgo {
		q.served = min(now, max(at, now-(shortest.Per+l.guard)/catchUp))
	}
	return 0
}
