package limiter

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"time"
)

// Each process has a queue of its own, but what the clients have had is the same everywhere: with each permit that Redis counts
// the others hear whose it is, and charge its line as if it had been taken at their own. So each process paces a flood by
// all that it takes, and knows who has had less and may wait at another one: whoever has had more leaves such a client a head
// start. Of several that have had the same, the one that Redis hears first has the turn; each waits a bit longer by chance, so
// that it is rare for two to ask at once.

// taker is who takes a permit, as replicas tell one another.
type taker struct {
	replica string
	client  string
	weight  int // in the budget's queue; 0: it waited in the queue of another one
}

// nameSize is the length of a replica's name.
const nameSize = 26

// taker is what the others are to hear of who takes a permit out of its i-th budget, and in the same question out of those that
// follow. There is nothing to tell while nobody else is there: who comes later fetches what he needs. s.mu is held.
func (s *Redis) taker(p *Permit, i int) string {
	if s.seen == 1 || p.line == nil {
		return ""
	}
	weight := 0
	if i == 0 {
		weight = int(p.line.weight)
	}
	client := p.line.client
	t := make([]byte, 0, nameSize+6+len(client))
	t = append(t, s.name...)
	t = binary.BigEndian.AppendUint32(t, uint32(weight))
	t = binary.BigEndian.AppendUint16(t, uint16(len(client)))
	return string(append(t, client...))
}

// cutTaker reads it.
func cutTaker(message string) (who taker, rest string, ok bool) {
	const fixed = nameSize + 4 + 2
	if len(message) < fixed {
		return who, "", false
	}
	data := []byte(message[nameSize:fixed])
	length := int(binary.BigEndian.Uint16(data[4:]))
	if rest = message[fixed:]; len(rest) < length {
		return who, "", false
	}
	return taker{message[:nameSize], rest[:length], int(binary.BigEndian.Uint32(data))}, rest[length:], true
}

// heardOf charges a permit of another process to its client, before it is counted. It returns whose it is.
func (s *Redis) heardOf(b *budget, who taker, now time.Duration) owner {
	if who.replica == s.name {
		return unknown // it was charged when it was taken
	}
	if who.weight == 0 {
		return s.owners.number(who.client)
	}
	r := Request{Budgets: []Budget{{Key: b.key, Windows: b.windows}}, Client: who.client, Weight: who.weight}
	n, q := s.line(b, &r, now), &b.queue
	s.step(b, &r.Budgets[0], now)
	q.heard = q.served
	s.pay(n, &r.Budgets[0], now)
	turn := n.turn()
	q.ask(n, func() {
		n.finish = turn + 1/n.weight
		n.start = n.finish
	})
	q.begin(turn)
	return n.owner
}

// heardBack takes back what a client was charged for a permit of another process, which was given back unused.
func (s *Redis) heardBack(b *budget, who owner, now time.Duration) {
	if who == unknown {
		return
	}
	n := b.queue.lines[s.owners.names[who]]
	if n == nil {
		return
	}
	p := Permit{line: n, cost: s.cost(n, &Budget{Windows: b.windows}, now)}
	p.refund()
}

// begin moves virtual time on when a permit has been counted.
func (p *Permit) begin() {
	if p.line != nil {
		p.line.budget.queue.begin(p.turn)
	}
}

// step moves the pace on by one permit where several processes keep to it. It returns how far.
func (l *Local) step(b *budget, want *Budget, now time.Duration) time.Duration {
	q := &b.queue
	shortest, _ := want.paces()
	if shortest == nil {
		return 0
	}
	slack := (shortest.Per + l.guard) / catchUp
	from := max(q.served, now-slack)
	gap := b.even(want, *shortest, true, 1, now, l.guard) - from
	q.served = min(from+gap, now)
	q.lead = min(gap, shortest.Per/time.Duration(want.allowed(*shortest))) / headStart
	q.jitter = rand.N(q.lead + 1)
	return q.served - from
}

// headStart is the part of the time from one permit to the next by which who has had more waits longer than who has had less.
const headStart = 4

// yield is how much longer than the pace a line waits, for the sake of those that asked after the time: nothing if it has had less than
// all of them; by chance, as it or one that has had the same may wait at another process; and a head start longer if one has had
// less.
func (q *queue) yield(n *line, after time.Duration) time.Duration {
	const rounding = 1e-9
	turn, least, weighed := n.turn(), math.Inf(1), 0 // of the others
	for e := q.recent.Back(); e != nil && weighed < mostWeighed && q.lead > 0; e = e.Prev() {
		other := e.Value.(*line)
		if other.seen <= after {
			break
		}
		if weighed++; other != n {
			least = min(least, other.turn())
		}
	}
	switch {
	case least < turn-rounding:
		return q.lead + q.jitter
	case least > turn+rounding && weighed > 1:
		return 0
	default:
		return q.jitter
	}
}

// opened is since when there has been room for the i-th permit from now, or when there will be; long ago if that does not matter.
func (b *budget) opened(want *Budget, w Window, i int, now, guard time.Duration) time.Duration {
	at := b.closedUntil(want)
	if k := b.hoped(want, w, now) - b.open - i + 1; k > 0 && k <= b.ring.count {
		at = max(at, b.ring.last(k)+w.Per+guard)
	}
	return at
}
