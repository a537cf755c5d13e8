package tokens

import (
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// The times in a grant are by the clock of the process that got it, which may be minutes ahead of another's, and a day after
// its machine's battery died. So whoever writes one says by how much its clock is ahead of Redis's, and whoever reads it
// moves the times to its own.

// sameClock is how far two clocks may be apart that are taken for one: the way to Redis takes its time, too.
const sameClock = time.Second

// redisClock is what Redis's clock said at some time here.
type redisClock struct {
	here, redis time.Time
	stepped     time.Time // when it was seen that it had been set forward; zero: never
}

// told notes what Redis's clock said, in Unix ms, to a question that left at that time; and when it is ahead of what it
// can be, since it was set forward. (A Cluster has many clocks, and they are believed as they are.)
func (r *Redis) told(left time.Time, ms int64) {
	c, before := &redisClock{here: left, redis: time.UnixMilli(ms)}, r.clock.Load()
	if _, sharded := r.cfg.Client.(*redis.ClusterClient); before != nil && !sharded {
		c.stepped = before.stepped
		if now := time.Now(); c.redis.Sub(before.redis)-now.Sub(before.here) > sameClock {
			c.stepped = now
		}
	}
	r.clock.Store(c)
}

// unsettled is until when Redis may have lost lock and mark of a living process because its clock was set forward, which
// ends what has an end: the process puts them back when it next renews them. Zero: it may not. (A machine that has slept
// sees the same, and waits in vain.)
func (r *Redis) unsettled() time.Time {
	c := r.clock.Load()
	if c == nil || c.stepped.IsZero() {
		return time.Time{}
	}
	return c.stepped.Add(r.cfg.Lease/renewals + settleTime)
}

// clockStep is by how much Redis's clock must be ahead of what it can be for it to have been set before leave to spend: an answer may be
// late, and smaller steps do no harm: a lock is renewed 10 s before it dies, and a mark has 5 s for clocks (see markLife).
const clockStep = 2500 * time.Millisecond

// latest is the latest that Redis's clock says now if it was not set, in Unix ms; 0: that is not known.
func (r *Redis) latest() int64 {
	if _, sharded := r.cfg.Client.(*redis.ClusterClient); sharded || r.clock.Load() == nil {
		return 0
	}
	return r.Now().Add(clockStep).UnixMilli()
}

// Now is by Redis's clock, once Redis has been heard of.
func (r *Redis) Now() time.Time {
	c := r.clock.Load()
	if c == nil {
		return time.Now()
	}
	return c.redis.Add(time.Since(c.here))
}

// here moves the times of a grant that was read from the clock of its writer to our own. clock is what the writer said of
// its own: "VERSION MS", of use for that version alone, since an older program writes none. Redis was asked at asked, when
// it was now there, in Unix ms. A token was got before it was read, whatever the clocks say.
func (g Grant) here(clock string, asked time.Time, now int64) Grant {
	var shift time.Duration
	if version, ahead, _ := strings.Cut(clock, " "); version == strconv.FormatInt(g.Version, 10) {
		if ms, err := strconv.ParseInt(ahead, 10, 64); err == nil {
			shift = time.Duration(asked.UnixMilli()-now-ms) * time.Millisecond
		}
	}
	if shift.Abs() < sameClock {
		shift = 0
	}
	newest := later(g.ObtainedAt, g.RefreshObtained).Add(shift)
	shift -= max(newest.Sub(asked.Round(0)), 0)
	return g.withTimes(func(t time.Time) time.Time { return t.Add(shift) })
}
