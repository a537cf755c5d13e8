package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const dashboardPath = "../../deploy/grafana/dashboard.json"

// dashboard is what Grafana is given.
type dashboard struct {
	Title      string
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []panel
}

type panel struct {
	ID          int
	Type, Title string
	Datasource  struct{ Type, UID string }
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct{ RefID, Expr string }
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(readText(t, dashboardPath)), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// queries are what the panels ask for, with all installations, replicas and accounts chosen.
func (d dashboard) queries() map[string]string {
	replace := strings.NewReplacer("$__rate_interval", "5s", "$__range", "1m", "$job", "freeagent-proxy.*", "$instance", ".*", "$account", ".*")
	all := map[string]string{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all[p.Title+" "+target.RefID] = replace.Replace(target.Expr)
		}
	}
	return all
}

// The dashboard asks for what there is, uses the variables that it has, and no panel lies on another.
func TestDashboard(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, "$"+v.Name)
		knownMetrics(t, v.Name, v.Definition)
	}
	if want := []string{"$datasource", "$job", "$instance", "$account"}; !slices.Equal(variables, want) {
		t.Errorf("variables %s, want %s", variables, want)
	}
	variables = append(variables, "$__rate_interval", "$__range")
	rows := 0
	for i, p := range d.Panels {
		for _, q := range d.Panels[:i] {
			across := p.GridPos.X < q.GridPos.X+q.GridPos.W && q.GridPos.X < p.GridPos.X+p.GridPos.W
			if p.ID == q.ID || across && p.GridPos.Y < q.GridPos.Y+q.GridPos.H && q.GridPos.Y < p.GridPos.Y+p.GridPos.H {
				t.Errorf("%s and %s have one id, or lie on one another", p.Title, q.Title)
			}
		}
		if p.Type == "row" {
			rows++
			continue
		}
		if p.Datasource.Type != "prometheus" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%s: %d queries to %+v", p.Title, len(p.Targets), p.Datasource)
		}
		for _, target := range p.Targets {
			for _, used := range regexp.MustCompile(`\$\w+`).FindAllString(target.Expr, -1) {
				if !slices.Contains(variables, used) {
					t.Errorf("%s: %s is no variable", p.Title, used)
				}
			}
		}
	}
	for name, query := range d.queries() {
		knownMetrics(t, name, query)
	}
	if rows != 6 {
		t.Errorf("%d rows, want 6", rows)
	}
}

// shows expects that each query has something to show, over the time that has been watched.
func (w *watcher) shows(t *testing.T, queries map[string]string) {
	t.Helper()
	if len(queries) == 0 {
		t.Error("nothing is asked for")
	}
	seconds := func(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }
	for name, query := range queries {
		found := w.query(t, "/api/v1/query_range", url.Values{
			"query": {query}, "start": {seconds(w.began)}, "end": {seconds(time.Now())}, "step": {"1"},
		})
		if len(found) == 0 {
			t.Errorf("%s: nothing to show: %s", name, query)
		}
		if strings.Contains(fmt.Sprint(found), mark) || strings.Contains(fmt.Sprint(found), tokenBegin) {
			t.Errorf("%s: a secret in what is shown", name)
		}
	}
}
