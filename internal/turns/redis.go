package turns

import (
	"context"
	"crypto/rand"
	_ "embed" // of the script
	"errors"
	random "math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// leaseFor is how long a turn outlives its holder: long enough for a halt of the process, or a failover of Redis, short
	// enough for those who wait behind one that was killed. A holder that lives renews it three times as often.
	leaseFor = 3 * time.Second
	renewals = 3
	// believedFor is how long one who waits keeps the others waiting if nothing more is heard of it.
	believedFor = time.Second
	// askEvery is the longest pause between two looks at a turn that another process has. The head of each process's
	// line asks alone, so that it is 50 requests a second to Redis for each process that waits, at most.
	askEvery = 25 * time.Millisecond
	// callFor bounds one request to Redis, and restFor is how long it is left alone after one that failed: shorter while it
	// has been failing for less than hopeFor, in which it is taken to be slow, not away.
	callFor   = 250 * time.Millisecond
	restFor   = time.Second
	restFirst = 50 * time.Millisecond
	hopeFor   = 600 * time.Millisecond
	// insistFor is how long who insists waits for a Redis that fails: who does not may stand in the line behind.
	insistFor = 2 * time.Second
)

//go:embed turn.lua
var turnText string

var turnScript = redis.NewScript(turnText)

// What the script does.
const (
	ask   = "ask"
	renew = "renew"
	leave = "leave"
)

// RedisConfig is what a Redis is made of.
type RedisConfig struct {
	Client redis.UniversalClient
	// Observe hears that Redis cannot be asked (an error), and that it can be again (nil). It may be nil.
	Observe func(error)
}

// Redis is the turns of all processes that share a Redis. In each of them the head of a line alone asks for the turn,
// and Redis gives it to the processes in the order in which they came.
type Redis struct {
	*Local
	client  redis.UniversalClient
	observe func(error)
	name    string // of this process
	callFor time.Duration
	hopeFor time.Duration
	lease   time.Duration
	running sync.WaitGroup

	mu      sync.Mutex
	failing time.Time // since when Redis does not answer; zero: it does
	rested  time.Time // until when it is left alone
}

// NewRedis makes them. It connects when it is first used.
func NewRedis(c RedisConfig) *Redis {
	r := &Redis{Local: NewLocal(), client: c.Client, observe: c.Observe, name: rand.Text(), callFor: callFor, hopeFor: hopeFor, lease: leaseFor}
	if r.observe == nil {
		r.observe = func(error) {}
	}
	return r
}

// Take is Local's, over all processes. While Redis is away it is Local's alone.
func (r *Redis) Take(ctx context.Context, key Key, wait time.Duration) (end func(), err error) {
	return r.take(ctx, key, wait, false)
}

// Insist is Take for one who rather has no turn than one that other processes may not know of: while Redis is away it waits
// for it for two seconds, and then returns ErrAway.
func (r *Redis) Insist(ctx context.Context, key Key, wait time.Duration) (end func(), err error) {
	return r.take(ctx, key, wait, true)
}

func (r *Redis) take(ctx context.Context, key Key, wait time.Duration, insist bool) (end func(), err error) {
	began := time.Now()
	pass, err := r.Local.Take(ctx, key, wait)
	if err != nil {
		return nil, err
	}
	if err := r.acquire(ctx, key, began.Add(wait), insist); err != nil {
		r.running.Go(func() {
			defer pass()
			if !r.awaited(key) { // else the next one stands in our place
				r.leave(key)
			}
		})
		return nil, err
	}
	held, end := context.WithCancel(context.Background())
	r.running.Go(func() {
		defer pass()
		r.keep(held, key)
		r.leave(key)
	})
	return end, nil
}

// acquire asks for the turn until it is ours, or Redis is away: without it it is one at a time in this process, but for
// who insists. Who has heard that another process has it, and whose time is up while Redis does not answer for a moment, has not got it.
func (r *Redis) acquire(ctx context.Context, key Key, until time.Time, insist bool) error {
	refused := false
	for pause := askEvery / 8; ; pause = min(2*pause, askEvery) {
		taken, err := r.call(context.Background(), ask, key)
		left := time.Until(until)
		refused = refused || err == nil
		switch {
		case taken:
			return nil
		case err != nil && !insist && (left <= 0 && !refused || r.awayFor() >= r.hopeFor):
			return nil
		case err != nil && insist && (left <= 0 || r.awayFor() >= insistFor):
			return ErrAway
		case left <= 0:
			return r.busy(key)
		}
		timer := time.NewTimer(min(left, pause/2+random.N(pause/2)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-r.closing:
			timer.Stop()
			return ErrClosed
		}
	}
}

// keep renews the turn until it has ended, also one that Redis does not know of: Redis may be back.
func (r *Redis) keep(held context.Context, key Key) {
	ticker := time.NewTicker(r.lease / renewals)
	defer ticker.Stop()
	for {
		select {
		case <-held.Done():
			return
		case <-ticker.C:
			_, _ = r.call(held, renew, key) // if another process has it, nothing can be done about it
		}
	}
}

// leave gives the turn back. If it cannot, the lease ends by itself.
func (r *Redis) leave(key Key) { _, _ = r.call(context.Background(), leave, key) }

// errResting is what is said of a Redis that failed just now.
var errResting = errors.New("turns: Redis failed just now")

// call runs the script for this process.
func (r *Redis) call(ctx context.Context, do string, key Key) (ok bool, err error) {
	return r.callAs(ctx, r.name, do, key)
}

func (r *Redis) callAs(ctx context.Context, name, do string, key Key) (ok bool, err error) {
	r.mu.Lock()
	resting := time.Now().Before(r.rested)
	r.mu.Unlock()
	if resting {
		return false, errResting
	}
	limited, cancel := context.WithTimeout(ctx, r.callFor)
	defer cancel()
	ok, err = turnScript.Run(limited, r.client, []string{"fap:v1:turn:{" + key.Account + "}:" + key.Work},
		do, name, r.lease.Milliseconds(), believedFor.Milliseconds()).Bool()
	if err == nil || ctx.Err() == nil {
		r.heard(err, key)
	}
	return ok, err
}

// heard notes how Redis answered about a turn, and tells when that changes.
func (r *Redis) heard(err error, key Key) {
	now := time.Now()
	r.mu.Lock()
	was := !r.failing.IsZero()
	switch {
	case err == nil:
		r.failing, r.rested = time.Time{}, time.Time{}
	case !was:
		r.failing, r.rested = now, now.Add(restFirst)
	case now.Sub(r.failing) < r.hopeFor:
		r.rested = now.Add(restFirst)
	default:
		r.rested = now.Add(restFor)
	}
	r.mu.Unlock()
	if was != (err != nil) {
		r.observe(err)
	}
	if !was && err != nil {
		r.running.Go(func() { r.probe(key) })
	}
}

// probe finds out when Redis answers again: the write that it failed may be the last one for a long time.
func (r *Redis) probe(key Key) {
	for {
		select {
		case <-time.After(restFor + askEvery):
		case <-r.closing:
			return
		}
		r.mu.Lock()
		away := !r.failing.IsZero()
		r.mu.Unlock()
		if !away {
			return
		}
		_, _ = r.callAs(context.Background(), "", leave, key) // nobody has no turn, so that nothing is changed
	}
}

// awayFor is for how long Redis has not answered; 0: it does.
func (r *Redis) awayFor() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failing.IsZero() {
		return 0
	}
	return time.Since(r.failing)
}

// Close is Local's, and then waits until Redis has the turns back.
func (r *Redis) Close(ctx context.Context) error {
	err := r.Local.Close(ctx)
	if err == nil {
		r.running.Wait() // for calls to Redis, which are bounded
	}
	return err
}
