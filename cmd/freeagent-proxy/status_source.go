package main

import (
	"slices"
	"strings"
	"time"

	"freeagent-proxy/internal/admin"
	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

// status says how the proxy stands, for the operator. Nothing of it waits for network or disk.
// status says how the proxy stands. For a person it is worth a request to FreeAgent now and then; what a program watches changes nothing.
func (s *server) status(person bool) admin.Status {
	now := admin.Status{
		Version:   version,
		StartedAt: s.started.UTC().Truncate(time.Millisecond),
		Now:       time.Now().UTC().Truncate(time.Millisecond),
		Reason:    s.notReady(),
		Store:     s.storeStatus(),
		Incidents: s.incidents.list(),
	}
	now.Ready = now.Reason == ""
	cfg := s.config()
	egress := s.budgetStatus(proxy.EgressBudget(windows(cfg.Limits.Egress), 0))
	now.Egress = &egress
	for _, account := range proxyAccounts(cfg) {
		now.Accounts = append(now.Accounts, s.accountStatus(account, cfg.Accounts[account.Name].App, person && ample(egress)))
	}
	slices.SortFunc(now.Accounts, func(a, b admin.Account) int { return strings.Compare(a.Name, b.Name) })
	return now
}

func (s *server) storeStatus() admin.Store {
	store := admin.Store{Kind: s.config().Store.kind(), State: s.limiterState()}
	store.Up = store.State == "linked" || store.State == "returning" || store.State == local && s.folderWorks()
	if shared, ok := s.limiter.(*limiter.Redis); ok {
		store.Replicas, store.Silent = shared.Fleet()
	}
	return store
}

// folderWorks reports whether the folder took and gave, when it was last asked to, every account's grant.
func (s *server) folderWorks() bool {
	for name := range s.config().Accounts {
		if s.tokens.Status(name).StoreFails {
			return false
		}
	}
	return true
}

// accountStatus says how one account stands. spare says that it is worth a request, which the address would not miss.
func (s *server) accountStatus(account proxy.Account, app string, spare bool) admin.Account {
	stands := s.tokens.Status(account.Name)
	a := admin.Account{
		Name:             account.Name,
		Default:          account.Default,
		App:              app,
		State:            string(stands.State),
		Reason:           stands.Reason,
		Unsaved:          stands.Unsaved,
		AccessObtainedAt: known(stands.AccessObtainedAt),
		AccessExpiresAt:  known(stands.AccessExpiresAt),
		RefreshExpiresAt: known(stands.RefreshExpiresAt),
		NextTry:          known(stands.NextTry),
		Budget:           s.budgetStatus(proxy.APIBudget(account.Name, account.API)),
	}
	if last := stands.LastRefresh; !last.At.IsZero() {
		a.LastRefresh = &admin.LastRefresh{At: *known(last.At), Outcome: string(last.Outcome)}
	}
	if account.Practice { // it has no company of its own
		a.Companies = s.companies(account)
	} else {
		a.Company = s.names.of(account.Name, spare && stands.Usable && ample(a.Budget))
	}
	return a
}

// maxCompanies is how many of a practice's clients are shown.
const maxCompanies = 50

// companies says how those of a practice's clients stand that are in use.
func (s *server) companies(account proxy.Account) []admin.Company {
	subdomainOf := func(key string) (string, bool) { return proxy.BudgetSubdomain(key, account.Name) }
	keys := s.limiter.InUse(maxCompanies, func(key string) bool {
		_, ok := subdomainOf(key)
		return ok
	})
	var all []admin.Company
	for _, key := range keys {
		subdomain, _ := subdomainOf(key)
		all = append(all, admin.Company{Subdomain: subdomain, Budget: s.budgetStatus(limiter.Budget{Key: key, Windows: account.API})})
	}
	return all
}

func (s *server) budgetStatus(b limiter.Budget) admin.Budget {
	stands := s.limiter.Statement(b)
	told := admin.Budget{PausedUntil: known(stands.PausedUntil), Queue: stands.Waiting}
	for _, w := range stands.Windows {
		told.Windows = append(told.Windows, admin.Window{
			Requests: w.Window.Requests, Per: period(w.Window.Per), Allowed: w.Allowed, Remaining: w.Remaining, UsedBy: w.UsedBy,
		})
	}
	return told
}

// known is nil for the zero time. A millisecond is as much as anybody wants to know.
func known(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	at = at.UTC().Truncate(time.Millisecond)
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
