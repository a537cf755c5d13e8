package limiter

import (
	"context"
	"strconv"
	"time"
)

// amendment is a change of what was counted.
type amendment struct {
	budget *budget
	verb   string
	stamp  time.Duration // what is dropped
	permit *Permit       // what is moved
	index  int           // of its budget
}

// amendLater lets Redis know soon. s.mu is held.
func (s *Redis) amendLater(a amendment) {
	if s.state != linked && s.state != returning {
		s.amendHere(a)
		return
	}
	s.changesDue = append(s.changesDue, a)
	s.signal()
}

// signal lets what is due be told.
func (s *Redis) signal() {
	select {
	case s.due <- struct{}{}:
	default:
	}
}

// amendHere notes in the mirror what Redis hears of when it is back. s.mu is held.
func (s *Redis) amendHere(a amendment) {
	if a.verb != "move" {
		return // it is in the mirror
	}
	c := a.permit.counted
	c.moving[a.index] = false
	a.budget.remove(c.stamps[a.index])
	c.stamps[a.index] = s.unique(a.budget, s.now())
	s.counts(a.budget, c.stamps[a.index], a.permit.owner)
}

func (s *Redis) amendAll(ctx context.Context) {
	for {
		select {
		case <-s.due:
			s.amendDue(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// amendDue tells Redis what is due, one after the other.
func (s *Redis) amendDue(ctx context.Context) {
	for {
		s.mu.Lock()
		if len(s.changesDue) == 0 {
			s.mu.Unlock()
			return
		}
		a, link, cuts := s.changesDue[0], s.link, s.cuts
		args := s.words(a)
		s.mu.Unlock()
		call, cancel := context.WithTimeout(ctx, 2*patience)
		answer, err := amend.Run(call, s.client, []string{a.budget.at}, args...).Text()
		cancel()
		if err == nil && answer == "clock" {
			err = s.reset(ctx)
			if err == nil {
				continue
			}
		}
		if err == nil && answer == forgotten {
			err = errForgotten
		}
		if err != nil {
			if ctx.Err() == nil {
				s.lost(link, err)
				s.signal() // if it was not lost after all
			}
			return
		}
		s.amended(a, cuts, answer)
	}
}

// words are an amendment's arguments. s.mu is held.
func (s *Redis) words(a amendment) []any {
	b := a.budget
	words := []any{channel, micros(b.span), b.keep, s.clockWords(nil, 2*patience), a.verb}
	switch a.verb {
	case "move":
		return append(words, s.foreign(a.permit.counted.stamps[a.index]))
	case "drop":
		if a.permit != nil { // which may have been moved since
			a.stamp = a.permit.counted.stamps[a.index]
		}
		return append(words, s.foreign(a.stamp))
	default:
		paused, shrunk := s.pauseOf(b, s.now())
		return append(words, paused, shrunk, int64(b.shrunk.factor*1e6))
	}
}

// amended takes in what Redis answered to an amendment.
func (s *Redis) amended(a amendment, cuts int, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cuts != cuts {
		return // all that was due has been noted in the mirror
	}
	s.changesDue = s.changesDue[1:]
	if a.verb == "drop" && a.permit != nil {
		a.budget.remove(a.permit.counted.stamps[a.index])
		s.pump(s.now())
	}
	if a.verb != "move" {
		return
	}
	a.permit.counted.moving[a.index] = false
	stamps := a.permit.counted.stamps
	a.budget.remove(stamps[a.index])
	if moved := parse(answer); moved != 0 {
		stamps[a.index] = s.local(moved)
	} else {
		stamps[a.index] = s.unique(a.budget, s.now()) // it is not in Redis any more; it is in the mirror, at least
	}
	s.counts(a.budget, stamps[a.index], a.permit.owner)
}

// parse reads a stamp; 0: there is none.
func parse(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// renew tells Redis of requests that have their permits but have not left yet, so that they go on being counted as of now.
func (s *Redis) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for e := s.outstanding.Front(); e != nil; e = s.outstanding.Front() {
		p := e.Value.(*Permit)
		if now-p.counted.moved <= s.late {
			return
		}
		p.counted.moved = now
		s.outstanding.MoveToBack(e)
		for i, b := range p.budgets {
			if !p.counted.moving[i] {
				p.counted.moving[i] = true
				s.amendLater(amendment{budget: b, verb: "move", permit: p, index: i})
			}
		}
	}
}
