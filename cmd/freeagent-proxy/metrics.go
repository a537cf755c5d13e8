package main

import (
	"maps"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

// What Prometheus is told costs requests next to nothing: how things stand is looked up when it asks (gauges), and what
// happened is counted by the parts' events and when a request's answer has ended (counts). docs/metrics.md has every
// metric. The values of labels are bounded by the configuration, never by what programs send; names says how.

// metrics begins the name of every metric of ours.
const metrics = "freeagent_proxy"

// metricsHandler answers Prometheus. The registry is our own: nothing that a library registers by itself gets out.
func (s *server) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gauges{s},
	)
	registry.MustRegister(s.reloads)
	registry.MustRegister(s.log.counts.collectors()...)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: s.httpLog})
}

// names are what the configuration names, and so what labels may say. Of a name that it does not have, which only a
// client or an account can be that was taken out of it while its requests ran, they say what they say of nobody.
type names struct {
	clients  map[string]bool
	accounts map[string]bool
	budgets  map[string]bool
}

const (
	noClient  = limiter.Unknown // whose request was refused before it was known, or answered without asking; no client may be named so
	noAccount = "-"             // nor an account
	other     = "other"
)

func namesOf(cfg Config) *names {
	n := &names{
		clients:  map[string]bool{},
		accounts: map[string]bool{},
		budgets:  map[string]bool{proxy.EgressBudget(nil, 0).Key: true},
	}
	for _, client := range clientNames(cfg) {
		n.clients[client] = true
	}
	for account := range cfg.Accounts {
		n.accounts[account] = true
		n.budgets[proxy.APIBudget(account, nil).Key] = true
		n.budgets[refreshBudget(account, nil).Key] = true
	}
	return n
}

// without is what n names and the other does not.
func (n *names) without(other *names) *names {
	rest := func(ours, theirs map[string]bool) map[string]bool {
		ours = maps.Clone(ours)
		maps.DeleteFunc(ours, func(name string, _ bool) bool { return theirs[name] })
		return ours
	}
	return &names{rest(n.clients, other.clients), rest(n.accounts, other.accounts), rest(n.budgets, other.budgets)}
}

func (n *names) client(name string) string {
	if n.clients[name] || name == proxy.Operator {
		return name
	}
	return noClient
}

func (n *names) account(name string) string {
	if n.accounts[name] {
		return name
	}
	return noAccount
}

// budget is the label of a budget: its key. A practice has a budget for each of its clients' companies, which go together.
func (n *names) budget(key string) string {
	if account, ok := proxy.BudgetAccount(key); ok {
		key = proxy.APIBudget(account, nil).Key
	}
	if n.budgets[key] {
		return key
	}
	return other
}

func counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: metrics, Name: name, Help: help}, labels)
}

func histogramVec(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: metrics, Name: name, Help: help, Buckets: buckets}, labels)
}

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(metrics, "", name), help, labels, nil)
}
