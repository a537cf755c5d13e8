package limiter

import (
	"context"
	"crypto/rand"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

const (
	replicasKey = "fap:v1:{replicas}"
	// beatEvery is how often a replica says that it is alive, or looks for Redis while it is away. alive.lua has for how long it
	// is believed: four times that.
	beatEvery = 150 * time.Millisecond
	silent    = 600 * time.Millisecond
	// settle is how long a replica that is back waits for the others at least: longer than each of them takes to see
	// that Redis is back. missing is how long it waits for those that do not come.
	settle  = 2 * time.Second
	missing = 6 * time.Second
	// firm is for how long who has just started looks at Redis's clock before he believes it: if it was set a moment ago the others
	// are about to set it right, unless somebody else has found it right.
	firm = 2 * beatEvery
)

func newName() string { return rand.Text() }

// watch keeps the state: is Redis there, and are the others?
func (s *Redis) watch(ctx context.Context) {
	pace := rate.NewLimiter(rate.Every(beatEvery), 1)
	var met, since time.Time // when Redis was first seen, and of returning
	var silence silence
	for pace.Wait(ctx) == nil {
		s.mu.Lock()
		state, link, seen, fresh := s.state, s.link, s.seen, s.fresh
		s.mu.Unlock()
		others, err := s.beat(ctx, state == linked || state == returning) // else Redis does not know yet what we know
		if state == linked && others.isNew {
			err = errForgotten
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.lost(link, err)
			continue
		case state == unseen || state == cut:
			if met.IsZero() {
				met = time.Now()
			}
			if fresh && time.Since(met) < firm {
				continue
			}
			if s.goBack(ctx, link, others) {
				since = time.Now()
			}
			continue
		case state == returning:
			waited := time.Since(since)
			if seen = max(seen, others.size()); fresh { // it has met nobody of whom Redis does not know
				seen = others.size()
			}
			if s.replicas == 1 || waited > missing || waited > settle && others.alive >= max(seen, s.replicas) {
				s.enter(linked, link, others)
			}
			continue
		}
		s.tell(&silence, len(others.held) > 0)
		s.pauseUntilNudged(ctx, beatEvery)
	}
}

func (s *Redis) pauseUntilNudged(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.kick:
	case <-ctx.Done():
	}
}

func (s *Redis) nudge() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// change changes the state, and what is ours of each budget. s.mu is held.
func (s *Redis) change(to state) {
	s.state = to
	s.link++
	s.divideAll()
}

// divideAll makes ours of each budget what the state says. s.mu is held.
func (s *Redis) divideAll() {
	now := s.now()
	for _, b := range s.all {
		if s.state == linked {
			b.own = ring{}
		}
		b.believe()
		b.divide(s.share())
		b.held = s.held
		b.doubted = s.doubtful()
		s.met(b, b.windows, now)
	}
	s.dismissHopeless(now)
	s.pump(now)
}

// enter changes the state if it is the same still.
func (s *Redis) enter(to state, link int, others fleet) bool {
	s.mu.Lock()
	if s.link != link {
		s.mu.Unlock()
		return false
	}
	from := s.state
	if to == returning {
		s.countHere()
		s.muted, s.doubt, s.given = false, 0, false
		s.seen, s.silent, s.checked = max(s.seen, others.size()+1), others.held, s.now() // with us
		if len(others.held) < len(s.held) {
			s.held = others.held
		}
	}
	switch {
	case from == unseen:
		s.beaten = s.now()
	case to == linked:
		s.seen, s.fresh = others.size(), false
		s.changed = s.now()
		s.held, s.silent = others.held, others.held
		s.suspectRings() // what the others gave Redis after us
	}
	s.change(to)
	s.mu.Unlock()
	switch {
	case to == linked:
		s.observe(Event{Kind: RedisLinked})
	case from == cut:
		s.observe(Event{Kind: RedisReturned})
	}
	return true
}

// goBack gives Redis what it does not know, and begins to count there.
func (s *Redis) goBack(ctx context.Context, link int, others fleet) bool {
	s.mu.Lock()
	fresh, behind, other := s.fresh, s.behind, s.run != 0 && s.run != s.ranAs
	if other && s.silenced {
		if s.muted { // it is not known yet what the others may have used at the old one
			s.mu.Unlock()
			return false
		}
		s.insist()
	}
	s.shiftMost, s.run = s.shift, s.ranAs
	s.mu.Unlock()
	if other || s.cluster {
		s.subscribeAnew(other)
	}
	if fresh && s.discover(ctx) != nil || behind && !other && s.catchUp(ctx, link) != nil {
		return false
	}
	if s.exchange(ctx) != nil || !s.enter(returning, link, others) {
		return false
	}
	if err := s.exchange(ctx); err != nil {
		s.lost(link+1, err)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = true
	return true
}

// countHere counts what was taken while Redis was away, and is open still, as of now: the exchange that follows carries
// it there. s.mu is held.
func (s *Redis) countHere() {
	for e := s.here.Front(); e != nil; e = s.here.Front() {
		p, now := s.here.Remove(e).(*Permit), s.now()
		p.alone = nil
		c := standing(len(p.budgets))
		for _, b := range p.budgets {
			c.stamps = append(c.stamps, s.unique(b, now))
		}
		s.count(p, c)
	}
}

// exchange merges what Redis and we know of each budget.
func (s *Redis) exchange(ctx context.Context) error {
	s.mu.Lock()
	all := append([]*budget(nil), s.Local.all...)
	s.mu.Unlock()
	var merging errgroup.Group
	merging.SetLimit(8)
	for _, b := range all {
		merging.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, 4*patience)
			defer cancel()
			return s.merge(ctx, b)
		})
	}
	return merging.Wait()
}

func (s *Redis) merge(ctx context.Context, b *budget) error {
	s.mu.Lock()
	now := s.now()
	stamps := s.packed(b.everything().all(now - b.span))
	paused, shrunk := s.pauseOf(b, now)
	head := []any{channel, micros(b.span), b.keep, s.clockWords(nil, 4*patience), "merge", stamps, paused, shrunk, int64(b.shrunk.factor * 1e6)}
	s.mu.Unlock()
	whole, err := amend.Run(ctx, s.client, []string{b.at}, head...).Text()
	if err != nil {
		return err
	}
	if whole == "clock" {
		return errStepped
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restore(b, whole)
	delete(s.gaps, b)
	return nil
}

// pauseOf is a budget's pause and shrinking in Redis's time; 0: none.
func (s *Redis) pauseOf(b *budget, now time.Duration) (paused, shrunk int64) {
	if b.paused > now {
		paused = s.foreign(b.paused)
	}
	if b.shrunk.factor > 0 {
		shrunk = s.foreign(b.shrunk.at)
	}
	return paused, shrunk
}

// suspectAll lets all rings be fetched.
func (s *Redis) suspectAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspectRings()
}

// suspectRings is suspectAll for who holds s.mu.
func (s *Redis) suspectRings() {
	for _, b := range s.Local.all {
		s.gaps[b] = gap{never, longAgo}
	}
}
