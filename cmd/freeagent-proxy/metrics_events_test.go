package main

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
	"freeagent-proxy/tokens"
)

// What the parts tell of themselves is counted once, and is so for as long as it is.
func TestDegraded(t *testing.T) {
	t.Parallel()
	trouble := errors.New("trouble")
	event := func(kind limiter.EventKind) func(logbook) {
		return func(l logbook) { observeLimiter(l)(limiter.Event{Kind: kind}) }
	}
	store := func(what string, err error) func(logbook) { return func(l logbook) { observeStore(l)(what, err) } }
	for part, c := range map[string]struct {
		store      string
		begin, end func(logbook)
	}{
		partBackup:        {"redis", store(tokens.DegradedBackup, trouble), store(tokens.DegradedBackup, nil)},
		partRedisReplicas: {"redis", store(tokens.DegradedReplicas, trouble), store(tokens.DegradedReplicas, nil)},
		partOneAtATime:    {"redis", func(l logbook) { observeTurns(l)(trouble) }, func(l logbook) { observeTurns(l)(nil) }},
		partReplicas:      {"redis", event(limiter.ReplicaSilent), event(limiter.ReplicasHeard)},
		partIdempotency:   {"file", func(l logbook) { observeOutcomes(l)(trouble) }, func(l logbook) { observeOutcomes(l)(nil) }},
		partJournal:       {"file", event(limiter.JournalFailed), event(limiter.JournalRecovered)},
	} {
		var cfg Config
		if c.store == "redis" {
			cfg.Store.Redis.Addresses = []string{"redis:6379"}
		}
		l := logbook{zap.NewNop(), newCounts(cfg)}
		for step, do := range []func(logbook){c.end, c.begin, c.begin, c.end, c.begin} {
			do(l)
			text := scrapeOf(l.counts.collectors())
			want := []string{"0 0", "1 1", "1 1", "0 1", "1 2"}[step]
			now, times, _ := strings.Cut(want, " ")
			for _, line := range []string{
				fmt.Sprintf("freeagent_proxy_degraded{part=%q} %s\n", part, now),
				fmt.Sprintf("freeagent_proxy_degradations_total{part=%q} %s\n", part, times),
			} {
				if !strings.Contains(text, line) {
					t.Errorf("%s, step %d: want %s in %s", part, step, line, text)
				}
			}
		}
	}
	// Who has no Redis has none of its parts.
	if text := scrapeOf(counted().collectors()); strings.Contains(text, partBackup) || strings.Contains(text, "redis") {
		t.Errorf("parts of Redis without Redis: %s", text)
	}
}

// scrapeOf is what Prometheus would be told.
func scrapeOf(all []prometheus.Collector) string {
	registry := prometheus.NewRegistry()
	registry.MustRegister(all...)
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	return answer.Body.String()
}

// A budget's label is one that the configuration makes, and a client's companies and shares are those of their account.
func TestBudgetLabels(t *testing.T) {
	t.Parallel()
	n := namesOf(Config{Accounts: map[string]AccountConfig{"acme": {}}})
	for key, want := range map[string]string{
		"api/acme": "api/acme", "api/acme/subdomain/one": "api/acme", "api/acme/client/billing": "api/acme",
		"refresh/acme": "refresh/acme", "egress": "egress", "api/gone": "other", "refresh/gone": "other", "": "other",
	} {
		if got := n.budget(key); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

// A configuration that has changed makes labels of its own, and keeps what was counted.
func TestFollow(t *testing.T) {
	t.Parallel()
	c := counted()
	c.request(served())
	c.follow(Config{
		Accounts: map[string]AccountConfig{account: {}, "new": {}},
		Clients:  map[string]ClientConfig{"billing": {}, "nightly": {}},
	})
	s := served()
	s.Client, s.Account = "nightly", "new"
	c.request(s)
	text := scrapeOf(c.collectors())
	for _, line := range []string{
		`freeagent_proxy_requests_total{account="acme",answered_by="upstream",client="billing",method="GET",status="200"} 1`,
		`freeagent_proxy_requests_total{account="new",answered_by="upstream",client="nightly",method="GET",status="200"} 1`,
		`freeagent_proxy_writes_unknown_total{account="new"} 0`,
		`freeagent_proxy_budget_pauses_total{budget="api/new"} 0`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("want %s in %s", line, text)
		}
	}
}

// What it names no more is told of no more, also when a request of it is still under way; named again it begins at 0.
func TestFollowForgets(t *testing.T) {
	t.Parallel()
	c := counted()
	former := *c.names.Load()
	with := func(client, account string) *proxy.Served {
		s := served()
		s.Client, s.Account = client, account
		return s
	}
	c.follow(Config{
		Accounts: map[string]AccountConfig{account: {}, "gone": {}},
		Clients:  map[string]ClientConfig{"billing": {}, "left": {}},
	})
	for _, s := range []*proxy.Served{with("billing", "gone"), with("left", account), with("left", "gone"), with("billing", account)} {
		c.request(s)
	}
	under := (*c.requests.callers.Load())[caller{"left", "gone"}]
	c.token(tokens.Event{Account: "gone", Kind: tokens.EventRefreshed})
	c.follow(Config{
		Accounts: map[string]AccountConfig{account: {}},
		Clients:  map[string]ClientConfig{"billing": {}},
	})
	if got := *c.names.Load(); !reflect.DeepEqual(got, former) {
		t.Errorf("names %v, want %v", got, former)
	}
	c.request(with("left", "gone"))
	c.requests.open(under, answerKind{method: "PUT", status: 200}) // as if it had found its caller just before
	c.token(tokens.Event{Account: "gone", Kind: tokens.EventRefreshed})
	text := scrapeOf(c.collectors())
	if strings.Contains(text, `"gone"`) || strings.Contains(text, `"left"`) || strings.Contains(text, `"api/gone"`) {
		t.Errorf("still told of: %s", text)
	}
	for _, line := range []string{
		`freeagent_proxy_requests_total{account="acme",answered_by="upstream",client="billing",method="GET",status="200"} 1`,
		`freeagent_proxy_requests_total{account="-",answered_by="upstream",client="unknown",method="GET",status="200"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("want %s in %s", line, text)
		}
	}
	c.follow(Config{Accounts: map[string]AccountConfig{"gone": {}}, Clients: map[string]ClientConfig{"billing": {}}})
	c.request(with("billing", "gone"))
	const again = `freeagent_proxy_requests_total{account="gone",answered_by="upstream",client="billing",method="GET",status="200"} 1`
	if text := scrapeOf(c.collectors()); !strings.Contains(text, again+"\n") {
		t.Errorf("want %s in %s", again, text)
	}
}
