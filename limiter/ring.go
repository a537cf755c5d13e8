package limiter

import (
	"sort"
	"time"
)

// ring holds the latest stamps of a budget, in ascending order. A stamp is the
// time since the limiter was made (negative: before a restart). For windows of
// 120 a minute and 3,600 an hour that is 3,600 stamps of 8 bytes at most.
type ring struct {
	stamps []time.Duration // circular
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

// push adds a stamp that is not before the latest one. The oldest makes room
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
	r.stamps[r.place(r.count-1)] = stamp
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
	}
}

// remove takes a stamp out, if it is there.
func (r *ring) remove(stamp time.Duration) {
	n := r.since(stamp)
	if n == r.count || r.last(n+1) != stamp {
		return
	}
	for i := r.count - 1 - n; i < r.count-1; i++ {
		r.stamps[r.place(i)] = r.stamps[r.place(i+1)]
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
	stamps := make([]time.Duration, size)
	for i := range r.count {
		stamps[i] = r.at(i)
	}
	r.stamps, r.first = stamps, 0
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
