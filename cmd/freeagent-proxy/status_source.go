package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	"freeagent-proxy/internal/admin"
	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

// status says how the proxy stands, for the operator. Nothing of it waits for network or disk.
func (s *server) status() admin.Status {
	now := admin.Status{
		Version: version,
		Now:     time.Now(),
		Reason:  s.notReady(),
		Store:   admin.Store{Kind: s.config().Store.kind(), State: s.limiterState()},
	}
	now.Ready = now.Reason == ""
	now.Store.Up = now.Store.State == local || now.Store.State == "linked" || now.Store.State == "returning"
	for _, name := range slices.Sorted(maps.Keys(s.config().Accounts)) {
		now.Accounts = append(now.Accounts, s.accountStatus(name))
	}
	return now
}

func (s *server) accountStatus(name string) admin.Account {
	stands := s.tokens.Status(name)
	fallback, _ := s.config().DefaultAccount()
	a := admin.Account{
		Name:             name,
		Default:          name == fallback,
		App:              s.config().Accounts[name].App,
		State:            string(stands.State),
		Reason:           stands.Reason,
		Unsaved:          stands.Unsaved,
		AccessExpiresAt:  known(stands.AccessExpiresAt),
		RefreshExpiresAt: known(stands.RefreshExpiresAt),
		NextTry:          known(stands.NextTry),
		Budget:           s.budgetStatus(proxy.APIBudget(name, windows(s.config().Limits.API))),
	}
	if last := stands.LastRefresh; !last.At.IsZero() {
		a.LastRefresh = &admin.LastRefresh{At: last.At, Outcome: string(last.Outcome)}
	}
	return a
}

func (s *server) budgetStatus(b limiter.Budget) admin.Budget {
	limits := s.limiter
	usage, used := limits.AppendUsage(nil, b), limits.UsedBy(b)
	stands := admin.Budget{PausedUntil: known(limits.PausedUntil(b.Key)), Queue: limits.Waiting(b.Key)}
	for i, w := range b.Windows {
		stands.Windows = append(stands.Windows, admin.Window{
			Requests: w.Requests, Per: period(w.Per), Remaining: usage[i].Remaining, UsedBy: used[i],
		})
	}
	return stands
}

// known is nil for the zero time.
func known(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

// period writes a duration as the configuration does: 1m, not 1m0s.
func period(d time.Duration) string {
	text := d.String()
	if rest, ok := strings.CutSuffix(text, "m0s"); ok {
		text = rest + "m"
	}
	if rest, ok := strings.CutSuffix(text, "h0m"); ok {
		text = rest + "h"
	}
	return text
}
