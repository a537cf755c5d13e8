package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

// What FreeAgent allows here, and what a guard of 1s, the default, leaves of it: 60 requests in each cycle of 11s. The guard is for
// what delays a request between our counting it and FreeAgent's.
const (
	shortWindow, shortRequests = 2 * time.Second, 20
	longWindow, longRequests   = 10 * time.Second, 60
	cycle                      = longWindow + time.Second
	cycles                     = 3
	leastUtilisation           = 0.97
)

const tightLimits = `limits:
  api: [{requests: 20, per: 2s}, {requests: 60, per: 10s}]
  guard: 1s
  max_wait: 1m
`

// saturation is many clients that always want more than FreeAgent allows.
type saturation struct {
	*world
	client *http.Client
	proxy  *process
	pulse  *pulse
	leaves bool // it shuts down in the middle

	mu     sync.Mutex
	failed map[string]int // answers other than 200
	told   int            // 503: come back later
}

func TestSaturation(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		enforcement string
		interrupt   func(*saturation) // in the middle; nil: nothing
		check       func(*saturation)
	}{
		"sliding":                          {simulator.EnforceSliding, nil, (*saturation).checkAll},
		"aligned":                          {simulator.EnforceAligned, nil, (*saturation).checkAll},
		"graceful restart":                 {simulator.EnforceSliding, (*saturation).restart, (*saturation).checkAll},
		"SIGKILL a second after a request": {simulator.EnforceSliding, (*saturation).killIdle, (*saturation).checkAll},
		"SIGKILL amid requests":            {simulator.EnforceOff, (*saturation).killBusy, (*saturation).checkLost},
	}
	var running sync.WaitGroup // not t.Parallel, which runs only as many at a time as there are processors
	for name, test := range tests {
		running.Go(func() {
			t.Run(name, func(t *testing.T) {
				s := newSaturation(t, test.enforcement)
				stop := s.load()
				defer stop()
				s.awaitArrivals(longRequests + 1) // the second cycle has begun
				if test.interrupt != nil {
					test.interrupt(s)
				}
				s.awaitArrivals(cycles*longRequests + 1)
				stop()
				test.check(s)
			})
		})
	}
	running.Wait()
}

func newSaturation(t *testing.T, enforcement string) *saturation {
	w := newSimulated(t, simulator.Config{
		Enforcement: enforcement,
		UserLimits: []simulator.Window{
			{Requests: shortRequests, Per: simulator.Duration(shortWindow)},
			{Requests: longRequests, Per: simulator.Duration(longWindow)},
		},
	}, tightLimits)
	w.authorise(w.sim.Authorize("owner"))
	s := &saturation{world: w, client: w.client(true), failed: map[string]int{}}
	s.proxy, _ = s.serve()
	s.pulse = newPulse(t.Context(), t, s.client, "http://localhost")
	return s
}

// load lets clients ask until stop is called.
func (s *saturation) load() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	for range 50 {
		asking.Go(func() {
			for ctx.Err() == nil {
				if !s.ask(ctx) {
					time.Sleep(10 * time.Millisecond) // nobody may be there
				}
			}
		})
	}
	return func() {
		cancel()
		asking.Wait()
	}
}

func (s *saturation) ask(ctx context.Context) (answered bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v2/company", nil)
	if err != nil {
		s.t.Error(err)
		return false
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		s.note(resp, body)
		return false
	}
	return err == nil
}

func (s *saturation) note(resp *http.Response, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "" {
		s.told++
	} else {
		s.failed[fmt.Sprintf("%d %s", resp.StatusCode, body)]++
	}
}

func (s *saturation) awaitArrivals(n int64) {
	s.t.Helper()
	arrived := func() int64 {
		users := s.sim.Stats().Users
		if len(users) == 0 {
			return 0
		}
		return users[0].Requests
	}
	for deadline := time.Now().Add(cycles*cycle + patience); arrived() < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d requests reached FreeAgent, want %d", arrived(), n)
		}
	}
}

// restart gives the store to another process, while requests wait.
func (s *saturation) restart() {
	s.leaves = true
	if code, err := s.proxy.stop(syscall.SIGTERM); err != nil || code != exitOK {
		s.t.Errorf("SIGTERM: exit code %d, %v; stderr: %s", code, err, &s.proxy.stderr)
	}
	s.proxy, _ = s.serve()
}

// killIdle kills the proxy when its last request was sent more than a second ago, and the next may not be for another.
func (s *saturation) killIdle() {
	s.awaitArrivals(2 * longRequests)
	eventually(s.t, "nothing is sent, and what was is on the disk", func() bool {
		arrivals := s.arrivals()
		last, next := arrivals[len(arrivals)-1].Time, arrivals[len(arrivals)-longRequests].Time.Add(cycle)
		info, err := os.Stat(filepath.Join(s.folder, "store", "limits"))
		return time.Since(last) > 1500*time.Millisecond && time.Until(next) > time.Second && err == nil && info.ModTime().After(last)
	})
	s.proxy.kill()
	s.proxy, _ = s.serve()
}

// killBusy kills the proxy while it sends.
func (s *saturation) killBusy() {
	s.proxy.kill()
	s.proxy, _ = s.serve()
}

// checkAll expects that no limit was broken, that nobody was refused, and that next to nothing was wasted.
func (s *saturation) checkAll() {
	s.checkLimits(0)
	if len(s.failed) > 0 || s.told > 0 && !s.leaves {
		s.t.Errorf("clients got %v, and %d times 503; want 200 for all", s.failed, s.told)
	}
	if n := s.sim.Stats().RateLimited; n != 0 {
		s.t.Errorf("FreeAgent answered 429 %d times", n)
	}
	if used := utilisation(s.t, s.arrivals(), longRequests, cycles, cycle, s.pulse); used < leastUtilisation {
		s.t.Errorf("utilisation %.4f, want at least %.2f", used, leastUtilisation)
	}
}

// checkLimits compares the most that any window has held with its limit and what it may be over.
func (s *saturation) checkLimits(over int) {
	for _, w := range s.sim.Stats().Users[0].Windows {
		if w.MaxSliding > w.Requests+over || w.MaxAligned > w.Requests+over {
			s.t.Errorf("up to %d requests in %s, %d on the clock; want at most %d", w.MaxSliding, time.Duration(w.Per), w.MaxAligned, w.Requests+over)
		}
	}
}

// checkLost expects that the killed process's last second was forgotten at most.
func (s *saturation) checkLost() {
	// At most one window's requests fit into the second before.
	s.checkLimits(shortRequests)
}
