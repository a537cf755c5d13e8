package limiter

import (
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"time"
)

// What is asked of admit.lua, and what it answers. Both are in binary: a script takes longer to read many arguments, and to
// write many numbers, than to decide.

// question is what one call of the script asks.
type question struct {
	keys []string
	text []byte
	told string // what the others hear of who takes it; "": there are none
}

// questions asks for permits out of budgets: by one call, or in a Cluster, whose scripts see one slot, by one for each. s.mu
// is held.
func (s *Redis) questions(p *Permit, r *Request) []question {
	budgets, wanted := p.budgets, r.Budgets
	if !s.cluster {
		q := question{make([]string, 0, len(budgets)), s.clockWords(make([]byte, 0, 24+64*len(budgets)), patience), s.taker(p, 0)}
		for i, b := range budgets {
			s.add(&q, b, &wanted[i])
		}
		return []question{q}
	}
	all := make([]question, len(budgets))
	for i, b := range budgets {
		all[i] = question{text: s.clockWords(nil, patience), told: s.taker(p, i)}
		s.add(&all[i], b, &wanted[i])
	}
	return all
}

// add asks for a permit out of one more budget.
func (s *Redis) add(q *question, b *budget, want *Budget) {
	order := binary.BigEndian
	q.keys = append(q.keys, b.at)
	t := order.AppendUint64(q.text, uint64(micros(b.span)))
	t = order.AppendUint32(t, uint32(b.keep))
	t = order.AppendUint64(t, uint64(s.latest(b)))
	t = append(t, byte(len(want.Windows)))
	for _, w := range want.Windows {
		t = order.AppendUint32(t, uint32(leave(want.allowed(w), w.Requests, s.silent)))
		t = order.AppendUint64(t, uint64(micros(w.Per+s.guard)))
	}
	q.text = t
}

// latest is the latest stamp of a budget that Redis must have; 0: none, or not all have been given to it yet. s.mu is held.
func (s *Redis) latest(b *budget) int64 {
	known := b.everything()
	if !s.given || known.count == 0 || known.last(1) <= s.now()-b.span {
		return 0
	}
	return s.foreign(known.last(1))
}

// deadline is a context of questions that began at about the same time.
type deadline struct {
	context.Context
	since time.Time
}

// timely is a context that ends after patience, or up to a tenth of it sooner: questions that begin within that time share it,
// which is cheaper than a timer for each.
func (s *Redis) timely() context.Context {
	now := time.Now()
	if last := s.shared.Load(); last != nil && now.Sub(last.since) < patience/10 {
		return last
	}
	ctx, cancel := context.WithDeadline(context.Background(), now.Add(patience))
	context.AfterFunc(ctx, cancel) // not before: others have it too
	next := &deadline{ctx, now}
	s.shared.Store(next)
	return next
}

// verdict is Redis's decision.
type verdict struct {
	ok   bool
	text string // what the script answered
}

// What admit.lua may answer.
const (
	refusing = iota
	admitting
	forgetting
	stepping
)

// errForgotten: Redis was started empty, or another took its place that had not heard all.
var errForgotten = errors.New("limits that were counted in Redis are not there any more")

// head is what every answer begins with: what was decided, and now.
const head = 1 + 8

// decide asks one question, again if the clock had to be set right before.
func (s *Redis) decide(ctx context.Context, q *question) (verdict, error) {
	v, err := s.send(ctx, q)
	if !errors.Is(err, errStepped) {
		return v, err
	}
	if err := s.reset(ctx); err != nil {
		return v, err
	}
	s.mu.Lock()
	s.clockWords(q.text[:0], patience)
	s.mu.Unlock()
	return s.send(ctx, q)
}

// send sends one question, and reads the answer.
func (s *Redis) send(ctx context.Context, q *question) (v verdict, err error) {
	began := time.Now()
	args := []any{q.text, channel, q.told}
	if q.told == "" {
		args = args[:1]
	}
	v.text, err = admit.Run(ctx, s.client, q.keys, args...).Text()
	if err != nil {
		return v, err
	}
	size := head
	if len(v.text) < size {
		return v, errGarbled
	}
	switch v.text[0] {
	case forgetting:
		return v, errForgotten
	case stepping:
		return v, errStepped
	case refusing:
		size += 8 * len(q.keys)
	case admitting:
		v.ok = true
		size += 8 + 8*len(q.keys)
	default:
		return v, errGarbled
	}
	if len(v.text) != size {
		return v, errGarbled
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synchronise(number(v.text, 1), began)
	return v, nil
}

var errGarbled = errors.New("limiter script's answer is not what was asked for")

// times is how many times an answer tells.
func (v verdict) times() int { return (len(v.text) - head) / 8 }

// time is the i-th time of an answer, in Redis's.
func (v verdict) time(i int) int64 { return number(v.text, head+8*i) }

// number reads 8 bytes.
func number(text string, at int) int64 {
	var n uint64
	for _, b := range []byte(text[at : at+8]) {
		n = n<<8 | uint64(b)
	}
	return int64(n)
}

// learn takes in where a question's budgets were counted, and what was counted before.
func (s *Redis) learn(p *Permit, c *counted, v verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, stamp, first := s.now(), s.local(v.time(0)), len(c.stamps)
	for i := 1; i < v.times(); i++ {
		s.follows(p.budgets[first+i-1], s.local(v.time(i)), now)
		c.stamps = append(c.stamps, stamp)
	}
}

// counted is where a permit stands in Redis.
type counted struct {
	stamps []time.Duration // in each budget
	place  *list.Element   // among the outstanding
	moving []bool          // in each budget: Redis is about to be told
	moved  time.Duration   // when it was last told that the request has not left yet

	fewStamps [3]time.Duration
	fewMoving [3]bool
}

// standing returns what is to be filled with a permit's stamps.
func standing(budgets int) *counted {
	c := &counted{}
	c.stamps, c.moving = c.fewStamps[:0], c.fewMoving[:]
	if budgets > len(c.fewMoving) {
		c.moving = make([]bool, budgets)
	}
	return c
}
