package limiter

import (
	"context"
	"encoding/binary"
	"errors"
	"time"
)

// All replicas share one time. It is Redis's, and goes on as before when Redis's clock is set, or another server takes over whose
// clock is ahead: each call says what the caller takes the time for, by its own monotonic clock, and a script that finds
// another does nothing. Then who asked measures by how much the clock was set, and alive.lua takes it off, for all. So stamps never age
// at once, and nobody waits for what a clock that was set back has put into the future.
//
// In a Cluster, whose nodes have clocks of their own, each is believed.

// clockSlack is how far off a replica may take the time to be: half of what the slowest answer takes, and more. A clock that is
// set by less than this, and a call's patience, is not noticed, which the guard is to cover.
const clockSlack = 200 * time.Millisecond

// errStepped: Redis's clock was set, or ours stood still.
var errStepped = errors.New("the clock of Redis is not where it was")

// bounds are the earliest and the latest time for a call that is sent now and waited for so long; 0 and the end of all times
// while nothing is known.
func (s *Redis) bounds(patience time.Duration) (earliest, latest int64) {
	if s.cluster || s.epoch.Load() == 0 {
		return 0, 1 << 52
	}
	now := s.now()
	return s.foreign(now - clockSlack), s.foreign(now + patience + clockSlack)
}

// deviation is by how much the time that a call brought, which began then, is not what we take it for; 0 if the call's length or
// our clocks' inaccuracy may explain that. In µs.
func (s *Redis) deviation(shared int64, began time.Time) int64 {
	if s.cluster || s.epoch.Load() == 0 {
		return 0
	}
	now := s.now()
	earliest, latest := s.foreign(now-time.Since(began)-clockSlack), s.foreign(now+clockSlack)
	if shared >= earliest && shared <= latest {
		return 0
	}
	return shared - (earliest+latest)/2
}

const (
	// ringLife is how much longer than its longest window a ring lives in Redis, by Redis's own clock: admit.lua and amend.lua have
	// it, too.
	ringLife = 2*time.Hour + time.Minute
	// harmless is the longest step of Redis's clock forward that ends nothing that was counted within a window: a ring's life is
	// begun anew every 30 s at most.
	harmless = ringLife - time.Minute
)

// outlived reports whether Redis's clock was set forward by so much since we gave Redis what we know that rings may have come to their
// ends: nobody counts there before he has given it that again. s.mu is held.
func (s *Redis) outlived() bool {
	return (s.state == linked || s.state == returning) && s.shiftMost-s.shift > int64(harmless/time.Microsecond)
}

const (
	// measurings is how often it is measured at most by how much Redis's clock was set. Half of what the question takes may be wrong,
	// so the quickest one counts.
	measurings = 5
	// quick is how long a question may take that need not be asked again.
	quick = 10 * time.Millisecond
)

// setRight takes off the shared clock by how much it was set, as a question that took that long has told.
func (s *Redis) setRight(ctx context.Context, set int64, trip time.Duration) error {
	for n := 1; n < measurings && trip > quick; n++ {
		again, anew, err := s.askFleet(ctx, false, 0)
		if err != nil || anew == 0 { // another replica was quicker
			return err
		}
		if again.trip < trip {
			set, trip = anew, again.trip
		}
	}
	_, _, err := s.askFleet(ctx, false, set)
	return err
}

// clockWords are what a question begins with: what is added to Redis's clock, and what the time may be. s.mu is held.
func (s *Redis) clockWords(text []byte, patience time.Duration) []byte {
	earliest, latest := s.bounds(patience)
	text = binary.BigEndian.AppendUint64(text, uint64(s.shift))
	text = binary.BigEndian.AppendUint64(text, uint64(earliest))
	return binary.BigEndian.AppendUint64(text, uint64(latest))
}

// synchronise sets our clock by the shared one, as well as a call that began then can tell. s.mu is held.
func (s *Redis) synchronise(shared int64, began time.Time) {
	trip := time.Since(began)
	middle := began.Add(trip / 2).Sub(s.base)
	if s.epoch.Load() == 0 {
		s.epoch.Store(shared - int64(middle/time.Microsecond))
	}
	s.bestTrip += s.bestTrip/16 + time.Microsecond // an old one is worth less
	if trip <= s.bestTrip || s.bestTrip < 10*time.Microsecond {
		s.bestTrip = trip
		s.skew.Store(int64(s.local(shared) - middle))
	}
}
