package main

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"freeagent-proxy/proxy"
)

// counted is the counts of a configuration with a client and an account.
func counted() *counts {
	return newCounts(Config{
		Accounts: map[string]AccountConfig{account: {}},
		Clients:  map[string]ClientConfig{"billing": {}},
	})
}

// served is a request as most are.
func served() *proxy.Served {
	return &proxy.Served{
		Client: "billing", Account: account, Method: http.MethodGet, Status: http.StatusOK, Upstream: true, Attempts: 1,
		Took: 120 * time.Millisecond, Tally: proxy.Tally{Answered: 115 * time.Millisecond},
	}
}

// series is how many there are of a counter or histogram.
func series(c prometheus.Collector) int {
	all := make(chan prometheus.Metric)
	go func() {
		c.Collect(all)
		close(all)
	}()
	n := 0
	for range all {
		n++
	}
	return n
}

// Whatever programs send, and whatever FreeAgent answers, there are so many series at most.
func TestSeriesAreBounded(t *testing.T) {
	t.Parallel()
	c := counted()
	for i := range 20_000 {
		s := served()
		switch i % 4 {
		case 0:
			s.Method = fmt.Sprint("METHOD", i)
		case 1:
			s.Status = i
		case 2:
			s.Client, s.Account = fmt.Sprint("client", i), fmt.Sprint("account", i) // as if the configuration had changed
		case 3:
			s.Error = fmt.Sprint("error", i)
		}
		c.request(s)
	}
	if n := series(c.requests.total); n > 70 {
		t.Errorf("%d series of requests", n)
	}
	kept := 0
	for _, from := range *c.requests.callers.Load() {
		kept += 1 + len(*from.answers.Load())
	}
	if kept > 70 {
		t.Errorf("%d kinds of requests are kept", kept)
	}
	for what, n := range map[string]int{
		"durations": series(c.requests.duration) - 2, "waiting": series(c.requests.waiting) - 1, "upstream": series(c.requests.upstream) - 1,
		"replays": series(c.requests.replays) - 4, "refusals": series(c.requests.refusals) - len(refusalErrors),
	} {
		if n > 0 {
			t.Errorf("%d series of %s too many", n, what)
		}
	}
}

// The errors that are counted are those that a refusal may name, and docs/metrics.md lists.
func TestRefusalErrors(t *testing.T) {
	t.Parallel()
	named := map[string]bool{}
	for _, path := range []string{"../../proxy/refuse.go", "../../proxy/idempotency_refuse.go"} {
		for _, found := range regexp.MustCompile(`"([a-z]+(?:_[a-z]+)+)"`).FindAllStringSubmatch(readText(t, path), -1) {
			named[found[1]] = true
		}
	}
	delete(named, "request_id") // of a line of the log
	if got, want := slices.Sorted(maps.Keys(named)), slices.Sorted(slices.Values(refusalErrors)); !slices.Equal(got, want) {
		t.Errorf("refusals name %s, counted are %s", got, want)
	}
	for _, e := range refusalErrors {
		if !strings.Contains(readText(t, metricsPath), "`"+e+"`") {
			t.Errorf("docs/metrics.md does not list %s", e)
		}
	}
}

// Counting a request allocates nothing.
func TestCountingAllocatesNothing(t *testing.T) {
	c := counted()
	plain, eventful := served(), served()
	eventful.Attempts, eventful.Replays, eventful.Doubtful, eventful.Kept, eventful.Error = 3, proxy.Replays{Rejected: 1, Limited: 1}, true, true, refusalErrors[0]
	for _, s := range []*proxy.Served{plain, eventful} {
		if n := testing.AllocsPerRun(100, func() { c.request(s) }); n != 0 {
			t.Errorf("%v allocations for a request, want none", n)
		}
	}
}

// What counting costs each request.
func BenchmarkCount(b *testing.B) {
	c, s := counted(), served()
	b.ReportAllocs()
	for b.Loop() {
		c.request(s)
	}
}
