package main

import (
	"time"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

var (
	queueLength    = gauge("queue_length", "Requests that wait at this process, by the budget that they wait for first.", "budget")
	permitsLeft    = gauge("permits_remaining", "Requests that could be sent now. Of a practice's companies, the one that has least left counts.", "budget", "window")
	permitsLimit   = gauge("permits_limit", "Requests that may be sent in any such time.", "budget", "window")
	budgetPaused   = gauge("budget_paused", "1 while FreeAgent's 429 keeps the budget closed.", "budget")
	budgetFraction = gauge("budget_fraction", "How much of the budget is ours: below 1 while another program uses the same FreeAgent user.", "budget")
)

// watched is a budget as it is told of: a practice's companies go together.
type watched struct {
	limiter.Budget
	keys    []string // of the budgets
	waiting int
	paused  bool
	whole   float64
}

// budgets tells how the budgets of each account, of its refreshes, and of our address stand.
func (g gauges) budgets(set sample) {
	all, by := g.watched()
	for _, standing := range g.limiter.Standings() {
		w := by[g.log.counts.names.Load().budget(standing.Key)]
		if w == nil || proxy.BudgetIsShare(standing.Key) {
			continue
		}
		if standing.Key != w.Key {
			w.keys = append(w.keys, standing.Key)
		}
		w.waiting += standing.Waiting
		w.paused = w.paused || standing.Paused > 0
		w.whole = min(w.whole, standing.Whole)
	}
	for _, w := range all {
		set(queueLength, float64(w.waiting), w.Key)
		set(budgetPaused, truth(w.paused), w.Key)
		set(budgetFraction, w.whole, w.Key)
		g.windows(set, w)
	}
}

// watched are the budgets that there are, as nobody had used them.
func (g gauges) watched() (all []*watched, by map[string]*watched) {
	by = map[string]*watched{}
	add := func(b limiter.Budget) {
		w := &watched{Budget: b, keys: []string{b.Key}, whole: 1}
		all, by[b.Key] = append(all, w), w
	}
	for _, account := range proxyAccounts(g.config()) {
		add(proxy.APIBudget(account.Name, account.API))
		add(refreshBudget(account.Name, windows(g.config().Limits.Refresh)))
	}
	add(proxy.EgressBudget(windows(g.config().Limits.Egress), 0))
	return all, by
}

// windows tells what is left of each window. Of two that are as long the tighter one counts.
func (g gauges) windows(set sample, w *watched) {
	left, limit := map[time.Duration]int{}, map[time.Duration]int{}
	for _, key := range w.keys {
		for _, u := range g.limiter.AppendUsage(nil, limiter.Budget{Key: key, Windows: w.Windows}) {
			per := u.Window.Per
			if least, seen := left[per]; !seen || u.Remaining < least {
				left[per] = u.Remaining
			}
			if least, seen := limit[per]; !seen || u.Window.Requests < least {
				limit[per] = u.Window.Requests
			}
		}
	}
	for per, n := range left {
		set(permitsLeft, float64(n), w.Key, period(per))
		set(permitsLimit, float64(limit[per]), w.Key, period(per))
	}
}
