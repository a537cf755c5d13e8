package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/proxy"
)

// counter is told what became of requests.
type counter struct {
	mu  sync.Mutex
	all []proxy.Served
}

func (c *counter) count(cfg *proxy.Config) {
	cfg.Served = func(s *proxy.Served) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.all = append(c.all, *s)
	}
}

// next is the n-th that it is told of, from 1.
func (c *counter) next(t *testing.T, n int) (s proxy.Served) {
	t.Helper()
	soon(t, "it is told", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.all) < n {
			return false
		}
		s = c.all[n-1]
		return true
	})
	return s
}

// Whoever counts is told why a request was sent again or refused, how long FreeAgent took, and which writes are in doubt.
func TestServedTally(t *testing.T) {
	t.Parallel()
	const late = 60 * time.Millisecond
	type fault = simulator.Fault
	once := simulator.Match{PathPrefix: "/v2/co", Times: 1}
	for _, c := range []struct {
		name, method, path string
		fault              fault
		want               proxy.Tally
	}{
		{name: "fine", method: "GET", path: "/v2/company"},
		{name: "renewed", method: "GET", path: "/v2/company", fault: fault{Match: once, Kind: simulator.FaultUnauthorized}, want: proxy.Tally{Replays: proxy.Replays{Rejected: 1}}},
		{name: "paused", method: "GET", path: "/v2/company", fault: fault{Match: once, Kind: simulator.FaultRateLimited, RetryAfter: 1}, want: proxy.Tally{Replays: proxy.Replays{Limited: 1}}},
		{name: "dropped", method: "GET", path: "/v2/company", fault: fault{Match: once, Kind: simulator.FaultDrop}, want: proxy.Tally{Replays: proxy.Replays{Connection: 1}}},
		{name: "gateway", method: "GET", path: "/v2/company", fault: fault{Match: once, Kind: simulator.FaultStatus}, want: proxy.Tally{Replays: proxy.Replays{Gateway: 1}}},
		{name: "dropped write", method: "POST", path: "/v2/contacts", fault: fault{Match: once, Kind: simulator.FaultDrop, After: true}, want: proxy.Tally{Error: "connection_terminated", Doubtful: true}},
		{name: "gateway's answer to a write", method: "POST", path: "/v2/contacts", fault: fault{Match: once, Kind: simulator.FaultStatus, Status: 504}, want: proxy.Tally{Doubtful: true}},
		{name: "FreeAgent's error", method: "POST", path: "/v2/contacts", fault: fault{Match: once, Kind: simulator.FaultStatus, Status: 500}},
		{name: "not ours", method: "GET", path: "/other", want: proxy.Tally{Error: "http_request_denied"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var told counter
			r, sim := withSimulator(t, simulator.Config{}, told.count)
			faults := []fault{{Match: once, Kind: simulator.FaultLatency, Delay: simulator.Duration(late)}}
			if c.fault.Kind != "" {
				faults[0].Match.Times = 2
				faults = append(faults, c.fault)
			}
			for _, f := range faults {
				if _, err := sim.Fault(f); err != nil {
					t.Fatal(err)
				}
			}
			r.do(c.method, c.path, "{}", "Content-Type: application/json")
			got := told.next(t, 1)
			answered := c.want.Error == ""
			if took := got.Answered; answered && (took < late || took > got.Took) || !answered && took != 0 {
				t.Errorf("FreeAgent answered after %v of %v; it waits for %v", took, got.Took, late)
			}
			got.Answered = 0
			equal(t, "tally", got.Tally, c.want)
		})
	}
}

// An answer that was kept for its Idempotency-Key is none of FreeAgent's.
func TestServedKept(t *testing.T) {
	t.Parallel()
	var told counter
	r, _ := withUpstream(t, well, told.count)
	for n, kept := range []bool{false, true} {
		r.create()
		equal(t, "kept", told.next(t, n+1).Kept, kept)
	}
}

// What is under way can be looked at: requests, and the bodies that wait with them.
func TestInFlight(t *testing.T) {
	t.Parallel()
	g := &gate{open: make(chan struct{})}
	r, u := withUpstream(t, g.answer, maxWait(time.Minute))
	equal(t, "before", r.proxy.Bodies(), proxy.Bodies{})
	sizes := []int{1000, 2 << 20} // in memory, and in a file
	var sending sync.WaitGroup
	for n, size := range sizes {
		sending.Go(func() {
			resp, err := http.Post("http://"+r.addr+"/v2/attachments", "application/octet-stream", io.LimitReader(zeros{}, int64(size)))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		})
		soon(t, "it is upstream", func() bool { return len(u.all()) == n+1 })
	}
	soon(t, "one body is held and one has spilled", func() bool {
		return r.proxy.InFlight() == len(sizes) && r.proxy.Bodies() == proxy.Bodies{Memory: 1000, Spilled: 1}
	})
	for range sizes {
		g.open <- struct{}{}
	}
	sending.Wait()
	soon(t, "nothing is under way", func() bool {
		return r.proxy.InFlight() == 0 && r.proxy.Bodies() == proxy.Bodies{Spilled: 1}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	return strings.NewReader(strings.Repeat("0", len(p))).Read(p)
}
