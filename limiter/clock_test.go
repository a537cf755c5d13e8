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
	for name, ahead := range map[string]time.Duration{
		"forward": time.Hour, "back": -time.Hour, "a little": 3 * time.Second, "three hours": 3 * time.Hour, "three days": 72 * time.Hour,
	} {
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
			if used := f.used(began, ended); used < 0.9 && f.lost(began, nil) == 0 {
				t.Errorf("%.1f %% of the budget were used", 100*used)
			}
			t.Logf("%d losses", f.lost(began, nil))
		})
	}
}

// A replica that starts after the clock was set knows what was counted before, should Redis die.
func TestClockIsSetBeforeAReplicaStarts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.OwnClock())
	old := newLinked(t, server.Options())
	b := budget("api/acme", 30, time.Minute)
	for range 30 {
		send(t, old.Local, request(10*time.Second, b))
	}
	server.SetClock(time.Hour)
	fresh := newLinked(t, server.Options())
	server.Kill()
	until(t, "both count alone", func() bool { return old.State() == "alone" && fresh.State() == "alone" })
	until(t, "fresh counts at all", func() bool { return fresh.Replicas() == 2 })
	time.Sleep(2 * time.Second) // longer than who was not told that Redis is gone takes nothing
	refused(t, old.Local, request(0, b))
	refused(t, fresh.Local, request(0, b))
}
