package limiter

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

const (
	replicasKey = "fap:v1:{replicas}"
	// beatEvery is how often a replica says that it is alive, and aliveFor how long that is believed.
	beatEvery = time.Second
	aliveFor  = 3 * time.Second
	// probeEvery is how often Redis is looked for while it is away.
	probeEvery = 250 * time.Millisecond
	// settle is how long a replica that is back waits for the others at least: longer than each of them takes to see
	// that Redis is back. missing is how long it waits for those that do not come.
	settle  = 2 * time.Second
	missing = 6 * time.Second
)

func newName() string { return rand.Text() }

// watch keeps the state: is Redis there, and are the others?
func (s *Redis) watch(ctx context.Context) {
	pace := rate.NewLimiter(rate.Every(probeEvery), 1)
	var since time.Time // of returning
	for pace.Wait(ctx) == nil {
		s.mu.Lock()
		state, link, seen := s.state, s.link, s.seen
		s.mu.Unlock()
		name := s.name
		if state == unseen || state == cut {
			name = "" // the others must not count on us before Redis knows what we know
		}
		now, isNew, err := s.beat(ctx, name)
		if state == linked && isNew {
			err = errForgotten
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.lost(link, err)
			continue
		case state == unseen || state == cut:
			if s.goBack(ctx, link, now) {
				since = time.Now()
			}
			continue
		case state == returning:
			waited := time.Since(since)
			if s.replicas == 1 || waited > missing || waited > settle && now >= max(seen, s.replicas) {
				s.enter(linked, link, now)
			}
			continue
		}
		s.sawReplicas(now)
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

// beat says that we are alive, unless the name is empty, and returns how many are.
func (s *Redis) beat(ctx context.Context, name string) (replicas int, isNew bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	began := time.Now()
	answer, err := texts(alive.Run(ctx, s.client, []string{replicasKey}, channel, name, micros(aliveFor)))
	if err != nil {
		return 0, false, err
	}
	s.synchronise(answer[0], began)
	if all, ok := s.client.(*redis.ClusterClient); ok { // a part of it that is away is seen by all replicas
		err = all.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error { return master.Ping(ctx).Err() })
	}
	return int(answer[1]), answer[2] == 1, err
}

// synchronise sets our clock by Redis's, as well as a call that began then can tell.
func (s *Redis) synchronise(redisTime int64, began time.Time) {
	trip := time.Since(began)
	middle := began.Add(trip / 2).Sub(s.base)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch.Load() == 0 {
		s.epoch.Store(redisTime - int64(middle/time.Microsecond))
	}
	s.bestTrip += s.bestTrip/16 + time.Microsecond // an old one is worth less
	if trip <= s.bestTrip || s.bestTrip < 10*time.Microsecond {
		s.bestTrip = trip
		s.skew.Store(int64(s.local(redisTime) - middle))
	}
}

// sawReplicas notes how many are alive. That one has gone is believed when it has been so for a while: one that is only cut
// off has its share all the same.
func (s *Redis) sawReplicas(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = n
}

// lost makes us count alone, since Redis cannot be reached, if that was found in the present state.
func (s *Redis) lost(link int, err error) {
	s.mu.Lock()
	if s.link != link || s.state == unseen || s.state == cut {
		s.mu.Unlock()
		return
	}
	s.change(cut)
	for _, a := range s.changesDue {
		s.amendHere(a)
	}
	s.changesDue = nil
	s.cuts++
	s.mu.Unlock()
	s.nudge()
	s.observe(Event{Kind: RedisLost, Err: err})
}

// change changes the state, and what is ours of each budget. s.mu is held.
func (s *Redis) change(to state) {
	s.state = to
	s.link++
	for _, b := range s.all {
		b.divide(s.share())
	}
	now := s.now()
	s.plan(now, false)
	s.pump(now)
}

// enter changes the state if it is the same still.
func (s *Redis) enter(to state, link, replicas int) bool {
	s.mu.Lock()
	if s.link != link {
		s.mu.Unlock()
		return false
	}
	from := s.state
	if to == returning {
		s.countHere()
	}
	switch {
	case from == unseen:
		s.seen = replicas + 1 // with us
	case to == linked:
		s.seen, s.fresh = replicas, false
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
func (s *Redis) goBack(ctx context.Context, link, others int) bool {
	s.mu.Lock()
	fresh := s.fresh
	s.mu.Unlock()
	if fresh && s.discover(ctx) != nil {
		return false
	}
	if s.exchange(ctx) != nil || !s.enter(returning, link, others) {
		return false
	}
	if err := s.exchange(ctx); err != nil {
		s.lost(link+1, err)
		return false
	}
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
			c.stamps = append(c.stamps, b.unique(now))
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
	head := []any{channel, micros(b.span), b.keep, "merge", stamps, paused, shrunk, int64(b.shrunk.factor * 1e6)}
	s.mu.Unlock()
	whole, err := amend.Run(ctx, s.client, []string{b.at}, head...).Text()
	if err != nil {
		return err
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

// tend looks after what takes longer than expected: requests that have not left yet, and stamps that have not come.
func (s *Redis) tend(ctx context.Context) {
	every := max(s.late/2, 20*time.Millisecond)
	ticker := time.NewTicker(min(every, 100*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.renew()
			s.fetch(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// gapPatience is how long a stamp may take to come by itself.
const gapPatience = 100 * time.Millisecond

// fetch gets the rings of which something is missing.
func (s *Redis) fetch(ctx context.Context) {
	s.mu.Lock()
	var missed []*budget
	now := s.now()
	for b, g := range s.gaps {
		if g.stamp != never && b.everything().has(g.stamp) {
			delete(s.gaps, b)
		} else if now-g.since > gapPatience {
			delete(s.gaps, b)
			missed = append(missed, b)
		}
	}
	asking := s.state != unseen && s.state != cut
	s.mu.Unlock()
	if !asking {
		return
	}
	for _, b := range missed {
		call, cancel := context.WithTimeout(ctx, 2*patience)
		whole, err := s.client.Get(call, b.at).Result()
		cancel()
		if err != nil {
			continue // none there, or Redis is away, which others notice
		}
		s.mu.Lock()
		link, forgot := s.link, s.forgot(b, whole)
		if !forgot {
			s.restore(b, whole)
			b.full = longAgo
		}
		s.changes++
		s.pump(s.now())
		s.mu.Unlock()
		if forgot {
			s.lost(link, errForgotten)
			return
		}
	}
}
