package simulator

// tally counts arrivals in several windows at once, exactly and in O(1)
// amortised: one ring of arrival times serves all windows, each of which
// remembers the oldest arrival that is still inside it.
//
// A sliding window is half open, (t-per, t]: two arrivals exactly one period
// apart are not in the same one. An aligned window is a whole number of periods
// since the Unix epoch, so a minute begins where the clock's minute does.
type tally struct {
	stamps  ring
	windows []windowTally
}

type windowTally struct {
	per        int64  // nanoseconds
	head       uint64 // index in stamps of the oldest arrival inside the sliding window
	maxSliding int
	slot       int64 // number of the aligned window that inSlot counts
	inSlot     int
	maxAligned int
}

func newTally(windows []Window) *tally {
	t := &tally{windows: make([]windowTally, len(windows))}
	for i, w := range windows {
		t.windows[i].per = int64(w.Per)
	}
	return t
}

// add counts an arrival at the time at, nanoseconds since the Unix epoch; times never go back.
func (t *tally) add(at int64) {
	for i := range t.windows {
		t.advance(&t.windows[i], at)
	}
	t.prune()
	t.stamps.push(at)
	for i := range t.windows {
		w := &t.windows[i]
		w.head = max(w.head, t.stamps.head) // a full ring has dropped some
		w.maxSliding = max(w.maxSliding, int(t.stamps.tail-w.head))
		w.inSlot++
		w.maxAligned = max(w.maxAligned, w.inSlot)
	}
}

// count returns how many arrivals the i-th window holds at the time at.
func (t *tally) count(i int, at int64, aligned bool) int {
	w := &t.windows[i]
	t.advance(w, at)
	if aligned {
		return w.inSlot
	}
	return int(t.stamps.tail - w.head)
}

// room returns how long after at the i-th window, now full, takes another.
func (t *tally) room(i int, at int64, aligned bool) int64 {
	w := &t.windows[i]
	if aligned || w.head == t.stamps.tail {
		return w.per - at%w.per
	}
	return t.stamps.at(w.head) + w.per - at
}

// advance lets go of what is no longer inside w.
func (t *tally) advance(w *windowTally, at int64) {
	for w.head < t.stamps.tail && t.stamps.at(w.head) <= at-w.per {
		w.head++
	}
	if slot := at / w.per; slot != w.slot {
		w.slot, w.inSlot = slot, 0
	}
}

// prune forgets what is in no window any more.
func (t *tally) prune() {
	oldest := t.stamps.tail
	for i := range t.windows {
		oldest = min(oldest, t.windows[i].head)
	}
	t.stamps.head = oldest
}

// maxStamps bounds one ring to 8 MiB: more than 290 requests a second for an
// hour. Beyond it a sliding count stops at this number and means "at least".
const maxStamps = 1 << 20

// ring is a queue of times that grows up to maxStamps, then drops its oldest.
// Indices only ever rise, so that they name a stamp for as long as it is kept.
type ring struct {
	stamps     []int64 // its length is a power of two
	head, tail uint64
}

func (r *ring) at(i uint64) int64 { return r.stamps[i&uint64(len(r.stamps)-1)] }

func (r *ring) push(at int64) {
	if r.tail-r.head == uint64(len(r.stamps)) {
		r.grow()
	}
	r.stamps[r.tail&uint64(len(r.stamps)-1)] = at
	r.tail++
}

func (r *ring) grow() {
	if len(r.stamps) == maxStamps {
		r.head++
		return
	}
	larger := make([]int64, max(8, 2*len(r.stamps)))
	for i := r.head; i < r.tail; i++ {
		larger[i&uint64(len(larger)-1)] = r.at(i)
	}
	r.stamps = larger
}
