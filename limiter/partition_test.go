package limiter_test

import (
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"

	"github.com/redis/go-redis/v9"
)

// One replica of three is cut off, and goes on with its share; the others leave it that. No window holds too much.
func TestFleetPartition(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := redistest.NewWire(t, server.Addr())
	addresses := []string{w.Addr(), server.Addr(), server.Addr()}
	f := newFleet(t, 3, func() redis.UniversalClient {
		address := addresses[0]
		addresses = addresses[1:]
		return redis.NewClient(&redis.Options{Addr: address, ContextTimeoutEnabled: true, MaxRetries: -1})
	})
	lonely := f.members[0]
	until(t, "all know of all", func() bool {
		return lonely.Replicas() == 3 && f.members[1].Replicas() == 3 && f.members[2].Replicas() == 3
	})
	for _, m := range f.members {
		f.load(m, 15)
	}
	cycle := fleetWindows[1].Per + guard
	time.Sleep(3 * time.Second)
	w.Jam()
	cut := time.Now()
	until(t, "counts alone", func() bool { return lonely.State() == "alone" })
	time.Sleep(3 * cycle)
	mended := time.Now()
	alone := f.taken(lonely, cut.Add(cycle), mended)
	w.Mend()
	until(t, "counts in Redis again", func() bool { return lonely.State() == "linked" })
	time.Sleep(cycle)
	f.end()
	f.check()
	if want := 2 * fleetWindows[1].Requests / 3; alone < want*8/10 || alone > want+fleetWindows[1].Requests/3 {
		t.Errorf("%d permits while it was cut off, want about %d", alone, want)
	}
	if used := f.used(cut.Add(cycle), mended); used < 0.9 {
		t.Errorf("%.1f %% of the budget were used while one was cut off", 100*used)
	}
	if n := f.refused.Load(); n > 0 {
		t.Errorf("%d were refused", n)
	}
	if n := f.silences.Load(); n != 2 {
		t.Errorf("%d replicas told that one is silent, want 2", n)
	}
}
