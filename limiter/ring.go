package limiter

import (
	"sort"
	"time"
)

// ring holds the latest stamps of a budget, in ascending order. A stamp is the
// time since the limiter was made (negative: before a restart), and whose it is. For
// windows of 120 a minute and 3,600 an hour that is 3,600 stamps of 10 bytes at most.
type ring struct {
	stamps []time.Duration // circular
	owners []owner         // of the stamps, in the same places
	first  int             // where the oldest one is
	count  int
}

// place is the index in stamps of the i-th oldest.
func (r *ring) place(i int) int {
	if i += r.first; i >= len(r.stamps) {
		i -= len(r.stamps)
	}
	return i
}

// at returns the i-th oldest stamp, 0 <= i < count.
func (r *ring) at(i int) time.Duration { return r.stamps[r.place(i)] }

// last returns the k-th latest stamp, 1 <= k <= count.
func (r *ring) last(k int) time.Duration { return r.at(r.count - k) }

// push adds a stamp of nobody that is known, which is not before the latest one. The oldest makes room
// for it when there are keep of them already, or when it is not after horizon:
// a quiet budget stays small.
func (r *ring) push(stamp time.Duration, keep int, horizon time.Duration) {
	if r.count == len(r.stamps) {
		switch {
		case r.count < keep && (r.count == 0 || r.at(0) > horizon):
			r.grow(min(max(2*r.count, 8), keep))
		case r.count == 0:
			return // a budget without windows
		default:
			r.first = r.place(1)
			r.count--
		}
	}
	r.count++
	at := r.place(r.count - 1)
	r.stamps[at], r.owners[at] = stamp, unknown
}

// insert adds a stamp where it belongs, unless it is there. It is nearly always the latest.
func (r *ring) insert(stamp time.Duration, keep int, horizon time.Duration) {
	n := r.since(stamp)
	if n < r.count && r.last(n+1) == stamp || n > 0 && n >= keep {
		return // known, or older than all that are kept
	}
	r.push(stamp, keep, horizon)
	for i := r.count - 1; i > 0 && n > 0; i, n = i-1, n-1 {
		a, b := r.place(i-1), r.place(i)
		r.stamps[a], r.stamps[b] = r.stamps[b], r.stamps[a]
		r.owners[a], r.owners[b] = r.owners[b], r.owners[a]
	}
}

// remove takes a stamp out, if it is there.
func (r *ring) remove(stamp time.Duration) {
	n := r.since(stamp)
	if n == r.count || r.last(n+1) != stamp {
		return
	}
	for i := r.count - 1 - n; i < r.count-1; i++ {
		to, from := r.place(i), r.place(i+1)
		r.stamps[to], r.owners[to] = r.stamps[from], r.owners[from]
	}
	r.count--
}

// has reports whether a stamp is there.
func (r *ring) has(stamp time.Duration) bool {
	n := r.since(stamp)
	return n < r.count && r.last(n+1) == stamp
}

// all returns the stamps that are after t, the oldest first.
func (r *ring) all(after time.Duration) []time.Duration {
	n := r.since(after)
	stamps := make([]time.Duration, n)
	for i := range stamps {
		stamps[i] = r.last(n - i)
	}
	return stamps
}

func (r *ring) grow(size int) {
	stamps, owners := make([]time.Duration, size), make([]owner, size)
	for i := range r.count {
		at := r.place(i)
		stamps[i], owners[i] = r.stamps[at], r.owners[at]
	}
	r.stamps, r.owners, r.first = stamps, owners, 0
}

// own notes whose the latest stamp is.
func (r *ring) own(who owner) {
	if r.count > 0 {
		r.owners[r.place(r.count-1)] = who
	}
}

// mark notes whose a stamp is, if it is there.
func (r *ring) mark(stamp time.Duration, who owner) {
	if n := r.since(stamp); n < r.count && r.last(n+1) == stamp {
		r.owners[r.place(r.count-1-n)] = who
	}
}

// whose is the owner of a stamp, as far as it is known.
func (r *ring) whose(stamp time.Duration) owner {
	if n := r.since(stamp); n < r.count && r.last(n+1) == stamp {
		return r.owners[r.place(r.count-1-n)]
	}
	return unknown
}

// markAll notes whose stamps are, as far as another ring knows.
func (r *ring) markAll(other *ring) {
	for i := range other.count {
		if who := other.owners[other.place(i)]; who != unknown {
			r.mark(other.at(i), who)
		}
	}
}

// since returns how many stamps are after t.
func (r *ring) since(t time.Duration) int {
	return r.count - sort.Search(r.count, func(i int) bool { return r.at(i) > t })
}

// most returns how many stamps there may be between from and to, of which no window of that length has more than limit.
func (r *ring) most(limit int, length, from, to time.Duration) int {
	stamps := r.all(from - length)
	known := len(stamps)
	for at := from; ; {
		if full := len(stamps) - limit; full >= 0 {
			at = max(at, stamps[full]+length)
		}
		if at > to {
			return len(stamps) - known
		}
		stamps = append(stamps, at)
	}
}
