package proxy_test

import (
	"fmt"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/proxy"
)

// A client that sends its create again after every failure, under one key, has it acted on once at most; and once exactly
// unless it is told that nobody knows, or FreeAgent refused it.
func TestKeyedFaults(t *testing.T) {
	t.Parallel()
	const unsure = "unsure" // acted on or not, and the client is told so
	for _, c := range []struct {
		kind   string
		after  bool
		status int
		want   string // else what the client gets at last
		acted  int64
	}{
		{simulator.FaultDrop, false, 0, unsure, 0},
		{simulator.FaultDrop, true, 0, unsure, 1},
		{simulator.FaultReset, true, 0, unsure, 1}, // within the answer
		{simulator.FaultStall, false, 0, unsure, 0},
		{simulator.FaultStall, true, 0, unsure, 1},
		{simulator.FaultStatus, false, 500, unsure, 0},
		{simulator.FaultStatus, true, 500, unsure, 1},
		{simulator.FaultStatus, true, 502, unsure, 1},
		{simulator.FaultStatus, false, 503, unsure, 0},
		{simulator.FaultStatus, true, 504, unsure, 1},
		{simulator.FaultUnauthorized, false, 0, "201", 1},
		{simulator.FaultRateLimited, false, 0, "201", 1},
		{simulator.FaultLatency, false, 0, "201", 1},
		{simulator.FaultLatency, true, 0, "201", 1},
		{simulator.FaultEmpty, true, 0, "200", 1},
		{simulator.FaultHTML, true, 0, "200", 1},
		{simulator.FaultStatus, false, 422, "422", 0},
	} {
		t.Run(fmt.Sprintf("%s %d after %v", c.kind, c.status, c.after), func(t *testing.T) {
			t.Parallel()
			var limits []func(*proxy.Config)
			if c.kind == simulator.FaultStall {
				limits = append(limits, timeout(silence))
			}
			r, sim := withSimulator(t, simulator.Config{}, limits...)
			if _, err := sim.Fault(simulator.Fault{
				Kind: c.kind, After: c.after, Status: c.status, RetryAfter: 1, Delay: faultDelay(c.kind),
				Match: simulator.Match{Method: "POST", PathPrefix: "/v2/contacts", Times: 1},
			}); err != nil {
				t.Fatal(err)
			}
			body := `{"contact":{"organisation_name":"x"}}`
			var got *answer
			for range 5 {
				got = r.do("POST", "/v2/contacts", body, key, "Content-Type: application/json")
			}
			if c.want == unsure {
				got.refused(t, 409, "it will not be sent again")
			} else {
				equal(t, "status", fmt.Sprint(got.status), c.want)
			}
			stats := sim.Stats().Writes
			equal(t, "acted", stats.Acted, c.acted)
			equal(t, "duplicates", stats.Duplicates+stats.Repeated, 0)
		})
	}
}

// faultDelay keeps a latency short, and lets a stall last.
func faultDelay(kind string) simulator.Duration {
	if kind == simulator.FaultLatency {
		return simulator.Duration(100 * time.Millisecond)
	}
	return 0
}
