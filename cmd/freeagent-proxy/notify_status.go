package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
	"freeagent-proxy/tokens"
)

// standing says in words how we stand. It takes the locks that requests need, so that it does not return if they would not either.
func (s *server) standing() string {
	cfg := s.config()
	var usage [4]limiter.Usage
	s.limiter.AppendUsage(usage[:0], proxy.EgressBudget(windows(cfg.Limits.Egress), 0))
	ready := 0
	var troubles []string
	for _, name := range slices.Sorted(maps.Keys(cfg.Accounts)) {
		switch s.tokens.Status(name).State {
		case tokens.StateReauthorise, tokens.StateUnauthorised:
			troubles = append(troubles, fmt.Sprintf("account %s needs authorisation", name))
		case tokens.StateTrouble:
			troubles = append(troubles, fmt.Sprintf("account %s gets no token for now", name))
		default:
			ready++
		}
	}
	doing := "serving"
	if s.ready.closing.Load() {
		doing = "shutting down"
	}
	if s.reloads.refused.Load() {
		doing += " by the former configuration, since the new one cannot be used"
	}
	if len(troubles) == 0 {
		return doing + ", " + plural(ready, "account") + " ready"
	}
	const most = 3 // systemctl shows one line
	if n := len(troubles); n > most {
		troubles = append(troubles[:most], fmt.Sprintf("and %d more", n-most))
	}
	return fmt.Sprintf("%s, %d of %s ready; %s", doing, ready, plural(len(cfg.Accounts), "account"), strings.Join(troubles, ", "))
}
