package limiter

import (
	"container/list"
	"context"
	"slices"
	"sort"
	"time"
)

// Those who wait stand in the queue of their first budget. Only the first of a
// queue asks for a permit, and the firsts of all queues are asked in order of
// arrival, so no queue starves another at a budget that they share. Permits are
// handed to them by pump alone, which is called by every event that may make
// room, and by one alarm for the room that comes with time.
//
// Each is told at arrival when it will be served, by playing forward what is
// known: the stamps, open permits as if sent now, and all who wait, in order of
// arrival. For one queue that is exact; where queues share a budget, one who comes
// later to another queue may pass. The plan is made again when much has changed:
// others left or passed, or what was open was released or sent late. Whoever is
// not served as expected still leaves when MaxWait is over.

// queues is the part of Local that deals with those who wait.
type queues struct {
	waiting  list.List // of *waiter: all of them, in order of arrival
	heads    []*budget // whose queue is not empty, in order of arrival of its first
	arrivals uint64
	changes  int           // since the plan was made
	alarm    *time.Timer   // calls wake
	alarmAt  time.Duration // when there may next be room, if nothing happens before
}

// waiter is a request that waits.
type waiter struct {
	request Request
	permit  *Permit // not charged before it is served
	arrived time.Duration
	waited  time.Duration // before it was sent back to the queue
	number  uint64        // in order of arrival
	place   *list.Element // in waiting; nil when it is out
	turn    *list.Element // in its queue

	expected time.Duration   // when it will be served
	because  OverBudgetError // what it waits for; RetryAfter is not set

	out chan struct{} // closed when it is out
	err error         // why it was not served
}

// enqueue lets the request wait, or refuses it if that would be in vain.
func (l *Local) enqueue(p *Permit, r *Request, now time.Duration) (*waiter, error) {
	w := &waiter{request: *r, permit: p, arrived: now, number: p.number}
	first := p.budgets[0]
	l.review(first, now)
	if l.foresee(w, first.queue.Back(), now); w.inVain() {
		return nil, w.refusal(now)
	}
	w.book()
	w.out = make(chan struct{})
	w.place, w.turn = l.waiting.PushBack(w), first.queue.PushBack(w)
	if first.queue.Len() == 1 {
		l.heads = append(l.heads, first)
		l.arm(min(l.alarmAt, l.next(p, r, now)), now)
	}
	return w, nil
}

// requeue puts a waiter back where it stood, unless it would wait in vain by now.
func (l *Local) requeue(w *waiter, now time.Duration) error {
	first := w.permit.budgets[0]
	ahead := before(&first.queue, w.number)
	if l.foresee(w, ahead, now); w.inVain() {
		l.pump(now)
		return w.refusal(now)
	}
	w.book()
	w.out = make(chan struct{})
	if first.queue.Len() > 0 {
		i := l.headIndex(first.first().number)
		l.heads = slices.Delete(l.heads, i, i+1)
	}
	w.place, w.turn = insertAfter(&l.waiting, before(&l.waiting, w.number), w), insertAfter(&first.queue, ahead, w)
	l.heads = slices.Insert(l.heads, l.headIndex(first.first().number), first)
	l.pump(now)
	return nil
}

// before returns the last of the list that came before the number, or nil.
func before(l *list.List, number uint64) *list.Element {
	e := l.Front()
	if e == nil || e.Value.(*waiter).number > number {
		return nil
	}
	for next := e.Next(); next != nil && next.Value.(*waiter).number < number; next = e.Next() {
		e = next
	}
	return e
}

func insertAfter(l *list.List, mark *list.Element, w *waiter) *list.Element {
	if mark == nil {
		return l.PushFront(w)
	}
	return l.InsertAfter(w, mark)
}

// wait blocks until the waiter is served or leaves.
func (l *Local) wait(ctx context.Context, w *waiter) (*Permit, error) {
	patience := time.NewTimer(w.request.MaxWait - w.waited)
	defer patience.Stop()
	select {
	case <-w.out:
	case <-ctx.Done():
		l.leave(w, context.Cause(ctx))
	case <-patience.C:
		l.giveUp(w)
	}
	if w.err != nil {
		return nil, w.err
	}
	return w.permit, nil
}

// leave takes the waiter out, and gives back what it may have got this moment.
func (l *Local) leave(w *waiter, cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case w.place != nil:
		l.dismiss(w, cause)
		l.pump(l.now())
	case w.err == nil:
		w.err = cause
		l.settle(w.permit, false)
	}
}

// giveUp refuses the waiter, whose expectation proved wrong, unless it is served
// this moment.
func (l *Local) giveUp(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.pump(now); w.place != nil {
		l.dequeue(w)
		l.changes++
		l.review(w.permit.budgets[0], now)
		l.refuse(w, now)
		l.pump(now)
	}
}

// refuse tells one who is out of the queue when it would be served if it came back.
func (l *Local) refuse(w *waiter, now time.Duration) {
	l.foresee(w, w.permit.budgets[0].queue.Back(), now)
	w.err = w.refusal(now)
	close(w.out)
}

func (w *waiter) refusal(now time.Duration) error {
	err := w.because
	err.RetryAfter = max(w.expected-now, 1)
	switch {
	case w.expected >= unforeseen:
		err.RetryAfter = err.Window.Per // as good as any: it depends on Redis
	case err.Key == "": // there is room, but it is not known yet whether that is ours
		err.Key, err.RetryAfter = w.permit.budgets[0].key, max(err.RetryAfter, time.Second)
	}
	return &err
}

func (l *Local) dismiss(w *waiter, err error) {
	l.dequeue(w)
	l.changes++
	w.err = err
	close(w.out)
}

// dequeue takes the waiter out of its queue and out of the plan.
func (l *Local) dequeue(w *waiter) {
	first := w.permit.budgets[0]
	if w.turn == first.queue.Front() {
		i := l.headIndex(w.number)
		l.heads = slices.Delete(l.heads, i, i+1)
		if next := w.turn.Next(); next != nil {
			i = l.headIndex(next.Value.(*waiter).number)
			l.heads = slices.Insert(l.heads, i, first)
		}
	}
	first.queue.Remove(w.turn)
	l.waiting.Remove(w.place)
	w.place, w.turn = nil, nil
	for _, b := range w.permit.budgets {
		b.expected.remove(w.expected)
	}
}

// headIndex returns where the queue stands, or should, whose first has the number.
func (l *Local) headIndex(number uint64) int {
	return sort.Search(len(l.heads), func(i int) bool { return l.heads[i].first().number >= number })
}

// first returns the first in the budget's queue.
func (b *budget) first() *waiter { return b.queue.Front().Value.(*waiter) }

// pump serves all whose turn it is, and sets the alarm for the next.
func (l *Local) pump(now time.Duration) {
	soonest := never
	for i := 0; i < len(l.heads); {
		w := l.heads[i].first()
		if at := l.next(w.permit, &w.request, now); at > now {
			soonest = min(soonest, at)
			i++
			continue
		}
		l.dequeue(w) // the next in its queue came later: it stands at i or behind
		l.charge(w.permit)
		close(w.out)
	}
	l.arm(soonest, now)
}

// arm sets the alarm.
func (l *Local) arm(at, now time.Duration) {
	if at == l.alarmAt {
		return
	}
	if l.alarmAt = at; at == never {
		l.alarm.Stop()
	} else {
		l.alarm.Reset(at - now)
	}
}

func (l *Local) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alarmAt = never
	l.pump(l.now())
}

// Waiting returns how many requests wait whose first budget has this key.
func (l *Local) Waiting(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.budgets[key]; b != nil {
		return b.queue.Len()
	}
	return 0
}

// inVain reports whether the waiter is not expected to be served within its MaxWait.
func (w *waiter) inVain() bool { return w.expected-w.arrived > w.request.MaxWait }

// foresee foretells when w will be served, and what it waits for, if it stands
// behind the one ahead in its queue.
func (l *Local) foresee(w *waiter, ahead *list.Element, now time.Duration) {
	w.expected = now
	if ahead != nil {
		a := ahead.Value.(*waiter)
		w.expected, w.because = max(a.expected, now), a.because
	}
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
}

// book enters the waiter in the plan.
func (w *waiter) book() {
	for _, b := range w.permit.budgets {
		b.expected.add(w.expected)
	}
}

// review makes the plan again if it is not to be relied on in the budget's
// queue. That costs a step for each who waits, so it takes one change for every
// 64 of them.
func (l *Local) review(b *budget, now time.Duration) {
	overdue := b.queue.Len() > 0 && b.first().expected < now
	if overdue || l.changes > l.waiting.Len()/64 {
		l.plan(now, false)
	}
}

// plan foretells anew for all who wait, and if told to refuses those who would
// wait in vain.
func (l *Local) plan(now time.Duration, refuse bool) {
	l.changes = 0
	for e := l.waiting.Front(); e != nil; e = e.Next() {
		for _, b := range e.Value.(*waiter).permit.budgets {
			b.expected = nil
		}
	}
	var refused []*waiter
	for e := l.waiting.Front(); e != nil; {
		w := e.Value.(*waiter)
		e = e.Next()
		l.foresee(w, w.turn.Prev(), now)
		w.book()
		if refuse && w.inVain() {
			l.dequeue(w)
			refused = append(refused, w)
		}
	}
	for _, w := range refused {
		l.refuse(w, now)
	}
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
