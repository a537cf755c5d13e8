package limiter

import (
	"cmp"
	"slices"
	"time"
)

// Statement is how one budget stands in all its windows, for whoever reports it: all of it at the same moment. What the windows and the pause say
// holds for all processes that count together; those who wait do so at this one.
type Statement struct {
	Windows     []WindowStatement // one for each of the budget's
	PausedUntil time.Time         // zero: it is not paused
	Waiting     int               // requests whose first budget this is
}

// WindowStatement is how one window of a budget stands.
type WindowStatement struct {
	Usage
	// Allowed is how many permits may be in the window now: fewer than its Requests while another program uses the same
	// FreeAgent user, while this process counts its share alone, and while others may.
	Allowed int
	// UsedBy is how many permits of the window each client has, those that are open here included. What is not known is
	// counted under Unknown.
	UsedBy map[string]int
}

// Statement says how a budget stands. It neither waits nor counts as use.
func (l *Local) Statement(b Budget) Statement {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, state := l.now(), l.look(b.Key)
	stands := Statement{Waiting: len(state.queue.tickets)}
	if state.paused > now {
		stands.PausedUntil = time.Now().Add(state.paused - now)
	}
	for _, w := range b.Windows {
		stands.Windows = append(stands.Windows, WindowStatement{
			Usage:   state.usage(&b, w, now, l.guard),
			Allowed: state.limit(&b, w, now),
			UsedBy:  l.named(state.usedBy(now - w.Per - l.guard)),
		})
	}
	return stands
}

// look returns the state of a key, without making it: of one that has none, what a new one would be.
func (l *Local) look(key string) *budget {
	b := l.budgets[key]
	if b == nil {
		b = &budget{key: key}
		if l.redis != nil {
			l.redis.adopt(b)
		}
	}
	return b
}

// lookedAt is how many budgets are looked at without letting others have the lock in between.
const lookedAt = 1024

// InUse returns the keys of the budgets that match and have counted something within their longest windows, are waited for
// or paused. Of more than so many it returns the busiest. They are sorted.
func (l *Local) InUse(most int, match func(key string) bool) []string {
	type use struct {
		key  string
		much int
	}
	var used []use
	for from, more := 0, true; more; from += lookedAt { // what moves meanwhile is seen the next time
		l.mu.Lock()
		now := l.now()
		more = from+lookedAt < len(l.all)
		for _, b := range l.all[min(from, len(l.all)):min(from+lookedAt, len(l.all))] {
			if !match(b.key) {
				continue
			}
			much := b.everythingSince(now-b.span) + b.open + len(b.queue.tickets)
			if much > 0 || b.paused > now {
				used = append(used, use{b.key, much})
			}
		}
		l.mu.Unlock()
	}
	slices.SortFunc(used, func(a, b use) int { return cmp.Or(cmp.Compare(b.much, a.much), cmp.Compare(a.key, b.key)) })
	var keys []string
	for _, u := range used[:min(most, len(used))] {
		keys = append(keys, u.key)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
