package limiter

import (
	"encoding/binary"
	"slices"
	"time"
)

// mirror is what a process knows of a budget that Redis counts.
type mirror struct {
	at      string        // the ring's key in Redis
	share   int           // one in how many of the budget is ours: 1 while Redis decides, more while it is away
	known   ring          // all that is known, while share is more than 1; the budget's ring then has our share of it
	full    time.Duration // no room before then, Redis said,
	fullFor int           // for who leaves so much headroom, or more

	divided time.Duration // while share is more than 1, later stamps stand for themselves alone
	own     ring          // what we took since we last counted in Redis with all others, who may not have heard of it

	held    []int    // one in so many is left to each replica that may count alone
	windows []Window // as it was last asked for
	assumed assumed  // of what others may have used
	made    int64    // the latest stamp that was made here, in Redis's time
	doubted bool     // others may have used it, and what they may have is not taken in yet
}

// gap is a stamp that Redis has and we have not heard of.
type gap struct{ stamp, since time.Duration }

// adopt makes a budget a mirror. s.mu is held, as in all that follow.
func (s *Redis) adopt(b *budget) {
	b.mirror = &mirror{at: redisKey(b.key), share: s.share(), full: longAgo, divided: longAgo, held: s.held}
	b.doubted = s.doubtful()
}

// share is one in how many of each budget is ours, of what is left when those who counted alone before have theirs: of what they used we
// know nothing.
func (s *Redis) share() int {
	switch {
	case s.state == linked:
		return 1
	case s.state == unseen, s.muted, s.fresh && s.replicas != 1:
		return nobody
	case s.replicas > 0:
		return max(1, s.replicas-len(s.held))
	default:
		return max(1, max(s.seen, s.said)-len(s.held))
	}
}

// ours is what is ours of so many permits, of a window of so many in all.
func (m *mirror) ours(n, requests int) int {
	return leave(n, requests, m.held) / m.share
}

// leave is what is left of n permits when those who may count alone have theirs: a quarter at least, as it may be that none
// of them lives.
func leave(n, requests int, held []int) int {
	least := min(n, (n+3)/4)
	for _, part := range held {
		n -= requests / part
	}
	return max(n, least)
}

// nobody is a share that gives nobody anything.
const nobody = 1 << 30

// insert adds a stamp to the mirror.
func (b *budget) insert(stamp time.Duration) {
	if b.share > 1 {
		b.known.insert(stamp, b.keep, stamp-b.span)
	}
	b.ring.insert(stamp, b.keep, stamp-b.span)
}

// learnOf adds what others counted while we count our share alone, which they leave us: it is none of ours. In a Cluster that is heard
// by who cannot reach one of its servers.
func (b *budget) learnOf(stamp time.Duration) {
	if b.share == 1 { // nothing else is known of
		b.insert(stamp)
		return
	}
	b.known.insert(stamp, b.keep, stamp-b.span)
}

// mark notes whose a stamp is.
func (b *budget) mark(stamp time.Duration, who owner) {
	if b.share > 1 {
		b.known.mark(stamp, who)
	}
	b.ring.mark(stamp, who)
}

// slots is how many replicas make stamps that differ for sure.
const slots = 32

// unique is a stamp for what is counted here as of now. Two that are equal would be one when all replicas have put back what they
// know, so each replica has a place of its own in every 64 µs: those that Redis makes are even, and ours are odd and tell our slot.
// s.mu is held.
func (s *Redis) unique(b *budget, now time.Duration) time.Duration {
	const every = 2 * slots
	stamp := max(s.foreign(now), b.made+1)
	own := 2*(max(0, s.slot)%slots) + 1
	b.made = stamp + (own-stamp%every+every)%every
	return s.local(b.made)
}

// refused notes until when Redis has no room for who leaves so much headroom: for who leaves less it may have some.
func (m *mirror) refused(until time.Duration, headroom int, now time.Duration) {
	switch {
	case until <= now: // it has some
	case m.full <= now || headroom < m.fullFor:
		m.full, m.fullFor = until, headroom
	case headroom == m.fullFor:
		m.full = max(m.full, until)
	}
}

// counts adds a stamp of a permit that is taken here. s.mu is held.
func (s *Redis) counts(b *budget, stamp time.Duration, who owner) {
	b.insert(stamp)
	b.mark(stamp, who)
	if s.state != linked {
		b.own.insert(stamp, b.keep, stamp-b.span)
	}
}

// remove takes a stamp out of the mirror. One that stands for others of its share stays.
func (b *budget) remove(stamp time.Duration) {
	if b.share > 1 {
		b.known.remove(stamp)
		if stamp <= b.divided && !b.own.has(stamp) {
			return
		}
	}
	b.own.remove(stamp)
	b.ring.remove(stamp)
}

// everything is the ring of all that is known.
func (b *budget) everything() *ring {
	if b.share > 1 {
		return &b.known
	}
	return &b.ring
}

// divide makes one in n of the budget ours, or (1) all of it. Of the past, one stamp in n stands for n, the latest first: so
// whatever window is looked at, what is left of our share is no more than one in n of what is left of the budget. What we took
// ourselves since we had such a share before stands for itself: the others have not left more of theirs for it.
func (b *budget) divide(n int) {
	b.full = longAgo
	if n == b.share {
		return
	}
	known := *b.everything()
	b.share, b.known, b.ring = n, ring{}, known
	if n == 1 {
		return
	}
	b.divided = longAgo
	if known.count > 0 {
		b.divided = known.last(1)
	}
	b.known, b.ring = known, ring{}
	var ours []time.Duration // the latest first
	for k, others := 1, 0; k <= known.count; k++ {
		stamp := known.last(k)
		own := b.own.has(stamp)
		if own || others%n == 0 {
			ours = append(ours, stamp)
		}
		if !own {
			others++
		}
	}
	for _, stamp := range slices.Backward(ours) {
		b.ring.push(stamp, b.keep, longAgo)
	}
}

// shrink makes a budget as small as what we had used of it when FreeAgent said that it was used up.
func (l *Local) shrink(want Budget, retryAfter time.Duration) {
	l.mu.Lock()
	now := l.now()
	b := l.budget(want.Key, want.Windows, now)
	var exceeded *Window // the longest one that the pause is long enough for, else the shortest
	for i, w := range want.Windows {
		if exceeded == nil || w.Per <= retryAfter && w.Per > exceeded.Per {
			exceeded = &want.Windows[i]
		}
	}
	shrunk := false
	if exceeded != nil && b.paused <= now {
		used := b.everythingSince(now-exceeded.Per) + b.open
		if b.mirror != nil && b.share > 1 && b.share < nobody { // the others use as much, as far as we know
			used = (b.ring.since(now-exceeded.Per) + b.open) * b.share
		}
		allowed := b.shrunk.of(exceeded.Requests, now)
		if shrunk = used*20 < allowed*19; shrunk { // by more than what jitter explains
			b.shrunk = shrinking{at: now, factor: max(minShare, float64(used)/float64(exceeded.Requests))}
		}
	}
	l.mu.Unlock()
	if shrunk {
		l.observe(Event{Kind: BudgetShrunk, Key: want.Key})
	}
}

// minShare is how much of a budget stays ours, however much others use.
const minShare = 0.2

// everythingSince counts the stamps after t.
func (b *budget) everythingSince(t time.Duration) int {
	if b.mirror != nil {
		return b.everything().since(t)
	}
	return b.ring.since(t)
}

// pausedBy takes in a pause and a shrinking.
func (s *Redis) pausedBy(b *budget, until, shrunk, factor int64) {
	if until > 0 {
		b.paused = max(b.paused, s.local(until))
	}
	if at := s.local(shrunk); shrunk > 0 && (b.shrunk.factor == 0 || at > b.shrunk.at) {
		b.shrunk = shrinking{at: at, factor: float64(factor) / 1e6}
	}
}

// follows notes that we should have a stamp. If it does not come soon the whole ring is fetched.
func (s *Redis) follows(b *budget, stamp, now time.Duration) {
	if _, known := s.gaps[b]; !known && stamp > now-b.span && !b.everything().has(stamp) {
		s.gaps[b] = gap{stamp, now}
	}
}

// header is the size of a ring's header; see admit.lua.
const header = 80

// forgot reports whether a ring as Redis has it lacks much of what was counted before its latest stamp, as after Redis was
// started empty and others went on counting. A few may be on their way to another place.
func (s *Redis) forgot(b *budget, whole string) bool {
	if len(whole) < header || s.state != linked {
		return false
	}
	data := []byte(whole)
	oldest := max(s.now()-b.span, longAgo)
	known := b.ring.all(oldest)
	has := make(map[time.Duration]bool, len(data)/8)
	for at := header; at+8 <= len(data); at += 8 {
		has[s.local(int64(binary.BigEndian.Uint64(data[at:])))] = true
	}
	latest, missing := s.local(int64(binary.BigEndian.Uint64(data[40:]))), 0
	for _, stamp := range known {
		if stamp <= latest && !has[stamp] {
			missing++
		}
	}
	return missing > 3+len(known)/4
}

// restore takes in a ring as Redis has it.
func (s *Redis) restore(b *budget, whole string) {
	if len(whole) < header {
		return
	}
	data := []byte(whole)
	number := func(at int) int64 { return int64(binary.BigEndian.Uint64(data[at:])) }
	small := func(at int) int64 { return int64(binary.BigEndian.Uint32(data[at:])) }
	s.pausedBy(b, number(0), number(8), small(16))
	size, next := small(20), number(32)
	if int64(len(data)) != header+8*size {
		return
	}
	latest := s.local(number(40))
	if s.state == linked {
		kept := b.ring.all(latest) // what came after it was fetched
		before := b.ring
		b.ring = ring{}
		defer func() {
			for _, stamp := range kept {
				b.insert(stamp)
			}
			b.ring.markAll(&before)
		}()
	}
	now := s.now()
	for n := max(0, next-size); n < next; n++ {
		if stamp := s.local(number(header + 8*int(n%size))); stamp > now-b.span {
			b.insert(stamp)
		}
	}
}

// packed are stamps as they stand in a ring.
func (s *Redis) packed(stamps []time.Duration) string {
	data := make([]byte, 0, 8*len(stamps))
	for _, stamp := range stamps {
		data = binary.BigEndian.AppendUint64(data, uint64(s.foreign(stamp)))
	}
	return string(data)
}
