package limiter

import (
	"container/list"
	"math"
	"time"
)

// never is the time of what only an event brings about: an open permit that is sent or released.
const never time.Duration = math.MaxInt64

// budget is the state of one key. All times are since the limiter was made.
type budget struct {
	key    string
	ring   ring
	open   int           // permits taken, and neither sent nor released
	paused time.Duration // no permit before then

	// keep and span are the most stamps and the longest Per+Guard that any
	// window of this key ever asked for: what is older is of no interest. They
	// never shrink, so that requests with old and new windows can mix.
	keep int
	span time.Duration

	queue list.List // of *waiter: the requests whose first budget this is, in order of arrival
	// expected holds, in ascending order, when those who wait and name this
	// budget (first or not) are expected to get their permits.
	expected agenda

	unsaved int  // how many of the latest stamps the journal does not have
	touched bool // the journal does not have the present state
}

// limit is how many permits of the window the request may see in use, with its own.
func (b *Budget) limit(w Window) int { return max(1, w.Requests-b.Headroom) }

// fit sees to it that enough stamps are kept to answer the windows.
func (b *budget) fit(windows []Window, guard time.Duration) {
	for _, w := range windows {
		b.keep = max(b.keep, w.Requests, 1)
		b.span = max(b.span, w.Per+guard)
	}
}

// stamp counts one permit as sent now.
func (b *budget) stamp(now time.Duration) {
	b.ring.push(now, b.keep, now-b.span)
	b.unsaved = min(b.unsaved+1, b.ring.count)
}

// lose counts permits that are not known to have been sent, but may have been before
// the limiter was made, as sent when it was.
func (b *budget) lose(permits int) {
	for range min(permits, b.keep) {
		b.stamp(0)
	}
}

// next returns when this budget has room for one more permit if nobody else
// takes any: at or before now for "it has", never for "not before an open permit is sent
// or released".
//
// This is all that exactness needs. Let L be a window's Per+Guard and suppose
// that N+1 requests were counted by the upstream within [s, s+L), request i at
// t(i), taken(i) <= t(i) <= sent(i). Let j be the one taken last, at time d. Then
// d <= t(j) < s+L. Each of the N others was taken before; at d it was open, or
// stamped sent(i) >= t(i) >= s > d-L. So next saw N open or younger than L at d, and
// did not admit j: it wants the (N-open)-th latest stamp to be at least L old.
func (b *budget) next(want *Budget, guard time.Duration) time.Duration {
	at := b.paused
	for _, w := range want.Windows {
		k := want.limit(w) - b.open
		if k <= 0 {
			return never
		}
		if k <= b.ring.count {
			at = max(at, b.ring.last(k)+w.Per+guard)
		}
	}
	return at
}

// foresee returns the first time, not before from, at which this budget has
// room for one more permit when also those expected before have theirs and open permits
// are sent now; and the window that makes it later than from (none: the pause, or nothing).
func (b *budget) foresee(want *Budget, from, now, guard time.Duration) (time.Duration, Window) {
	at, tightest := max(from, b.paused), Window{}
	uses := b.ring.count + b.open
	for _, w := range want.Windows {
		limit, ahead := want.limit(w), b.expected.until(at)
		for i := uses + ahead - limit; i >= 0; i = uses + ahead - limit {
			room := b.use(i, now) + w.Per + guard
			if room <= at {
				break
			}
			at, tightest = room, w
			for ahead < len(b.expected) && b.expected[ahead] <= at {
				ahead++
			}
		}
	}
	return at, tightest
}

// use returns the time of the i-th use of the budget: past, open, expected.
func (b *budget) use(i int, now time.Duration) time.Duration {
	if i < b.ring.count {
		return b.ring.at(i)
	}
	if i -= b.ring.count + b.open; i < 0 {
		return now
	}
	return max(b.expected[i], now)
}

// usage returns what is left of one window.
func (b *budget) usage(want *Budget, w Window, now, guard time.Duration) Usage {
	length := w.Per + guard
	u := Usage{Window: w}
	counted := b.ring.since(now - length)
	if counted > 0 {
		u.Reset = b.ring.last(counted) + length - now
	} else if b.open > 0 {
		u.Reset = length
	}
	if b.paused > now {
		u.Reset = max(u.Reset, b.paused-now)
		return u
	}
	u.Remaining = max(0, want.limit(w)-b.open-counted)
	return u
}

// idle reports whether a budget made anew would be no different.
func (b *budget) idle(now time.Duration) bool {
	return b.open == 0 && len(b.expected) == 0 && b.paused <= now &&
		(b.ring.count == 0 || b.ring.last(1)+b.span <= now)
}
