package main

import (
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
	"freeagent-proxy/tokens"
)

// What Prometheus is told costs requests nothing: how things stand is looked up when it asks (gauges), and what happened is
// counted by the parts' events (counts). docs/metrics.md has every metric. The values of labels are bounded by the
// configuration, never by what programs send.

// metrics begins the name of every metric of ours.
const metrics = "freeagent_proxy"

// counts is what happened since the process began.
type counts struct {
	labels    atomic.Pointer[labels] // that there may be
	refreshes *prometheus.CounterVec
	pauses    *prometheus.CounterVec
	shrunk    *prometheus.CounterVec
	outages   prometheus.Counter
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
		outages: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: metrics,
			Name:      "redis_outages_total",
			Help:      "How often this process lost Redis, or found it without what it had counted there.",
		}),
	}
	c.follow(cfg)
	return c
}

// follow lets the accounts be counted that are configured now. What was counted of others stays.
func (c *counts) follow(cfg Config) {
	for account := range cfg.Accounts {
		for _, outcome := range refreshOutcomes {
			c.refreshes.WithLabelValues(account, string(outcome))
		}
	}
	labels := newLabels(cfg)
	for budget := range labels.budgets {
		c.pauses.WithLabelValues(budget)
		c.shrunk.WithLabelValues(budget)
	}
	c.labels.Store(labels)
}

func counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: metrics, Name: name, Help: help}, labels)
}

// refreshOutcomes are the events that end a refresh.
var refreshOutcomes = map[tokens.EventKind]tokens.Outcome{
	tokens.EventRefreshed: tokens.OutcomeOK,
	tokens.EventRefused:   tokens.OutcomeRefused,
	tokens.EventTrouble:   tokens.OutcomeTrouble,
}

// token counts what happened to an account.
func (c *counts) token(e tokens.Event) {
	outcome, ended := refreshOutcomes[e.Kind]
	if _, configured := c.labels.Load().accounts[e.Account]; ended && configured {
		c.refreshes.WithLabelValues(e.Account, string(outcome)).Inc()
	}
}

// limit counts what happened to a budget, or to where it is counted.
func (c *counts) limit(e limiter.Event) {
	switch e.Kind {
	case limiter.BudgetPaused:
		c.pauses.WithLabelValues(c.label(e.Key)).Inc()
	case limiter.BudgetShrunk:
		c.shrunk.WithLabelValues(c.label(e.Key)).Inc()
	case limiter.RedisLost:
		c.outages.Inc()
	}
}

// label is a budget's key, if it is one that the configuration makes.
func (c *counts) label(budget string) string {
	if account, ok := proxy.BudgetAccount(budget); ok { // a practice has one for each of its clients
		budget = proxy.APIBudget(account, nil).Key
	}
	if c.labels.Load().budgets[budget] {
		return budget
	}
	return "other"
}

// metricsHandler answers Prometheus. The registry is our own: nothing that a library registers by itself gets out.
func (s *server) metricsHandler() http.Handler {
	counted := s.log.counts
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		counted.refreshes, counted.pauses, counted.shrunk, s.reloads,
		gauges{
			accounts: func() []string { return slices.Sorted(maps.Keys(s.config().Accounts)) },
			status:   s.tokens.Status,
			states:   s.limiterStates(),
			state:    s.limiterState,
		},
	)
	if s.config().Store.Redis.given() {
		registry.MustRegister(counted.outages)
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: s.httpLog})
}

// local is the state of a limiter that counts in this process because there is no other. The others are those of
// limiter.Redis.State.
const local = "local"

func (s *server) limiterStates() []string {
	if s.config().Store.Redis.given() {
		return []string{"linked", "returning", "alone", "unseen"}
	}
	return []string{local}
}

func (s *server) limiterState() string {
	if shared, ok := s.limiter.(*limiter.Redis); ok {
		return shared.State()
	}
	return local
}

// gauges is how things stand, looked up when Prometheus asks. Nothing that it calls waits for network or disk.
type gauges struct {
	accounts func() []string
	status   func(account string) tokens.Status
	states   []string // that the limiter may be in
	state    func() string
}

var (
	buildInfo = gauge("build_info", "Always 1; the labels say what is running.", "version", "commit")
	storeUp   = gauge("store_up",
		"1 if the store answers. Redis does when the limiter can count in it; with the file store it is always 1, since the process holds it.")
	limiterState = gauge("limiter_state",
		"1 for the state that the limiter is in, 0 for the others: linked (all is counted in Redis), returning (Redis is back, this replica keeps to its share until the others are, too), alone (Redis is away), unseen (Redis was never reached), local (the file store).",
		"state")
	unsaved = gauge("grant_unsaved",
		"1 while the account's newest tokens are in memory only, because the store has not taken them.", "account")
	reauthorise = gauge("reauthorisation_needed",
		"1 if a person must authorise the account: FreeAgent refuses its grant, or there is none.", "account")
	accessExpires = gauge("access_token_expires_timestamp_seconds",
		"When the access token ends, in seconds since 1970. None without an access token.", "account")
	refreshExpires = gauge("refresh_token_expires_timestamp_seconds",
		"When the refresh token ends if it is not used before, in seconds since 1970. None if FreeAgent has not said.", "account")
)

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(metrics, "", name), help, labels, nil)
}

// Describe is that of prometheus.Collector.
func (gauges) Describe(all chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{buildInfo, storeUp, limiterState, unsaved, reauthorise, accessExpires, refreshExpires} {
		all <- desc
	}
}

// Collect is that of prometheus.Collector.
func (g gauges) Collect(all chan<- prometheus.Metric) {
	set := func(desc *prometheus.Desc, value float64, labels ...string) {
		all <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	set(buildInfo, 1, version, commit)
	now := g.state()
	set(storeUp, truth(now == local || now == "linked" || now == "returning"))
	for _, state := range g.states {
		set(limiterState, truth(state == now), state)
	}
	for _, account := range g.accounts() {
		status := g.status(account)
		set(unsaved, truth(status.Unsaved), account)
		set(reauthorise, truth(status.State == tokens.StateReauthorise || status.State == tokens.StateUnauthorised), account)
		if at := status.AccessExpiresAt; !at.IsZero() {
			set(accessExpires, seconds(at), account)
		}
		if at := status.RefreshExpiresAt; !at.IsZero() {
			set(refreshExpires, seconds(at), account)
		}
	}
}

func seconds(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
