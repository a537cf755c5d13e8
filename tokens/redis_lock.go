package tokens

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

const (
	// renewals is how often a lock is renewed during its life.
	renewals = 3
	// renewAgain is the pause after a renewal that failed, as when Redis restarts: whoever else comes to
	// the new server waits for settleTime, in which we put lock and mark back.
	renewAgain = 200 * time.Millisecond
	// settleTime is longer than Redis's clients need to find a server again that just came back.
	settleTime = 3 * time.Second
	// minPoll and maxPoll bound the pauses between looks at a lock or mark of another process. Those
	// who wait for a token do not wait for it (see Watch).
	minPoll = 10 * time.Millisecond
	maxPoll = 200 * time.Millisecond
	// releaseFor bounds one try to release a lock, of releaseTries.
	releaseFor   = time.Second
	releaseTries = 3
)

// leave is how long after Spend was called a request may begin to leave: 5 s of a call's 30 s.
func (r *Redis) leave() time.Duration { return r.cfg.Call / 6 }

// markLife is how long a mark lives: the time to leave, the call, and as much as the former again for clocks and the way.
// That is 40 s; then an answer comes only if its process was halted.
func (r *Redis) markLife() time.Duration { return r.leave() + r.cfg.Call + r.leave() }

// redisLease is a lock in Redis. It is renewed until it is released.
type redisLease struct {
	r       *Redis
	account string
	owner   string
	settled time.Time // nothing is spent before
	release func()    // once

	mu       sync.Mutex
	spending string    // the version, marked; empty: none
	markEnds time.Time // when its mark dies
}

// Lock waits for its turn among the goroutines of this process, then for the lock in Redis.
func (r *Redis) Lock(ctx context.Context, account string) (Lease, error) {
	giveBack, err := r.turns.take(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("%w: lock account %q: %w", ErrStore, account, err)
	}
	l := &redisLease{r: r, account: account, owner: r.id + strconv.FormatInt(r.locks.Add(1), 10)}
	if err := l.acquire(ctx); err != nil {
		r.running.Go(l.giveUp) // it may be ours all the same
		giveBack()
		return nil, err
	}
	stop := make(chan struct{})
	stopped := make(chan struct{})
	r.running.Go(func() {
		defer close(stopped)
		l.renew(stop)
	})
	l.release = sync.OnceFunc(func() {
		close(stop)
		r.running.Go(func() {
			<-stopped
			giveBack()
			l.giveUp()
		})
	})
	return l, nil
}

func (l *redisLease) acquire(ctx context.Context) error {
	held := false // by another, as Redis has said
	for pause := minPoll; ; pause = min(2*pause, maxPoll) {
		began := time.Now()
		result, err := l.r.eval(ctx, lockScript, l.account, l.owner, l.r.id, l.r.cfg.Lease.Milliseconds())
		switch {
		case err != nil && held && ctx.Err() != nil: // time was up amid a look
			return l.waited(anotherRefreshes, context.Cause(ctx))
		case err != nil:
			return l.r.fail("lock", l.account, err)
		}
		if number(result, 0) == 1 {
			l.r.told(began, number(result, 2))
			l.settled = l.r.settled(l.account, word(result, 1))
			return nil
		}
		held = true
		if err := rest(ctx, pause/2+rand.N(pause)); err != nil {
			return l.waited(anotherRefreshes, err)
		}
	}
}

// home is the server that has an account.
type home struct {
	server  string // its run id
	settled time.Time
}

// settled is when the server that has the account can be trusted to know who is spending: at once, unless it is another
// one than when the account was last locked here, or its clock was set forward. A failover or a restart may have lost lock
// and mark, as may such a step.
func (r *Redis) settled(account, server string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, known := r.homes[account]
	if known && h.server != server {
		h.settled = time.Now().Add(settleTime)
	}
	h.server = server
	r.homes[account] = h
	return later(h.settled, r.unsettled())
}

// renew renews the lock until it is to stop. It goes on when another process has it: of that Spend learns, and
// the mark is still to be kept.
func (l *redisLease) renew(stop <-chan struct{}) {
	pause := l.r.cfg.Lease / renewals
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-l.r.closed:
			return
		case <-timer.C:
		}
		if l.renewOnce() == nil {
			timer.Reset(pause)
		} else {
			timer.Reset(min(renewAgain, pause))
		}
	}
}

func (l *redisLease) renewOnce() error {
	ctx, cancel := context.WithTimeout(context.Background(), l.r.cfg.Lease/renewals)
	defer cancel()
	l.mu.Lock()
	spending, left := l.spending, time.Until(l.markEnds)
	l.mu.Unlock()
	if left < time.Millisecond {
		spending = ""
	}
	_, err := l.r.eval(ctx, renewScript, l.account, l.owner, l.r.cfg.Lease.Milliseconds(), spending, left.Milliseconds())
	return err
}

// What the spend script says.
const (
	maySpend = 1
	mustWait = 2
	notThis  = 3
	wasSet   = 5
)

// What Lock and Spend wait for.
const (
	anotherRefreshes = "another process refreshes it"
	forAnother       = "another process may yet bring its new tokens"
)

// waited says what was waited for in vain.
func (l *redisLease) waited(because string, err error) error {
	return fmt.Errorf("%w: lock account %q: %s: %w", ErrStore, l.account, because, err)
}

// Spend waits while another process may yet bring the answer for this version, then marks it as being spent by us.
func (l *redisLease) Spend(ctx context.Context, version int64) (until time.Time, err error) {
	mark := l.r.markLife()
	waits := false // for another, as Redis has said
	for {
		if err := rest(ctx, time.Until(l.settled)); err != nil {
			return time.Time{}, l.waited(forAnother, err)
		}
		began := time.Now()
		result, err := l.r.write(ctx, spendScript, l.account, l.owner, l.r.id, version, l.r.cfg.Lease.Milliseconds(), mark.Milliseconds(),
			l.r.latest())
		switch {
		case err != nil && waits && ctx.Err() != nil: // time was up amid a look
			return time.Time{}, l.waited(forAnother, context.Cause(ctx))
		case err != nil:
			return time.Time{}, l.r.fail("refresh", l.account, err)
		}
		switch number(result, 0) {
		case maySpend:
			l.mu.Lock()
			l.spending, l.markEnds = strconv.FormatInt(version, 10), began.Add(mark)
			l.mu.Unlock()
			return began.Add(l.r.leave()), nil
		case mustWait:
			waits = true
			left := time.Duration(number(result, 1))*time.Millisecond + time.Millisecond
			if err := rest(ctx, min(maxPoll/2+rand.N(maxPoll), left)); err != nil {
				return time.Time{}, l.waited(forAnother, err)
			}
		case notThis:
			return time.Time{}, fmt.Errorf("account %q: no longer version %d: %w", l.account, version, ErrConflict)
		case wasSet:
			l.r.told(began, number(result, 1))
			l.settled = l.r.unsettled()
		default:
			return time.Time{}, fmt.Errorf("%w: refresh account %q: the lock is lost: this process, or Redis, was away for longer than %s; it is tried again",
				ErrStore, l.account, l.r.cfg.Lease)
		}
	}
}

// Release gives the lock back in the background; Close waits for that.
func (l *redisLease) Release() { l.release() }

// giveUp takes lock and mark out of Redis. If it cannot, they die by themselves.
func (l *redisLease) giveUp() {
	for range releaseTries {
		ctx, cancel := context.WithTimeout(context.Background(), releaseFor)
		_, err := l.r.eval(ctx, releaseScript, l.account, l.owner)
		cancel()
		if err == nil {
			return
		}
	}
}

// rest waits, at most until ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
