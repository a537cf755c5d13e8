package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/porttest"
)

const (
	rulesPath    = "../../deploy/prometheus/alerts.yaml"
	howToInstall = "`.ci/install-tools prometheus promtool` installs it"
)

// watcher is a real Prometheus that watches a test's proxies by the rules of deploy/prometheus, in a hurry.
type watcher struct {
	folder, url string
	began       time.Time

	mu             sync.Mutex
	fired, cleared map[string]bool // by alert
}

// hurried are the rules with times for a test: what must be so for minutes need be so for a moment alone, and what is looked at
// over an hour is looked at over seconds.
func hurried(rules string) string {
	rules = regexp.MustCompile(`for: \d+[mh]`).ReplaceAllString(rules, "for: 500ms")
	rules = strings.ReplaceAll(rules, "[1h]", "[8s]") // of what happens once
	return regexp.MustCompile(`\[\d+m\]`).ReplaceAllString(rules, "[5s]")
}

const watcherConfig = `global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 250ms}
rule_files: [alerts.yaml]
scrape_configs:
  - job_name: freeagent-proxy
    file_sd_configs: [{files: [targets/*.json]}]
`

// newWatcher starts a Prometheus that watches nobody yet.
func newWatcher(t *testing.T) *watcher {
	t.Helper()
	w := &watcher{folder: t.TempDir(), began: time.Now(), fired: map[string]bool{}, cleared: map[string]bool{}}
	for name, text := range map[string]string{"prometheus.yaml": watcherConfig, "alerts.yaml": hurried(readText(t, rulesPath))} {
		if err := os.WriteFile(filepath.Join(w.folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(w.folder, "targets"), 0o700); err != nil {
		t.Fatal(err)
	}
	address := porttest.Address(t)
	w.url = "http://" + address
	p := prepare(w.folder, []string{"PATH=" + os.Getenv("PATH"), "GOMAXPROCS=1"}, "prometheus", "--config.file=prometheus.yaml",
		"--storage.tsdb.path=data", "--web.listen-address="+address, "--log.level=warn")
	if err := p.begin(); err != nil {
		t.Fatalf("%v; %s", err, howToInstall)
	}
	t.Cleanup(p.kill)
	eventually(t, "Prometheus at "+address, func() bool {
		resp, err := http.Get(w.url + "/-/ready")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
	return w
}

// watch makes an installation's replicas known to it, and waits until it has looked at each.
func (w *watcher) watch(t *testing.T, job string, replicas ...*scraped) {
	t.Helper()
	var targets []string
	for _, r := range replicas {
		targets = append(targets, strings.TrimPrefix(r.admin, "http://"))
	}
	text, _ := json.Marshal([]any{map[string]any{"targets": targets, "labels": map[string]string{"job": job}}})
	temporary := filepath.Join(w.folder, job)
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, filepath.Join(w.folder, "targets", job+".json")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a look at "+job, func() bool {
		return len(w.query(t, "/api/v1/query", url.Values{"query": {fmt.Sprintf(`up{job=%q} == 1`, job)}})) == len(replicas)
	})
}

// query asks for series.
func (w *watcher) query(t *testing.T, path string, query url.Values) (series []map[string]any) {
	t.Helper()
	var answer struct{ Result []map[string]any }
	w.api(t, path+"?"+query.Encode(), &answer)
	return answer.Result
}

func (w *watcher) api(t *testing.T, path string, data any) {
	t.Helper()
	resp, err := http.Get(w.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %v, %s: %s", path, err, answer.Status, answer.Error)
	}
}

// firing are the alerts of an installation that fire now. Those of no job are everybody's.
func (w *watcher) firing(t *testing.T, job string) (names []string) {
	t.Helper()
	var answer struct {
		Alerts []struct {
			State       string
			Labels      map[string]string
			Annotations map[string]string
		}
	}
	w.api(t, "/api/v1/alerts", &answer)
	for _, alert := range answer.Alerts {
		if alert.State != "firing" || alert.Labels["job"] != job {
			continue
		}
		for name, text := range alert.Annotations {
			if text == "" || strings.Contains(text, "<no value>") || strings.Contains(text, "error expanding") {
				t.Errorf("%s: %s is %q", alert.Labels["alertname"], name, text)
			}
		}
		names = append(names, strings.TrimPrefix(alert.Labels["alertname"], "FreeAgentProxy"))
	}
	return names
}

// fire waits until all of an installation's alerts of these names have fired.
func (w *watcher) fire(t *testing.T, job string, alerts ...string) {
	t.Helper()
	missing := slices.Clone(alerts)
	w.until(t, func() string { return fmt.Sprintf("%s: firing of %s", job, missing) }, func() bool {
		firing := w.firing(t, job)
		missing = slices.DeleteFunc(missing, func(name string) bool { return slices.Contains(firing, name) })
		return len(missing) == 0
	})
	w.note(w.fired, alerts)
}

// clear waits until none of them fires.
func (w *watcher) clear(t *testing.T, job string, alerts ...string) {
	t.Helper()
	w.until(t, func() string { return fmt.Sprintf("%s: end of %s", job, alerts) }, func() bool {
		return !slices.ContainsFunc(w.firing(t, job), func(name string) bool { return slices.Contains(alerts, name) })
	})
	w.note(w.cleared, alerts)
}

func (w *watcher) until(t *testing.T, what func() string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: does not come", what())
		}
	}
}

func (w *watcher) note(where map[string]bool, alerts []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, alert := range alerts {
		where[alert] = true
	}
}

// check runs promtool, and returns what it prints.
func check(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		t.Errorf("%v; %s", err, howToInstall)
	case err != nil:
		t.Errorf("promtool %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
