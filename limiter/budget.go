package limiter

import (
	"math"
	"time"
)

// never is the time of what no clock brings about.
const never time.Duration = math.MaxInt64

// unforeseen is when a budget has room of which this process has too small a share while it counts alone.
const unforeseen = never / 2

// budget is the state of one key. All times are since the limiter was made.
type budget struct {
	key     string
	ring    ring
	open    int           // permits taken, and neither sent nor released
	openOf  []int         // the same by owner
	paused  time.Duration // no permit before then
	shrunk  shrinking     // because another program uses it, too
	*mirror               // what several processes count together; nil: this one counts alone

	// keep is the most Requests and span the longest Per+Guard of any window that
	// this key was ever asked for: older stamps are of no interest. They never
	// shrink, so that requests with old and with new windows can mix.
	keep int
	span time.Duration

	queue queue // the requests whose first budget this is
	// expected holds, in ascending order, when those who wait and name this
	// budget (first or not) are expected to get their permits.
	expected agenda

	unsaved int  // how many of the latest stamps the journal does not have
	touched bool // the journal does not have the present state
}

// allowed is how many permits of the window the request may see in use, with its own, if the budget is whole.
func (b *Budget) allowed(w Window) int { return max(1, w.Requests-b.Headroom) }

// limit is how many permits of the window the request may see in use at the time, with its own. 0: it cannot
// have one while this process has a share of the budget alone.
func (b *budget) limit(want *Budget, w Window, now time.Duration) int {
	n := b.shrunk.of(want.allowed(w), now)
	if b.mirror != nil {
		n = b.ours(n, w.Requests)
	}
	return n
}

// hoped is the limit to foretell by: at least one, and the whole one while it is not known what is ours.
func (b *budget) hoped(want *Budget, w Window, now time.Duration) int {
	if b.mirror != nil && b.share == nobody {
		return b.shrunk.of(want.allowed(w), now)
	}
	return max(1, b.limit(want, w, now))
}

// shrinking is how much of a budget is ours, if another program uses it, too.
type shrinking struct {
	at     time.Duration // since when
	factor float64       // 0: the budget is whole
}

// regain is how much of a budget comes back in a second: all of it in ten minutes. admit.lua has it, too.
const regain = 1.0 / 600

// of is what is left of a limit.
func (s shrinking) of(limit int, now time.Duration) int {
	if s.factor == 0 {
		return limit
	}
	return max(1, int(float64(limit)*s.share(now)))
}

// share is what is left of the budget: 1 is all of it.
func (s shrinking) share(now time.Duration) float64 {
	if s.factor == 0 {
		return 1
	}
	return min(1, s.factor+(now-s.at).Seconds()*regain)
}

// fit sees to it that enough stamps are kept to answer the windows.
func (b *budget) fit(windows []Window, guard time.Duration) {
	for _, w := range windows {
		b.keep = max(b.keep, w.Requests, 1)
		b.span = max(b.span, w.Per+guard)
	}
}

// stamp counts one permit as sent now.
func (b *budget) stamp(now time.Duration, who owner) {
	b.ring.push(now, b.keep, now-b.span)
	b.ring.own(who)
	b.unsaved = min(b.unsaved+1, b.ring.count)
}

// lose counts permits that may have been sent before the limiter was made as
// sent when it was.
func (b *budget) lose(permits int) {
	for range min(permits, b.keep) {
		b.stamp(0, unknown)
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
func (b *budget) next(want *Budget, now, guard time.Duration) time.Duration {
	at := b.closedUntil(want)
	for _, w := range want.Windows {
		k := b.limit(want, w, now) - b.open
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
	at, tightest := max(from, b.closedUntil(want)), Window{}
	ahead := b.expected.until(at) // of those expected
	for _, w := range want.Windows {
		if b.mirror != nil && b.limit(want, w, now) == 0 && b.share != nobody {
			return unforeseen, w
		}
		for {
			i := b.ring.count + b.open + ahead - b.hoped(want, w, now)
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

// closedUntil is before when there is no room, whatever the ring says.
func (b *budget) closedUntil(want *Budget) time.Duration {
	if b.mirror != nil && want.Headroom >= b.mirror.fullFor {
		return max(b.paused, b.mirror.full)
	}
	return b.paused
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
	u.Remaining = max(0, b.limit(want, w, now)-b.open-counted)
	switch pause := b.paused - now; {
	case pause <= 0:
	case u.Remaining > 0: // from the end of the pause on
		u.Remaining, u.Reset = 0, pause
	default:
		u.Reset = max(u.Reset, pause)
	}
	return u
}

// idle reports whether a budget made anew would be no different.
func (b *budget) idle(now time.Duration) bool {
	span := b.span
	if b.mirror != nil { // assume looks further back
		span += clockSlack + noticed + idleFor
	}
	return b.open == 0 && len(b.expected) == 0 && b.paused <= now &&
		(b.ring.count == 0 || b.ring.last(1)+span <= now)
}
