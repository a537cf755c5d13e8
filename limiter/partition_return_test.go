package limiter_test

import (
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/limiter"
)

// One is cut off when all have just come back to Redis. What was left of the budget until then nobody could have, as each kept to its
// share; so it is not what nobody wants: the others use all of it, and the one that is cut off has nothing.
func TestCutOffAfterTheReturn(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	wire := redistest.NewWire(t, server.Addr())
	far := server.Options()
	far.Addr = wire.Addr()
	lonely, one, other := newLinked(t, far), newLinked(t, server.Options()), newLinked(t, server.Options())
	all := []*limiter.Redis{lonely, one, other}
	are := func(state string, some ...*limiter.Redis) func() bool {
		return func() bool {
			for _, s := range some {
				if alive, silent := s.Fleet(); s.State() != state || alive+silent != len(all) {
					return false
				}
			}
			return true
		}
	}
	until(t, "know of one another", are("linked", all...))
	b := budget("api/acme", 120, time.Minute)
	taken := 0
	takes := func(s *limiter.Redis) {
		for {
			p, err := s.Take(t.Context(), request(0, b))
			if err != nil {
				return
			}
			p.Sent()
			taken++
		}
	}
	server.Stop()
	for _, s := range all {
		until(t, "has lost Redis", func() bool { return s.State() == "alone" })
	}
	server.Cont()
	until(t, "all are returning", are("returning", all...))
	takes(one)
	takes(other)
	until(t, "all are back", are("linked", all...))
	wire.Cut()
	takes(one)
	takes(other)
	used := taken
	until(t, "counts alone", are("alone", lonely))
	for began := time.Now(); time.Since(began) < 3*time.Second; time.Sleep(10 * time.Millisecond) {
		takes(lonely)
	}
	if t.Logf("%d of 120 by two, %d by the one that was cut off", used, taken-used); taken > 120 {
		t.Errorf("%d of 120 went", taken)
	}
}
