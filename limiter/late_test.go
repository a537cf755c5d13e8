package limiter_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"

	"github.com/redis/go-redis/v9"
)

// prompt is how long a pause of 5 ms and a question to Redis that decides nothing take at most, on a machine that is not too busy.
const prompt = 20 * time.Millisecond

// late knows when the machine was not prompt: nobody can do anything in time then, however well it is made.
type late struct {
	mu    sync.Mutex
	asked time.Time // the question that is not answered yet
	slow  []stretch // those that took longer than is prompt
}

// stretch is from one time to another.
type stretch struct{ from, to time.Time }

// newLate looks until the test ends.
func newLate(t *testing.T, server *redistest.Server) *late {
	options := server.Options()
	options.MaxRetries, options.ReadTimeout, options.PoolTimeout = -1, time.Minute, time.Minute
	client := redis.NewClient(options)
	l := &late{asked: time.Now()}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
			_ = client.Ping(ctx).Err() // it takes as long as it takes
			l.answered()
		}
	}()
	t.Cleanup(func() {
		stop()
		_ = client.Close()
		<-ended
	})
	return l
}

func (l *late) answered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.asked) > prompt {
		l.slow = append(l.slow, stretch{l.asked, now})
	}
	l.asked = now
}

// all are the stretches so far. l.mu is held.
func (l *late) all() []stretch {
	if now := time.Now(); now.Sub(l.asked) > prompt {
		return append(l.slow[:len(l.slow):len(l.slow)], stretch{l.asked, now})
	}
	return l.slow
}

// most is the most that it was late so far.
func (l *late) most() (most time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	most = prompt
	for _, s := range l.all() {
		most = max(most, s.to.Sub(s.from))
	}
	return most
}

// lost is for how long, between two times, it was not prompt.
func (l *late) lost(from, to time.Time) (lost time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.all() {
		if s.from.Before(from) {
			s.from = from
		}
		if s.to.After(to) {
			s.to = to
		}
		lost += max(0, s.to.Sub(s.from))
	}
	return lost
}
