package main

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
	"freeagent-proxy/tokens"
)

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

// accountStates are those that an account may be in.
var accountStates = []tokens.State{tokens.StateOK, tokens.StateTrouble, tokens.StateReauthorise, tokens.StateUnauthorised}

// gauges is how things stand, looked up when Prometheus asks. Nothing that it calls waits for the network or writes to disk.
type gauges struct{ *server }

var (
	buildInfo = gauge("build_info", "Always 1; the labels say what is running.", "version", "commit")
	ready     = gauge("ready", "1 if requests would be answered, as /readyz says.")
	storeUp   = gauge("store_up",
		"1 if the store answers. Redis does when the limiter can count in it; with the file store it is always 1, since the process holds it.")
	limiterState = gauge("limiter_state",
		"1 for the state that the limiter is in, 0 for the others: linked (all is counted in Redis), returning (Redis is back, this replica keeps to its share until the others are, too), alone (Redis is away), unseen (Redis was never reached), local (the file store).",
		"state")
	unsaved = gauge("grant_unsaved",
		"1 while the account's newest tokens are in memory only, because the store has not taken them.", "account")
	reauthorise = gauge("reauthorisation_needed",
		"1 if a person must authorise the account: FreeAgent refuses its grant, or there is none.", "account")
	accountState = gauge("account_state",
		"1 for the state that the account is in, 0 for the others: ok, trouble (no new token for now, or it is not stored), reauthorise (FreeAgent refuses the grant), unauthorised (there is none).",
		"account", "state")
	accessExpires = gauge("access_token_expires_timestamp_seconds",
		"When the access token ends, in seconds since 1970. None without an access token.", "account")
	refreshExpires = gauge("refresh_token_expires_timestamp_seconds",
		"When the refresh token ends if it is not used before, in seconds since 1970. None if FreeAgent has not said.", "account")
	certificateExpires = gauge("certificate_expires_timestamp_seconds",
		"When the certificate that programs are shown ends, in seconds since 1970. None without TLS.")
	inFlight       = gauge("requests_in_flight", "Requests that are being answered, those that wait included.")
	maxWait        = gauge("max_wait_seconds", "How long a request of the client may wait for its turn.", "client")
	bodyMemory     = gauge("body_memory_bytes", "Memory that is held for request bodies.")
	bodyMemoryMost = gauge("body_memory_limit_bytes", "The most memory that is held for request bodies; past it they go to temporary files.")
	bodySpills     = gauge("body_spills_total", "Request bodies that went to a temporary file.")
	connections    = gauge("connections", "Open connections of programs.", "listener")
	mostConnected  = gauge("connections_limit", "How many connections of programs may be open; more wait.", "listener")
)

// Describe is that of prometheus.Collector.
func (gauges) Describe(all chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		buildInfo, ready, storeUp, limiterState, unsaved, reauthorise, accountState, accessExpires, refreshExpires, certificateExpires,
		inFlight, maxWait, bodyMemory, bodyMemoryMost, bodySpills, connections, mostConnected,
		queueLength, permitsLeft, permitsLimit, budgetPaused, budgetFraction,
	} {
		all <- desc
	}
}

// sample is what is told of one value.
type sample func(desc *prometheus.Desc, value float64, labels ...string)

// Collect is that of prometheus.Collector.
func (g gauges) Collect(all chan<- prometheus.Metric) {
	set := func(desc *prometheus.Desc, value float64, labels ...string) {
		all <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	set(buildInfo, 1, version, builtFrom())
	set(ready, truth(g.notReady() == ""))
	now := g.limiterState()
	set(storeUp, truth(now == local || now == "linked" || now == "returning"))
	for _, state := range g.limiterStates() {
		set(limiterState, truth(state == now), state)
	}
	for _, account := range slices.Sorted(maps.Keys(g.config().Accounts)) {
		g.account(set, account)
	}
	if end := g.certificates.end(); !end.IsZero() {
		set(certificateExpires, seconds(end))
	}
	for _, name := range clientNames(g.config()) {
		set(maxWait, g.config().maxWait(name).Seconds(), name)
	}
	g.budgets(set)
	g.connected(set)
	set(inFlight, float64(g.proxy.InFlight()))
	bodies := g.proxy.Bodies()
	set(bodyMemory, float64(bodies.Memory))
	set(bodyMemoryMost, proxy.MaxBodyMemory)
	all <- prometheus.MustNewConstMetric(bodySpills, prometheus.CounterValue, float64(bodies.Spilled))
}

func (g gauges) account(set sample, name string) {
	status := g.tokens.Status(name)
	set(unsaved, truth(status.Unsaved), name)
	set(reauthorise, truth(status.State == tokens.StateReauthorise || status.State == tokens.StateUnauthorised), name)
	for _, state := range accountStates {
		set(accountState, truth(state == status.State), name, string(state))
	}
	if at := status.AccessExpiresAt; !at.IsZero() {
		set(accessExpires, seconds(at), name)
	}
	if at := status.RefreshExpiresAt; !at.IsZero() {
		set(refreshExpires, seconds(at), name)
	}
}

// connected tells of the listeners for programs. Sockets that share a name, as those without one do, go together.
func (g gauges) connected(set sample) {
	open, most := map[string]int64{}, map[string]int{}
	for _, gate := range g.gates {
		name := gate.Addr().String()
		open[name] += gate.connected.Load()
		most[name] += cap(gate.open)
	}
	for name, n := range open {
		set(connections, float64(n), name)
		set(mostConnected, float64(most[name]), name)
	}
}

// clientNames are whom requests may come from.
func clientNames(cfg Config) []string {
	if len(cfg.Clients) == 0 {
		return []string{proxy.Anonymous}
	}
	return slices.Sorted(maps.Keys(cfg.Clients))
}

// maxWait is how long a client's requests may wait.
func (c Config) maxWait(client string) time.Duration {
	if named, ok := c.Clients[client]; ok {
		return c.wait(named)
	}
	return c.Limits.MaxWait
}

func seconds(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
