package limiter

import (
	"cmp"
	"slices"
	"sort"
	"time"
)

// Each who comes is told when it will be served, by playing forward what is known: the
// stamps, open permits as if sent now, and all who wait, in the order in which they will have their turns. For
// one client that is exact. One that passes others takes the time of the first of them, and the last of
// them has one more to wait; where queues share a budget, one who comes later to another queue may pass. The plan is
// made again when much has changed: others came, left or passed, or what was open was released or sent late. Whoever
// is not served as expected still leaves when MaxWait is over.

// inVain reports whether the waiter is not expected to be served within its MaxWait.
func (w *waiter) inVain() bool { return w.expected-w.arrived > w.request.MaxWait }

// foresee foretells when w will be served if it comes now, or back to its place in its line, and what it waits for.
func (l *Local) foresee(w *waiter, now time.Duration) {
	n, q := w.line, &w.permit.budgets[0].queue
	ahead, own := n.turns.Back(), n.turns.Len()
	for ; ahead != nil && ahead.Value.(*waiter).number > w.number; ahead = ahead.Prev() {
		own--
	}
	turn := n.next() - float64(n.turns.Len()-own)/n.weight
	rank := q.ahead(n, turn, own)
	var before *waiter
	if ahead != nil {
		before = ahead.Value.(*waiter)
	}
	from := l.foretell(w, before, own, rank, now)
	if w.booked = w.expected; rank < len(q.tickets) {
		l.pass(w, from, rank, now)
	}
}

// foretell sets when w will be served after all that are in the plan, and not before a time, which it returns: when the one
// before it in its line is, and when the pace allows it, with so many ahead in the line and in the queue.
func (l *Local) foretell(w, before *waiter, own, ahead int, now time.Duration) (from time.Duration) {
	w.expected, w.because = now, OverBudgetError{}
	if before != nil {
		w.expected, w.because = max(before.expected, now), before.because
	}
	if len(w.permit.budgets) > 0 {
		if at := l.paced(w.line, &w.request, own, ahead+1, now); at > w.expected {
			shortest, _ := w.request.Budgets[0].paces()
			w.expected, w.because = at, OverBudgetError{Key: w.permit.budgets[0].key, Window: *shortest}
		}
	}
	from = w.expected
	for later := true; later; {
		later = false
		for i, b := range w.permit.budgets {
			at, window := b.foresee(&w.request.Budgets[i], w.expected, now, l.guard)
			if at > w.expected {
				w.expected, later = at, true
				w.because = OverBudgetError{Key: b.key, Window: window}
			}
		}
	}
	return from
}

// pass gives w the time of the first that it passes, if that is sooner.
func (l *Local) pass(w *waiter, from time.Duration, ahead int, now time.Duration) {
	planned := w.permit.budgets[0].expected
	if ahead >= len(planned) {
		return
	}
	theirs := planned[ahead]
	at := max(theirs, from)
	for i, b := range w.permit.budgets[1:] {
		if _, shared := slices.BinarySearch(b.expected, theirs); !shared { // a budget that is its own
			later, _ := b.foresee(&w.request.Budgets[i+1], at, now, l.guard)
			at = max(at, later)
		}
	}
	w.expected = min(w.expected, at)
}

// book enters the waiter in the plan.
func (w *waiter) book() {
	for _, b := range w.permit.budgets {
		b.expected.add(w.booked)
	}
}

// review makes the plan again if it is not to be relied on in the budget's
// queue. That costs a step for each who waits, so it takes one change for every
// 64 of them.
func (l *Local) review(b *budget, now time.Duration) {
	overdue := len(b.queue.tickets) > 0 && b.expected[0] < now
	if overdue || l.changes > l.waiting.Len()/64 {
		l.plan(now, false)
	}
}

// plan foretells anew for all who wait, and if told to refuses those who would
// wait in vain.
func (l *Local) plan(now time.Duration, refuse bool) {
	l.changes = 0
	all := l.inOrder()
	var refused []*waiter
	for _, w := range all {
		n, q := w.line, &w.permit.budgets[0].queue
		l.foretell(w, n.latest, n.planned, q.planned, now)
		w.booked = w.expected
		w.book()
		if refuse && w.inVain() {
			l.dequeue(w, false)
			refused = append(refused, w)
			continue
		}
		n.latest, n.planned = w, n.planned+1
		q.planned++
	}
	for _, w := range all {
		w.line.latest = nil
	}
	for _, w := range refused {
		l.refuse(w, now)
	}
}

// inOrder returns all who wait in the order in which they have their turns, and clears the plan.
func (l *Local) inOrder() []*waiter {
	type turn struct {
		*waiter
		at     float64
		ticket uint64
	}
	all := make([]*waiter, 0, l.waiting.Len())
	turns := make([]turn, 0, l.waiting.Len())
	for _, head := range l.heads {
		q, begin := &head.queue, len(turns)
		q.planned = 0
		for _, n := range q.asking {
			n.planned, n.latest = 0, nil
			at := max(n.start, q.virtual)
			for e := n.turns.Front(); e != nil; e = e.Next() {
				w := e.Value.(*waiter)
				turns = append(turns, turn{waiter: w, at: at})
				at += 1 / n.weight
				for _, b := range w.permit.budgets {
					b.expected = nil
				}
			}
		}
		ours := turns[begin:]
		if len(q.asking) > 1 {
			slices.SortFunc(ours, func(a, b turn) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.number, b.number)) })
		}
		for i := range ours {
			ours[i].ticket = q.tickets[i]
		}
	}
	if len(l.heads) > 1 {
		slices.SortFunc(turns, func(a, b turn) int { return cmp.Compare(a.ticket, b.ticket) })
	}
	for _, t := range turns {
		all = append(all, t.waiter)
	}
	return all
}

// agenda holds the times at which permits are expected to be taken, in ascending order.
type agenda []time.Duration

// until returns how many are not after t.
func (a agenda) until(t time.Duration) int {
	return sort.Search(len(a), func(i int) bool { return a[i] > t })
}

func (a *agenda) add(t time.Duration) { *a = slices.Insert(*a, a.until(t), t) }

// remove takes out one entry that was added: nearly always the first.
func (a *agenda) remove(t time.Duration) {
	i, _ := slices.BinarySearch(*a, t)
	if i == 0 {
		*a = (*a)[1:]
	} else {
		*a = slices.Delete(*a, i, i+1)
	}
}
