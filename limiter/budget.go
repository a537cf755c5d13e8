package limiter

import (
	"container/list"
	"math"
	"time"
)

// never is the time of what no clock brings about.
const never time.Duration = math.MaxInt64

// budget is the state of one key. All times are since the limiter was made.
type budget struct {
	key    string
	ring   ring
	open   int           // permits taken, and neither sent nor released
	paused time.Duration // no permit before then

	// keep is the most Requests and span the longest Per+Guard of any window that
	// this key was ever asked for: older stamps are of no interest. They never
	// shrink, so that requests with old and with new windows can mix.
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

// lose counts permits that may have been sent before the limiter was made as
// sent when it was.
func (b *budget) lose(permits int) {
	for range min(permits, b.keep) {
		b.stamp(0)
	}
}

// next returns when this budget has room for one more permit if nobody else
// takes any: a time not after now if it has, never if it will not have before an
// open permit is sent or released.
//
// This is all that exactness needs. Let L be a window's Per+Guard and suppose
// that N+1 requests were counted by the upstream within [s, s+L), request i at
// t(i), taken(i) <= t(i) <= sent(i). Let j be the one taken last, at time d; so
// d <= t(j) < s+L. Each of the N others was taken before, and at d it was open, or
// stamped sent(i) >= t(i) >= s > d-L. So at d there were N open or younger than L, and
// j was not admitted, since that takes an (N-open)-th latest stamp of age L or
// none at all. (A stamp that the ring dropped is of age L or has N later ones.)
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

// foresee returns a time, from or later, before which this budget has no room
// for one more permit, if those expected come and what is open is sent now; and the
// window that makes it later than from (none if that is the pause). If it returns
// from itself, there is room then.
func (b *budget) foresee(want *Budget, from, now, guard time.Duration) (time.Duration, Window) {
	at, tightest := max(from, b.paused), Window{}
	ahead := b.expected.until(at) // of those expected
	for _, w := range want.Windows {
		for {
			i := b.ring.count + b.open + ahead - want.limit(w)
			if i < 0 || b.use(i, now)+w.Per+guard <= at {
				break
			}
			at, tightest = b.use(i, now)+w.Per+guard, w
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
