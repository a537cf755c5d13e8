package tokens

import (
	"strconv"
	"strings"
	"time"
)

// The times in a grant are by the clock of the process that got it, which may be minutes ahead of another's, and a day after
// its machine's battery died. So whoever writes one says by how much its clock is ahead of Redis's, and whoever reads it
// moves the times to its own.

// sameClock is how far two clocks may be apart that are taken for one: the way to Redis takes its time, too.
const sameClock = time.Second

// redisClock is what Redis's clock said at some time here.
type redisClock struct {
	here  time.Time
	redis time.Time
}

// told notes what Redis's clock said, in Unix ms, to a question that left at that time.
func (r *Redis) told(left time.Time, ms int64) {
	r.clock.Store(&redisClock{here: left, redis: time.UnixMilli(ms)})
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
