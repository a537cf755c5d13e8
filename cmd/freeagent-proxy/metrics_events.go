package main

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
	"freeagent-proxy/tokens"
)

// counts is what happened since the process began.
type counts struct {
	names     atomic.Pointer[names]
	mu        sync.Mutex // held while they are replaced, or a label is taken from them to count an event
	requests  *requestCounts
	refreshes *prometheus.CounterVec
	pauses    *prometheus.CounterVec
	shrunk    *prometheus.CounterVec
	outages   prometheus.Counter // of Redis; nil: there is none
	degraded  degraded
}

// newCounts begins all that can be counted at 0, so that the first time it happens is an increase.
func newCounts(cfg Config) *counts {
	c := &counts{
		refreshes: counterVec("refreshes_total",
			"Refreshes that this process began, by how they ended: ok, refused (by FreeAgent), or trouble (no new token for now, be it for FreeAgent or the store).",
			"account", "outcome"),
		pauses: counterVec("budget_pauses_total",
			"Pauses of a budget that began because FreeAgent answered this process 429.", "budget"),
		shrunk: counterVec("budget_shrunk_total",
			"How often a budget was made smaller because FreeAgent's limit was reached before ours: another program uses the same FreeAgent user.", "budget"),
		degraded: newDegraded(cfg),
	}
	if cfg.Store.Redis.given() {
		c.outages = prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: metrics,
			Name:      "redis_outages_total",
			Help:      "How often this process lost Redis, or found it without what it had counted there.",
		})
	}
	c.requests = newRequestCounts(&c.names)
	c.follow(cfg)
	return c
}

// follow takes over what the configuration names. It may be called again when that changes: of what it does not name any more nothing is
// told.
func (c *counts) follow(cfg Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := namesOf(cfg)
	if former := c.names.Swap(n); former != nil {
		c.forget(former.without(n))
	}
	for account := range n.accounts {
		c.requests.begin(account)
		for _, outcome := range refreshOutcomes {
			c.refreshes.WithLabelValues(account, string(outcome))
		}
	}
	for budget := range n.budgets {
		if _, api := proxy.BudgetAccount(budget); api || budget == proxy.EgressBudget(nil, 0).Key { // those that FreeAgent's 429 pauses
			c.pauses.WithLabelValues(budget)
			c.shrunk.WithLabelValues(budget)
		}
	}
}

// forget ends the series of what is configured no more.
func (c *counts) forget(gone *names) {
	for account := range gone.accounts {
		c.refreshes.DeletePartialMatch(prometheus.Labels{"account": account})
	}
	for budget := range gone.budgets {
		c.pauses.DeletePartialMatch(prometheus.Labels{"budget": budget})
		c.shrunk.DeletePartialMatch(prometheus.Labels{"budget": budget})
	}
	c.requests.forget(gone)
}

func (c *counts) collectors() []prometheus.Collector {
	all := append(c.requests.collectors(), c.refreshes, c.pauses, c.shrunk, c.degraded.now, c.degraded.times)
	if c.outages != nil {
		all = append(all, c.outages)
	}
	return all
}

// request counts what became of a request.
func (c *counts) request(s *proxy.Served) { c.requests.count(s) }

// refreshOutcomes are the events that end a refresh.
var refreshOutcomes = map[tokens.EventKind]tokens.Outcome{
	tokens.EventRefreshed: tokens.OutcomeOK,
	tokens.EventRefused:   tokens.OutcomeRefused,
	tokens.EventTrouble:   tokens.OutcomeTrouble,
}

// token counts what happened to an account.
func (c *counts) token(e tokens.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	outcome, ended := refreshOutcomes[e.Kind]
	if ended && c.names.Load().accounts[e.Account] {
		c.refreshes.WithLabelValues(e.Account, string(outcome)).Inc()
	}
}

// limit counts what happened to a budget, or to where it is counted.
func (c *counts) limit(e limiter.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.Kind {
	case limiter.BudgetPaused:
		c.pauses.WithLabelValues(c.names.Load().budget(e.Key)).Inc()
	case limiter.BudgetShrunk:
		c.shrunk.WithLabelValues(c.names.Load().budget(e.Key)).Inc()
	case limiter.RedisLost:
		if c.outages != nil {
			c.outages.Inc()
		}
	case limiter.JournalFailed:
		c.degraded.set(partJournal, true)
	case limiter.JournalRecovered:
		c.degraded.set(partJournal, false)
	case limiter.ReplicaSilent:
		c.degraded.set(partReplicas, true)
	case limiter.ReplicasHeard:
		c.degraded.set(partReplicas, false)
	}
}

// The parts that can be degraded while requests are answered all the same.
const (
	partBackup        = "backup"         // of the grants in Redis
	partRedisReplicas = "redis_replicas" // fewer than wait_replicas have a write
	partOneAtATime    = "one_at_a_time"  // writes do so in each process only
	partIdempotency   = "idempotency"    // outcomes are not stored, and keyed writes refused
	partJournal       = "limits_journal" // what was used is not stored
	partReplicas      = "replicas"       // one may count alone
)

// degraded is which parts work less well than they should, now, and how often that began.
type degraded struct {
	now   *prometheus.GaugeVec
	times *prometheus.CounterVec
	mu    *sync.Mutex
	is    map[string]bool // by part, of those that there are
}

func newDegraded(cfg Config) degraded {
	d := degraded{
		now: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: metrics, Name: "degraded",
			Help: "1 while a part works less well than it should although requests are answered."}, []string{"part"}),
		times: counterVec("degradations_total", "How often a part began to work less well than it should.", "part"),
		mu:    new(sync.Mutex),
		is:    map[string]bool{},
	}
	parts := []string{partIdempotency, partJournal}
	if cfg.Store.Redis.given() {
		parts = []string{partIdempotency, partOneAtATime, partReplicas, partRedisReplicas, partBackup}
	}
	for _, part := range parts {
		d.is[part] = false
		d.now.WithLabelValues(part)
		d.times.WithLabelValues(part)
	}
	return d
}

// set notes that a part is degraded, or is not any more. It may be told what it knows.
func (d *degraded) set(part string, bad bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	was, known := d.is[part]
	if !known || was == bad {
		return
	}
	d.is[part] = bad
	d.now.WithLabelValues(part).Set(truth(bad))
	if bad {
		d.times.WithLabelValues(part).Inc()
	}
}

// storePart is the part that tokens.RedisConfig.Degraded speaks of.
func storePart(what string) string {
	if what == tokens.DegradedBackup {
		return partBackup
	}
	return partRedisReplicas
}
