package limiter_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/limiter"
)

// Three processes share Redis. A flood comes in at all of them, or at the two others, and one client asks at one of them for all
// of its fair part. Each process has a queue of its own, so turns between processes are by chance, but no window passes
// without the client.
func TestFloodAndPoliteOnThree(t *testing.T) {
	const requests, slot = 20, 100 * time.Millisecond
	tests := map[string][]int{ // at which processes the flood comes in
		"everywhere": {0, 1, 2},
		"elsewhere":  {1, 2},
	}
	for name, flooded := range tests {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			var fleet []*limiter.Redis
			for range 3 {
				fleet = append(fleet, newLinked(t, server.Options()))
			}
			b := budget("api/acme", requests, requests*slot)
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			var running sync.WaitGroup
			for i := range 200 {
				running.Go(func() {
					for ctx.Err() == nil {
						p, err := fleet[flooded[i%len(flooded)]].Take(ctx, named("flood", 1, b))
						if err == nil {
							p.Sent()
						}
					}
				})
			}
			var waits []time.Duration
			tick := time.NewTicker(2 * slot)
			defer tick.Stop()
			for ctx.Err() == nil {
				<-tick.C
				asked := time.Now()
				p, err := fleet[0].Take(ctx, named("polite", 1, b))
				if err == nil {
					p.Sent()
					waits = append(waits, time.Since(asked))
				}
			}
			running.Wait()
			waits = waits[len(waits)/3:] // the burst with which the flood begins
			slices.Sort(waits)
			t.Logf("n %d p50 %v p90 %v p95 %v max %v", len(waits), waits[len(waits)/2], waits[len(waits)*9/10], waits[len(waits)*95/100], waits[len(waits)-1])
			if got := waits[len(waits)/2]; got >= 3*slot {
				t.Errorf("the polite one waits %v in the median, want less than %v: %v", got, 3*slot, waits)
			}
			if got := waits[len(waits)*95/100]; got >= requests*slot {
				t.Errorf("the polite one waits %v, want less than a window: %v", got, waits)
			}
			if len(waits) < 20 {
				t.Errorf("the polite one was served only %d times", len(waits))
			}
		})
	}
}
