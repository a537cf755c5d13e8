package limiter_test

import (
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"

	"github.com/redis/go-redis/v9"
)

// The clock of Redis's machine is set, forward and back, under load: nothing is too much, and nobody waits for it. The replicas'
// own clocks do not matter, since only how they go on is looked at.
func TestFleetClockIsSet(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour, "a little": 3 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.OwnClock())
			f := newFleet(t, 3, func() redis.UniversalClient {
				options := server.Options()
				options.ContextTimeoutEnabled, options.MaxRetries = true, -1
				return redis.NewClient(options)
			})
			for _, m := range f.members {
				f.load(m, 10)
			}
			began := time.Now()
			time.Sleep(3 * time.Second)
			server.SetClock(ahead)
			time.Sleep(3 * time.Second)
			server.SetClock(0)
			ended := began.Add(2 * (fleetWindows[1].Per + guard))
			time.Sleep(time.Until(ended))
			f.end()
			f.check()
			if used := f.used(began, ended); used < 0.9 && f.losses.Load() == 0 {
				t.Errorf("%.1f %% of the budget were used", 100*used)
			}
			if n := f.refused.Load(); n > 0 {
				t.Errorf("%d were refused", n)
			}
			t.Logf("%d losses", f.losses.Load())
		})
	}
}
