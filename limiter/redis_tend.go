package limiter

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// tend looks after requests that have not left yet, and after the time from which we count alone.
func (s *Redis) tend(ctx context.Context) {
	s.each(ctx, min(max(s.late/2, 20*time.Millisecond), 100*time.Millisecond), func() {
		s.renew()
		s.unmute()
	})
}

// complete looks for stamps that have not come. It may take long when there are many budgets.
func (s *Redis) complete(ctx context.Context) {
	s.each(ctx, gapPatience/5, func() { s.fetch(ctx) })
}

// each calls again and again.
func (s *Redis) each(ctx context.Context, every time.Duration, call func()) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			call()
		case <-ctx.Done():
			return
		}
	}
}

// gapPatience is how long a stamp may take to come by itself.
const gapPatience = 100 * time.Millisecond

// fetched is how many rings are fetched in one round trip: a few megabytes at most.
const fetched = 64

// fetch gets the rings of which something is missing.
func (s *Redis) fetch(ctx context.Context) {
	missed := s.missed()
	for len(missed) > 0 {
		batch := missed[:min(fetched, len(missed))]
		missed = missed[len(batch):]
		call, cancel := context.WithTimeout(ctx, 4*patience)
		pipe, rings := s.client.Pipeline(), make([]*redis.StringCmd, len(batch))
		for i, b := range batch {
			rings[i] = pipe.Get(call, b.at)
		}
		_, _ = pipe.Exec(call) // each ring has its own error: there is none, or Redis is away, which others notice
		cancel()
		for i, b := range batch {
			if whole, err := rings[i].Result(); err == nil && !s.took(b, whole) {
				return
			}
		}
	}
}

// missed are the budgets of whose rings something is missing for long enough.
func (s *Redis) missed() []*budget {
	s.mu.Lock()
	defer s.mu.Unlock()
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
	if s.state == unseen || s.state == cut {
		return nil
	}
	return missed
}

// took takes in a ring that was fetched. false: Redis has lost what was counted.
func (s *Redis) took(b *budget, whole string) bool {
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
	}
	return !forgot
}
