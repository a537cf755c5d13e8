package main

import (
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

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

func dashboardQueries(t *testing.T) map[string]string { return nil }

// shows expects that each query has something to show, over the time that has been watched.
func (w *watcher) shows(t *testing.T, queries map[string]string) {
	t.Helper()
	seconds := func(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }
	for name, query := range queries {
		found := w.query(t, "/api/v1/query_range", url.Values{
			"query": {query}, "start": {seconds(w.began)}, "end": {seconds(time.Now())}, "step": {"1"},
		})
		if len(found) == 0 {
			t.Errorf("%s: nothing to show: %s", name, query)
		}
	}
}
