package limiter

import (
	"container/list"
	"slices"
	"sort"
	"time"
)

// A budget's queue is fair by start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996). It has a line for each client.
// Each permit takes 1/weight of virtual time out of its client's line, and the line whose next one starts first has the
// turn. Virtual time is that of the latest start. A client that comes newly starts there: neither does idleness earn it
// anything, nor does leaving and coming back undo what it has had.
//
// The queues of several budgets, which may share another one, take turns in order of arrival: each who comes
// brings his queue a ticket, and whoever of the queue is served takes the oldest one.

// queue is the requests whose first budget is the same.
type queue struct {
	lines   map[string]*line // by client: those that wait, and those that were here lately
	recent  list.List        // of *line: all, in order of when they last asked
	asking  []*line          // those that wait, in order of whose turn it is
	tickets []uint64         // arrival numbers, ascending: as many as wait
	virtual float64          // virtual time
	served  time.Duration    // when the latest permit was taken, or should have been by the pace
	planned int              // how many the plan that is being made has

	// Where several processes share the budget:
	heard  time.Duration // served, when another process was heard of last
	lead   time.Duration // what who has had more waits longer than the pace
	jitter time.Duration // what this process waits longer
}

// line is what one client lets wait, and what it has had.
type line struct {
	budget  *budget
	client  string
	owner   owner
	weight  float64
	turns   list.List     // of *waiter, in order of arrival
	start   float64       // while it waits: when the first one's turn is, in virtual time
	finish  float64       // until when the client has had its turns, in virtual time
	steady  parts         // until when it has had its part of the shortest and the longest window
	burst   parts         // the same, at half the pace
	seen    time.Duration // when it last asked
	place   *list.Element // in recent
	planned int           // how many of its waiters the plan that is being made has
	latest  *waiter       // of them
}

// maxLines is how many clients that do not wait a queue remembers.
const maxLines = 1024

// line returns the request's line in the budget's queue, made anew if need be.
func (l *Local) line(b *budget, r *Request, now time.Duration) *line {
	q := &b.queue
	n := q.lines[r.Client]
	if n == nil {
		q.forget(now - b.span)
		n = &line{budget: b, client: r.Client, owner: l.owners.number(r.Client)}
		if q.lines == nil {
			q.lines = make(map[string]*line)
		}
		q.lines[r.Client] = n
		n.place = q.recent.PushBack(n)
	}
	n.seen = now
	n.weight = float64(max(1, r.Weight))
	q.recent.MoveToBack(n.place)
	return n
}

// forget drops lines of clients that have not asked since, and some more if there are too many.
func (q *queue) forget(since time.Duration) {
	for e := q.recent.Front(); e != nil; {
		n := e.Value.(*line)
		if n.seen > since && len(q.lines) < maxLines {
			return
		}
		e = e.Next()
		if n.turns.Len() == 0 {
			q.recent.Remove(n.place)
			delete(q.lines, n.client)
		}
	}
}

// next is when the turn of one who comes to the line's end is, in virtual time.
func (n *line) next() float64 {
	if waiting := n.turns.Len(); waiting > 0 {
		return n.start + float64(waiting)/n.weight
	}
	return n.turn()
}

// serve lets the line of a permit pay for it.
func (l *Local) serve(p *Permit, r *Request, now time.Duration) {
	n := p.line
	p.moved = l.advance(n, r, now)
	p.turn = n.turn()
	n.finish = p.turn + 1/n.weight
	if l.redis == nil {
		n.budget.queue.begin(p.turn)
	}
	p.cost = l.pay(n, &r.Budgets[0], now)
}

// turn is when the line's next permit has its turn, in virtual time.
func (n *line) turn() float64 { return max(n.finish, n.budget.queue.virtual) }

// begin moves virtual time on to the start of a permit. One that Redis may refuse does so when it does not.
func (q *queue) begin(turn float64) { q.virtual = max(q.virtual, turn) }

// refund takes back what was paid for a permit that was not used.
func (p *Permit) refund() {
	if p.line == nil {
		return
	}
	p.line.finish -= 1 / p.line.weight
	for i, cost := range p.cost {
		p.line.steady[i] -= cost
		p.line.burst[i] -= 2 * cost
	}
}

// join puts a waiter into its line, before those that came later, and brings a ticket.
func (q *queue) join(w *waiter) {
	n := w.line
	q.ask(n, func() {
		if n.turns.Len() == 0 {
			n.start = n.next()
		}
		w.turn = insertAfter(&n.turns, before(&n.turns, w.number), w)
	})
	at, _ := slices.BinarySearch(q.tickets, w.number)
	q.tickets = slices.Insert(q.tickets, at, w.number)
}

// leave takes a waiter out of its line, and the ticket that it takes with it.
func (q *queue) leave(w *waiter, served bool) {
	n := w.line
	q.ask(n, func() {
		n.turns.Remove(w.turn)
		if served {
			n.start = n.finish
		}
	})
	w.turn = nil
	at := 0
	if !served { // its own ticket, or as good a one if that was used
		at, _ = slices.BinarySearch(q.tickets, w.number)
		at = min(at, len(q.tickets)-1)
	}
	q.tickets = slices.Delete(q.tickets, at, at+1)
}

// ask changes a line, and puts it where its turn is then.
func (q *queue) ask(n *line, change func()) {
	if n.turns.Len() > 0 {
		at := q.index(n)
		q.asking = slices.Delete(q.asking, at, at+1)
	}
	change()
	if n.turns.Len() > 0 {
		q.asking = slices.Insert(q.asking, q.index(n), n)
	}
}

// index is where a line that waits stands, or should, among those that ask.
func (q *queue) index(n *line) int {
	number := n.first().number
	return sort.Search(len(q.asking), func(i int) bool {
		other := q.asking[i]
		return other.start > n.start || other.start == n.start && other.first().number >= number
	})
}

// first is the one whose turn is next in the line.
func (n *line) first() *waiter { return n.turns.Front().Value.(*waiter) }

// ahead is how many of the queue come before a turn of the line at the given virtual time, of whom so many are of the
// line itself.
func (q *queue) ahead(n *line, turn float64, own int) int {
	const rounding = 1e-9
	total := own
	for _, other := range q.asking {
		start := max(other.start, q.virtual)
		if start > turn+rounding {
			return total
		}
		if other != n {
			total += min(other.turns.Len(), 1+int((turn-start+rounding)*other.weight))
		}
	}
	return total
}

// before returns the last of the list that came before the number, or nil.
func before(l *list.List, number uint64) *list.Element {
	e := l.Back()
	for e != nil && e.Value.(*waiter).number > number {
		e = e.Prev()
	}
	return e
}

func insertAfter(l *list.List, mark *list.Element, w *waiter) *list.Element {
	if mark == nil {
		return l.PushFront(w)
	}
	return l.InsertAfter(w, mark)
}
