package main

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
)

const metricsPath = "../../docs/metrics.md"

// scraped is a proxy that is asked for its metrics.
type scraped struct {
	t      *testing.T
	client *http.Client
	url    string // for programs
	admin  string
}

func newScraped(w *world) *scraped {
	w.t.Helper()
	p, url := w.serve()
	addresses, err := p.listening()
	if err != nil {
		w.t.Fatal(err)
	}
	return &scraped{w.t, w.client(false), url, "http://" + addresses[len(addresses)-1]}
}

// call sends a program's request and returns the answer's status.
func (s *scraped) call() int {
	resp, err := s.client.Get(s.url + "/v2/company")
	if err != nil {
		s.t.Error(err)
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// text is the answer to Prometheus, which never holds a secret.
func (s *scraped) text() string {
	s.t.Helper()
	resp, err := s.client.Get(s.admin + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if kind := resp.Header.Get("Content-Type"); err != nil || resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/plain; version=") {
		s.t.Fatalf("/metrics: status %d, type %q, %v: %s", resp.StatusCode, kind, err, body)
	}
	for _, never := range []string{mark, tokenBegin} {
		if strings.Contains(string(body), never) {
			s.t.Errorf("%q in /metrics", never)
		}
	}
	return string(body)
}

// values are ours, by what stands before them, such as refreshes_total{account="acme",outcome="ok"}.
func (s *scraped) values() map[string]float64 {
	s.t.Helper()
	values := map[string]float64{}
	for _, line := range regexp.MustCompile(`(?m)^freeagent_proxy_(\S+) (\S+)$`).FindAllStringSubmatch(s.text(), -1) {
		value, err := strconv.ParseFloat(line[2], 64)
		if err != nil {
			s.t.Fatal(err)
		}
		values[line[1]] = value
	}
	return values
}

// come waits until all that is wanted is so, and returns all values.
func (s *scraped) come(what string, want map[string]float64) (got map[string]float64) {
	s.t.Helper()
	var wrong string
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got, wrong = s.values(), ""
		for series, value := range want {
			if now, ok := got[series]; !ok || now != value {
				wrong += fmt.Sprintf("\n%s is %v (present: %v), want %v", series, now, ok, value)
			}
		}
		if wrong == "" {
			return got
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s:%s", what, wrong)
		}
	}
}

// What an operator of Redis sees: it goes away while a refresh is under way, and comes back; then FreeAgent refuses the grant.
func TestMetricsWithRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Persistent())
	w := newShared(t, simNoLimits, "redis://"+server.Addr(), noLimits)
	w.skew() // its times are compared with ours
	w.authorise(w.sim.Authorize("owner"))
	newTokens := w.bar("/v2/token_endpoint")
	s := newScraped(w)
	got := s.come("linked", map[string]float64{
		`build_info{commit="unknown",version="dev"}`: 1,
		`store_up`:                                          1,
		`limiter_state{state="linked"}`:                     1,
		`limiter_state{state="returning"}`:                  0,
		`limiter_state{state="alone"}`:                      0,
		`limiter_state{state="unseen"}`:                     0,
		`redis_outages_total`:                               0,
		`grant_unsaved{account="acme"}`:                     0,
		`reauthorisation_needed{account="acme"}`:            0,
		`refreshes_total{account="acme",outcome="ok"}`:      0,
		`budget_pauses_total{budget="api/acme"}`:            0,
		`budget_shrunk_total{budget="egress"}`:              0,
		`refreshes_total{account="acme",outcome="refused"}`: 0,
	})
	const access, refresh = `access_token_expires_timestamp_seconds{account="acme"}`, `refresh_token_expires_timestamp_seconds{account="acme"}`
	if now := float64(time.Now().Unix()); got[access] < now+3000 || got[access] > now+3700 || got[refresh] < now+3700 {
		t.Errorf("at %.0f the tokens end at %.0f and %.0f", now, got[access], got[refresh])
	}

	before := w.sim.Stats().Tokens.RefreshRequests
	w.sim.RevokeAccess("owner")
	status := make(chan int, 1)
	go func() { status <- s.call() }()
	eventually(t, "a refresh", func() bool { return w.sim.Stats().Tokens.RefreshRequests > before })
	server.Kill()
	newTokens.let()
	s.come("Redis is away", map[string]float64{
		`store_up`:                                     0,
		`limiter_state{state="linked"}`:                0,
		`limiter_state{state="alone"}`:                 1,
		`redis_outages_total`:                          1,
		`grant_unsaved{account="acme"}`:                1,
		`refreshes_total{account="acme",outcome="ok"}`: 1,
	})
	if got := <-status; got != http.StatusOK {
		t.Errorf("status %d without Redis, want 200", got)
	}

	server.Restart()
	s.come("Redis is back", map[string]float64{
		`store_up`:                      1,
		`limiter_state{state="linked"}`: 1,
		`limiter_state{state="alone"}`:  0,
		`redis_outages_total`:           1,
		`grant_unsaved{account="acme"}`: 0,
	})

	w.sim.RevokeAll("owner")
	eventuallyWithin(t, 0, "a refusal", func() bool { return s.call() == http.StatusServiceUnavailable })
	s.come("refused", map[string]float64{
		`reauthorisation_needed{account="acme"}`:            1,
		`refreshes_total{account="acme",outcome="refused"}`: 1,
		`refreshes_total{account="acme",outcome="ok"}`:      1,
	})
	secure := newSimulated(t, simNoLimits, noLimits+"tls: {cert: cert.pem, key: key.pem}\n") // what there is with TLS only
	certificate := newAuthority(t, "tests").issue("proxy", time.Hour)
	secure.write("cert.pem", certificate.cert)
	secure.write("key.pem", certificate.key)
	s.documented(newScraped(secure).family("certificate_expires_timestamp_seconds"))
}

// family is the text of one metric.
func (s *scraped) family(name string) string {
	s.t.Helper()
	found := regexp.MustCompile(`(?m)^# HELP freeagent_proxy_` + name + ` .*\n(.+\n)+?(# HELP|\z)`).FindString(s.text())
	return strings.TrimSuffix(found, "# HELP")
}

// documented compares the metrics that there are, and more, with the tables that say so, and lets Prometheus's own linter look
// at them.
func (s *scraped) documented(more string) {
	s.t.Helper()
	text := s.text() + more
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		s.t.Errorf("/metrics cannot be parsed: %v\n%s", err, text)
	}
	for _, p := range problems {
		s.t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if out := check(s.t, text, "check", "metrics"); out != "" {
		s.t.Errorf("promtool check metrics: %s", out)
	}
	var got, want []string
	for _, family := range regexp.MustCompile(`(?m)^# TYPE (freeagent_proxy_\S+) (\S+)\n\S+?(?:\{(\S*)\})? `).FindAllStringSubmatch(text, -1) {
		var labels []string
		for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(family[3], -1) {
			if label[1] != "le" { // a histogram's buckets have it
				labels = append(labels, label[1])
			}
		}
		slices.Sort(labels)
		got = append(got, fmt.Sprint(family[1], " ", family[2], " ", labels))
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(freeagent_proxy_\\w+)` \\| (\\w+) \\|([^|]*)\\|").FindAllStringSubmatch(readText(s.t, metricsPath), -1) {
		labels := strings.FieldsFunc(row[3], func(r rune) bool { return strings.ContainsRune(" `,", r) })
		slices.Sort(labels)
		want = append(want, fmt.Sprint(row[1], " ", row[2], " ", labels))
	}
	slices.Sort(want)
	if slices.Sort(got); len(got) == 0 || !slices.Equal(got, want) {
		s.t.Errorf("/metrics has\n%s\ndocs/metrics.md has\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// With the file store there is no Redis to tell of. An account is authorised, and FreeAgent answers 429.
func TestMetricsWithFileStore(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, noLimits)
	s := newScraped(w)
	got := s.come("serving", map[string]float64{
		`store_up`:                               1,
		`limiter_state{state="local"}`:           1,
		`reauthorisation_needed{account="acme"}`: 1,
	})
	for series := range got {
		if strings.Contains(series, "redis") || strings.Contains(series, "linked") || strings.Contains(series, "expires") {
			t.Errorf("%s without Redis and without a grant", series)
		}
	}
	w.authorise(w.sim.Authorize("owner"))
	s.come("authorised", map[string]float64{
		`reauthorisation_needed{account="acme"}`: 0,
		`budget_pauses_total{budget="api/acme"}`: 0,
	})
	if _, err := w.sim.Fault(simulator.Fault{
		Match: simulator.Match{PathPrefix: "/v2/company", Times: 1}, Kind: simulator.FaultRateLimited, RetryAfter: 1,
	}); err != nil {
		t.Fatal(err)
	}
	if got := s.call(); got != http.StatusOK {
		t.Errorf("status %d after a pause, want 200", got)
	}
	got = s.come("paused", map[string]float64{
		`budget_pauses_total{budget="api/acme"}`: 1,
		`budget_shrunk_total{budget="api/acme"}`: 1,
		`budget_pauses_total{budget="egress"}`:   0,
		`budget_paused{budget="api/acme"}`:       0,
		`budget_fraction{budget="egress"}`:       1,

		`requests_total{account="acme",answered_by="upstream",client="anonymous",method="GET",status="200"}`: 1,

		`request_duration_seconds_count{account="acme",answered_by="upstream"}`: 1,
		`upstream_duration_seconds_count{account="acme"}`:                       1,
		`upstream_duration_seconds_bucket{account="acme",le="10"}`:              1,
		`waiting_seconds_bucket{client="anonymous",le="0.5"}`:                   0,
		`waiting_seconds_count{client="anonymous"}`:                             1,
		`replays_total{account="acme",reason="rate_limited"}`:                   1,
		`replays_total{account="acme",reason="token_rejected"}`:                 0,
		`refusals_total{error="http_request_denied"}`:                           0,
		`requests_in_flight`:                           0,
		`queue_length{budget="api/acme"}`:              0,
		`max_wait_seconds{client="anonymous"}`:         60,
		`permits_limit{budget="api/acme",window="1s"}`: 100000,
		`account_state{account="acme",state="ok"}`:     1,
		`ready`:             1,
		`body_spills_total`: 0,
	})
	if got := got[`budget_fraction{budget="api/acme"}`]; got < 0.2 || got > 0.3 {
		t.Errorf("%v of the budget is ours, want a fifth and a little", got)
	}
	// Who is not let in, and what is no method, make no series of their own.
	for _, method := range []string{"BREW", "PROPFIND"} {
		req, err := http.NewRequest(method, s.url+"/v2/company", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	s.come("refused", map[string]float64{
		`requests_total{account="-",answered_by="proxy",client="unknown",method="other",status="405"}`: 2,
		`refusals_total{error="http_request_denied"}`:                                                  2,
	})
}

// A practice's companies go together: no subdomain is a label, and the one that has least left counts. Who waits counts for all.
func TestMetricsOfPractice(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, "limits: {api: [{requests: 3, per: 1m}, {requests: 50, per: 1h}], max_wait: 5m}\n")
	config := readText(t, filepath.Join(w.folder, "config.yaml"))
	w.write("config.yaml", []byte(strings.Replace(config, "{app: main}", "{app: main, practice: true}", 1)))
	w.authorise(w.sim.Authorize("practice"))
	s := newScraped(w)
	ask := func(subdomain string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v2/company", nil)
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("X-Subdomain", subdomain)
		if resp, err := s.client.Do(req); err == nil { // it may wait until the test ends
			resp.Body.Close()
		}
	}
	for _, subdomain := range []string{"one", "two", "two"} {
		ask(subdomain)
	}
	s.come("two have called", map[string]float64{
		`permits_remaining{budget="api/acme",window="1m"}`:   1,
		`permits_remaining{budget="api/acme",window="1h"}`:   48,
		`permits_limit{budget="api/acme",window="1h"}`:       50,
		`permits_limit{budget="refresh/acme",window="1m"}`:   15,
		`permits_remaining{budget="egress",window="1m"}`:     997,
		`queue_length{budget="api/acme"}`:                    0,
		`upstream_duration_seconds_count{account="acme"}`:    3,
		`waiting_seconds_bucket{client="anonymous",le="10"}`: 3, // the window is longer
	})
	var waiting sync.WaitGroup
	for _, subdomain := range []string{"one", "one", "one", "two", "two"} {
		waiting.Go(func() { ask(subdomain) })
	}
	got := s.come("two of them wait", map[string]float64{
		`queue_length{budget="api/acme"}`:                  2,
		`requests_in_flight`:                               2,
		`permits_remaining{budget="api/acme",window="1m"}`: 0,
	})
	for series := range got {
		if strings.Contains(series, "one") || strings.Contains(series, "two") {
			t.Errorf("a subdomain in %s", series)
		}
	}
	t.Cleanup(waiting.Wait)
}
