package limiter

import (
	"container/list"
	"context"
	"slices"
	"sort"
	"time"
)

// Those who wait stand in the queue of their first budget, in the line of their client.
// Only the first of a line asks for a permit. The queues are asked in order of the tickets that
// those who came brought, so no queue starves another at a budget that they share; the lines of a queue in
// order of their turns. One who has no room in a budget that is only its own, such as a share, keeps nobody else
// waiting. Permits are handed out by pump alone, which is called by every event that may
// make room, and by one alarm for the room that comes with time.

// queues is the part of Local that deals with those who wait.
type queues struct {
	waiting  list.List // of *waiter: all of them, in order of arrival
	heads    []*budget // whose queue is not empty, in order of their oldest tickets
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
	line    *line
	turn    *list.Element // in its line

	expected time.Duration   // when it will be served
	booked   time.Duration   // when somebody will be, in the agendas of its budgets, because it waits
	because  OverBudgetError // what it waits for; RetryAfter is not set

	out chan struct{} // closed when it is out
	err error         // why it was not served
}

// enqueue lets the request wait, or refuses it if that would be in vain.
func (l *Local) enqueue(p *Permit, r *Request, now time.Duration) (*waiter, error) {
	w := &waiter{request: *r, permit: p, arrived: now, number: p.number, line: p.line}
	l.review(p.budgets[0], now)
	if l.foresee(w, now); w.inVain() {
		return nil, w.refusal(now)
	}
	if w.booked != w.expected {
		l.changes++ // others' expectations are too good by now
	}
	l.join(w)
	if p.line.first() == w {
		l.arm(min(l.alarmAt, l.next(p, r, now)), now)
	}
	return w, nil
}

// requeue puts a waiter back where it stood, unless it would wait in vain by now.
func (l *Local) requeue(w *waiter, now time.Duration) error {
	w.line = w.permit.line
	w.permit.refund()
	q := &w.permit.budgets[0].queue
	q.served = max(q.served-w.permit.moved, q.heard)
	if l.foresee(w, now); w.inVain() {
		l.pump(now)
		return w.refusal(now)
	}
	l.join(w)
	l.pump(now)
	return nil
}

// join puts the waiter into its queue and into the plan.
func (l *Local) join(w *waiter) {
	w.book()
	w.out = make(chan struct{})
	w.place = insertAfter(&l.waiting, before(&l.waiting, w.number), w)
	l.ask(w.permit.budgets[0], func(q *queue) { q.join(w) })
}

// dequeue takes the waiter out of its queue and out of the plan.
func (l *Local) dequeue(w *waiter, served bool) {
	l.ask(w.permit.budgets[0], func(q *queue) { q.leave(w, served) })
	l.waiting.Remove(w.place)
	w.place = nil
	for _, b := range w.permit.budgets {
		b.expected.remove(w.booked)
	}
}

// ask changes a queue, and puts it where it is asked then.
func (l *Local) ask(b *budget, change func(q *queue)) {
	if len(b.queue.tickets) > 0 {
		at := l.headIndex(b.queue.tickets[0])
		l.heads = slices.Delete(l.heads, at, at+1)
	}
	change(&b.queue)
	if len(b.queue.tickets) > 0 {
		l.heads = slices.Insert(l.heads, l.headIndex(b.queue.tickets[0]), b)
	}
}

// headIndex returns where the queue stands, or should, whose oldest ticket has the number.
func (l *Local) headIndex(number uint64) int {
	return sort.Search(len(l.heads), func(i int) bool { return l.heads[i].queue.tickets[0] >= number })
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
		l.dequeue(w, false)
		l.changes++
		l.review(w.permit.budgets[0], now)
		l.refuse(w, now)
		l.pump(now)
	}
}

// refuse tells one who is out of the queue when it would be served if it came back.
func (l *Local) refuse(w *waiter, now time.Duration) {
	l.arrivals++
	w.number = l.arrivals
	l.foresee(w, now)
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
	l.dequeue(w, false)
	l.changes++
	w.err = err
	close(w.out)
}

// pump serves all whose turn it is, and sets the alarm for the next.
func (l *Local) pump(now time.Duration) {
	soonest := never
	for i := 0; i < len(l.heads); {
		w, at := l.choose(&l.heads[i].queue, now)
		if w == nil {
			soonest = min(soonest, at)
			i++
			continue
		}
		l.charge(w.permit, &w.request, now)
		l.dequeue(w, true) // its queue's next ticket is younger: it stands at i or behind
		close(w.out)
	}
	l.arm(soonest, now)
}

// choose returns the one of the queue whose turn it is, or when there may be one.
func (l *Local) choose(q *queue, now time.Duration) (*waiter, time.Duration) {
	soonest := never
	for _, n := range q.asking {
		w := n.first()
		if at := n.budget.next(&w.request.Budgets[0], now, l.guard); at > now {
			return nil, min(soonest, at) // there is no room for the others either
		}
		at := l.next(w.permit, &w.request, now)
		if at <= now {
			return w, at
		}
		soonest = min(soonest, at)
	}
	return nil, soonest
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
		return len(b.queue.tickets)
	}
	return 0
}
