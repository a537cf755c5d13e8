package simulator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault is something that goes wrong on request; POST /_sim/faults.
type Fault struct {
	ID    int   `json:"id"` // given by the simulator
	Match Match `json:"match"`
	// Kind is one of the Fault… constants.
	Kind string `json:"kind"`
	// After lets FreeAgent act first; else the fault strikes before it does.
	After bool `json:"after"`
	// Status is what FaultStatus answers with. Default 503.
	Status int `json:"status,omitempty"`
	// Delay is how long FaultLatency waits, FaultStall before it hangs up, and FaultIdleClose after its answer.
	// Default: for latency 1s, for a stall until the client has gone, for an idle close 50ms.
	Delay Duration `json:"delay,omitempty"`
	// RetryAfter is what FaultRateLimited says, in seconds. Default 60.
	RetryAfter int `json:"retry_after,omitempty"`
	// Hits counts the requests that it befell.
	Hits int `json:"hits"`
}

// Match selects requests below /v2 that the limits let through. All that is given must hold.
type Match struct {
	Method string `json:"method,omitempty"`
	// PathPrefix is compared with the path after slashes are folded.
	PathPrefix string `json:"path_prefix,omitempty"`
	// Nth is the one request that is meant, counted from 1 among those that match so far.
	Nth int `json:"nth,omitempty"`
	// Probability is between 0 and 1. Default: always.
	Probability float64 `json:"probability,omitempty"`
	// Times is how often at most. Default: until it is deleted.
	Times int `json:"times,omitempty"`
}

// The kinds of faults. Those of the second group change a token endpoint's
// success and match nothing else.
const (
	FaultLatency      = "latency"      // wait, then go on
	FaultStatus       = "status"       // answer Status: 500 and above with nginx's HTML
	FaultUnauthorized = "unauthorized" // answer 401
	FaultRateLimited  = "rate_limited" // answer 429
	FaultEmpty        = "empty"        // answer 200 without a body
	FaultHTML         = "html"         // answer 200 with an HTML page
	FaultDrop         = "drop"         // close the connection without an answer
	FaultReset        = "reset"        // act, then reset the connection in the middle of the answer
	FaultStall        = "stall"        // never answer
	FaultGoAway       = "goaway"       // HTTP/2: GOAWAY that tells whether it acted, and no answer; else as FaultDrop
	FaultIdleClose    = "idle_close"   // answer, then reset the kept-alive connection without notice

	FaultNoRefreshToken  = "no_refresh_token"  // no refresh_token in the answer
	FaultNoAccessToken   = "no_access_token"   // 200 without an access_token
	FaultNoExpiry        = "no_expires_in"     // no expires_in
	FaultExpiryAsString  = "expires_in_string" // "expires_in": "3600"
	FaultExpiryMalformed = "expires_in_junk"   // "expires_in": "soon"
)

func faultKinds() []string {
	return append([]string{
		FaultLatency, FaultStatus, FaultUnauthorized, FaultRateLimited, FaultEmpty, FaultHTML,
		FaultDrop, FaultReset, FaultStall, FaultGoAway, FaultIdleClose,
	}, tokenFaultKinds()...)
}

func tokenFaultKinds() []string {
	return []string{FaultNoRefreshToken, FaultNoAccessToken, FaultNoExpiry, FaultExpiryAsString, FaultExpiryMalformed}
}

// normalized fills defaults, or says what is wrong.
func (f Fault) normalized() (Fault, error) {
	if !slices.Contains(faultKinds(), f.Kind) {
		return f, fmt.Errorf("kind: %q is not one of %s", f.Kind, strings.Join(faultKinds(), ", "))
	}
	if f.Match.Probability < 0 || f.Match.Probability > 1 {
		return f, fmt.Errorf("match.probability: %v is not between 0 and 1", f.Match.Probability)
	}
	if f.Match.Nth < 0 || f.Match.Times < 0 || f.RetryAfter < 0 {
		return f, fmt.Errorf("match.nth, match.times, retry_after: must not be negative")
	}
	switch {
	case f.Kind == FaultStatus && f.Status == 0:
		f.Status = 503
	case f.Kind == FaultStatus && (f.Status < 200 || f.Status > 599):
		return f, fmt.Errorf("status: %d is not between 200 and 599", f.Status)
	case f.Kind == FaultLatency && f.Delay == 0:
		f.Delay = Duration(time.Second)
	case f.Kind == FaultRateLimited && f.RetryAfter == 0:
		f.RetryAfter = 60
	case f.Kind == FaultReset || f.Kind == FaultIdleClose || slices.Contains(tokenFaultKinds(), f.Kind):
		f.After = true
	}
	if f.Kind == FaultIdleClose && f.Delay == 0 {
		f.Delay = Duration(50 * time.Millisecond)
	}
	return f, nil
}

// faults is the list of what is to go wrong.
type faults struct {
	mu      sync.Mutex
	next    int
	list    []*armed
	applied int64
}

// armed is a fault and how often it could have struck.
type armed struct {
	Fault
	matched int
}

// plan is what happens to one request: how long it waits, and what strikes it.
type plan struct {
	before, after time.Duration
	strike        *Fault // nil: nothing
}

func (p plan) strikes(after bool) bool { return p.strike != nil && p.strike.After == after }

func (p plan) kind() string {
	switch {
	case p.strike != nil:
		return p.strike.Kind
	case p.before+p.after > 0:
		return FaultLatency
	}
	return ""
}

func (f *faults) add(fault Fault) (Fault, error) {
	fault, err := fault.normalized()
	if err != nil {
		return Fault{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	fault.ID, fault.Hits = f.next, 0
	f.list = append(f.list, &armed{Fault: fault})
	return fault, nil
}

// plan asks every fault. Latencies add up; of the others the first that matches strikes.
func (f *faults) plan(method, path string) plan {
	f.mu.Lock()
	defer f.mu.Unlock()
	var p plan
	for _, a := range f.list {
		if a.Kind != FaultLatency && p.strike != nil || !a.matches(method, path) {
			continue
		}
		a.Hits++
		switch {
		case a.Kind != FaultLatency:
			struck := a.Fault
			p.strike = &struck
		case a.After:
			p.after += time.Duration(a.Delay)
		default:
			p.before += time.Duration(a.Delay)
		}
	}
	if p.kind() != "" {
		f.applied++
	}
	return p
}

func (a *armed) matches(method, path string) bool {
	m := a.Match
	if m.Method != "" && !strings.EqualFold(m.Method, method) || !strings.HasPrefix(path, m.PathPrefix) {
		return false
	}
	if slices.Contains(tokenFaultKinds(), a.Kind) && path != tokenPath {
		return false
	}
	a.matched++
	if m.Nth > 0 && a.matched != m.Nth || m.Times > 0 && a.Hits >= m.Times {
		return false
	}
	return m.Probability == 0 || rand.Float64() < m.Probability
}

func (f *faults) snapshot() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := []Fault{}
	for _, a := range f.list {
		list = append(list, a.Fault)
	}
	return list
}

// clear removes one fault, or all with id 0; false if there is none of that id.
func (f *faults) clear(id int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.list)
	f.list = slices.DeleteFunc(f.list, func(a *armed) bool { return id == 0 || a.ID == id })
	return id == 0 || len(f.list) < before
}

// count returns how many requests a fault befell; reset begins anew.
func (f *faults) count(reset bool) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.applied
	if reset {
		f.applied = 0
	}
	return n
}
