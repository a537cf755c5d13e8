package main

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

// prompt is how long a proxy takes at most, on a machine that is not too busy, for an answer that depends on nothing else.
const prompt = 25 * time.Millisecond

// pulse asks a proxy all the time for such an answer. While that takes longer, or the proxy is not there, it can do nothing else
// in time either, however well it is made.
type pulse struct {
	mu    sync.Mutex
	asked time.Time // the question that is not answered yet
	slow  []stretch // those that took longer than is prompt
}

// stretch is from one time to another.
type stretch struct{ from, to time.Time }

// newPulse asks at a URL until the context ends, and the test.
func newPulse(ctx context.Context, t *testing.T, client *http.Client, url string) *pulse {
	p := new(pulse)
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	t.Cleanup(func() { stop(); <-ended })
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			p.ask(ctx, client, url)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return p
}

// ask asks once, until there is an answer: that there is nothing of that name.
func (p *pulse) ask(ctx context.Context, client *http.Client, url string) {
	asked := time.Now()
	p.mu.Lock()
	p.asked = asked
	p.mu.Unlock()
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/pulse", nil)
		if err != nil {
			return
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			break
		}
		time.Sleep(time.Millisecond)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked = (time.Time{}); time.Since(asked) > prompt {
		p.slow = append(p.slow, stretch{asked, time.Now()})
	}
}

// lost is for how long, between two times, the proxy was not prompt.
func (p *pulse) lost(from, to time.Time) (lost time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	slow := p.slow
	if now := time.Now(); !p.asked.IsZero() && now.Sub(p.asked) > prompt {
		slow = append(slow[:len(slow):len(slow)], stretch{p.asked, now})
	}
	for _, s := range slow {
		if s.from.Before(from) {
			s.from = from
		}
		if s.to.After(to) {
			s.to = to
		}
		lost += max(0, s.to.Sub(s.from))
	}
	return lost
}

// utilisation is what part of a budget of so many in each cycle was used. What a proxy that is not prompt loses is not counted: as one
// arrives, and is noted; and as its cycle is over, and the next one may go.
func utilisation(t *testing.T, arrivals []simulator.Request, requests, cycles int, cycle time.Duration, pulses ...*pulse) float64 {
	t.Helper()
	var took, excused time.Duration
	for n := range cycles {
		first, next := arrivals[n*requests].Time, arrivals[(n+1)*requests].Time
		over := next.Sub(first) - cycle
		lost := time.Duration(0)
		for _, p := range pulses {
			lost = max(lost, p.lost(first, first.Add(over))+p.lost(next.Add(-over), next))
		}
		took += next.Sub(first)
		excused += max(0, min(over, lost))
	}
	part := float64(cycles) * float64(cycle) / float64(took-excused)
	t.Logf("%d requests took %s, the least possible is %s and %s that the machine was too busy: utilisation %.4f",
		cycles*requests, took, time.Duration(cycles)*cycle, excused, part)
	return part
}
