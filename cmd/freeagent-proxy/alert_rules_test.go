package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const runbooksPath = "../../docs/runbooks.md"

// alertRule is an alert as Prometheus is told of it.
type alertRule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

// alertRules are all, by their names without what begins each.
func alertRules(t *testing.T) map[string]alertRule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alertRule } }
	if err := yaml.Unmarshal([]byte(readText(t, rulesPath)), &file); err != nil {
		t.Fatal(err)
	}
	all := map[string]alertRule{}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			name, ok := strings.CutPrefix(rule.Alert, "FreeAgentProxy")
			if _, twice := all[name]; !ok || twice {
				t.Errorf("%q: an alert's name is its own, and begins with FreeAgentProxy", rule.Alert)
			}
			all[name] = rule
		}
	}
	return all
}

// The alerts do in Prometheus's own unit tests what they should, each of them.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	check(t, "", "check", "rules", rulesPath)
	const tests = "../../deploy/prometheus/alerts_test.yaml"
	check(t, "", "test", "rules", tests)
	stories := readText(t, tests)
	for name, rule := range alertRules(t) {
		if !strings.Contains(stories, fmt.Sprintf("ALERTS{alertname=%q,", rule.Alert)) {
			t.Errorf("%s: no unit test in which it fires", name)
		}
		if severity := rule.Labels["severity"]; severity != "critical" && severity != "warning" {
			t.Errorf("%s: severity %q", name, severity)
		}
		for _, part := range []string{"summary", "description", "runbook_url"} {
			if rule.Annotations[part] == "" {
				t.Errorf("%s: no %s", name, part)
			}
		}
		knownMetrics(t, name, rule.Expr)
	}
}

// Each alert has a runbook, which says all that is wanted of one, and each runbook an alert.
func TestRunbooks(t *testing.T) {
	t.Parallel()
	runbooks := map[string]string{}
	for _, section := range strings.Split(readText(t, runbooksPath), "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		runbooks[strings.TrimPrefix(title, "FreeAgentProxy")] = "\n" + text
	}
	rules := alertRules(t)
	if got, want := slices.Sorted(maps.Keys(runbooks)), slices.Sorted(maps.Keys(rules)); !slices.Equal(got, want) {
		t.Errorf("runbooks of %s, alerts %s", got, want)
	}
	for name, text := range runbooks {
		for _, part := range []string{"Means", "Look at", "Do", "Ends"} {
			if !strings.Contains(text, "\n**"+part+":** ") {
				t.Errorf("%s: the runbook has no %q", name, part)
			}
		}
		knownMetrics(t, name, text)
		rule := rules[name]
		if got, want := rule.Annotations["runbook_url"], "docs/runbooks.md#"+strings.ToLower(rule.Alert); got != want {
			t.Errorf("%s: runbook_url %q, want %q", name, got, want)
		}
	}
	for _, link := range regexp.MustCompile(`\(#freeagentproxy(\w+)\)`).FindAllStringSubmatch(readText(t, runbooksPath), -1) {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(rules)), func(name string) bool { return strings.ToLower(name) == link[1] }) {
			t.Errorf("a link to %s, which there is not", link[0])
		}
	}
}

var (
	documentedMetric = regexp.MustCompile("(?m)^\\| `(freeagent_proxy_\\w+)` \\| (\\w+) \\|([^|]*)\\|")
	metricInText     = regexp.MustCompile(`freeagent_proxy_\w+(?:\{([^}]*)\})?`)
	labelInSelector  = regexp.MustCompile(`(\w+)\s*[!=]~?"`)
	labelsBy         = regexp.MustCompile(`\b(?:by|on) \(([^)]*)\)`)
)

// knownMetrics expects that all metrics of ours in a text, and their labels, are in docs/metrics.md, which another test compares with the
// program.
func knownMetrics(t *testing.T, where, text string) {
	t.Helper()
	labels, all := map[string][]string{}, []string{"job", "instance", "le"}
	for _, row := range documentedMetric.FindAllStringSubmatch(readText(t, metricsPath), -1) {
		labels[row[1]] = strings.FieldsFunc(row[3], func(r rune) bool { return strings.ContainsRune(" `,", r) })
		all = append(all, labels[row[1]]...)
	}
	for _, found := range metricInText.FindAllStringSubmatch(text, -1) {
		name, _, _ := strings.Cut(found[0], "{")
		for _, suffix := range []string{"_bucket", "_sum", "_count"} { // of a histogram
			if base := strings.TrimSuffix(name, suffix); labels[base] != nil {
				name = base
			}
		}
		has, ok := labels[name]
		if !ok {
			t.Errorf("%s: there is no metric %s", where, name)
		}
		for _, label := range labelInSelector.FindAllStringSubmatch(found[1], -1) {
			if !slices.Contains(has, label[1]) && label[1] != "job" && label[1] != "instance" {
				t.Errorf("%s: %s has no label %s", where, name, label[1])
			}
		}
	}
	for _, found := range labelsBy.FindAllStringSubmatch(text, -1) {
		for _, label := range strings.Split(found[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(all, label) {
				t.Errorf("%s: no metric has a label %s", where, label)
			}
		}
	}
}
