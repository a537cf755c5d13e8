package simulator_test

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

// control sends a control request whose answer is an object.
func (s *sim) control(status int, method, path, body string) map[string]any {
	s.t.Helper()
	var out map[string]any
	if a := s.must(status, method, path, body); json.Unmarshal([]byte(a.body), &out) != nil {
		s.t.Fatalf("%s %s: no object: %s", method, path, a.body)
	}
	return out
}

func TestControl(t *testing.T) {
	s := start(t, simulator.Config{})
	granted := s.control(200, "POST", "/_sim/authorize", `{"user":"ann"}`)
	s.token = granted["access_token"].(string)
	s.must(200, "GET", "/v2/users/me", "")
	equal(t, "refresh token", s.refresh(granted["refresh_token"].(string)).StatusCode, 200)
	equal(t, "default user", s.control(200, "POST", "/_sim/authorize", "")["access_token"] != nil, true)

	s.control(200, "POST", "/_sim/revoke", `{"tokens":"access","user":"bob"}`)
	s.must(200, "GET", "/v2/users/me", "")
	s.control(200, "POST", "/_sim/revoke", `{"tokens":"access","user":"ann"}`)
	s.must(401, "GET", "/v2/users/me", "")
	s.control(200, "POST", "/_sim/revoke", `{"tokens":"all"}`)
	s.control(200, "POST", "/_sim/revoke", `{"tokens":"refresh"}`)

	s.token = s.AccessToken("ann")
	s.control(200, "POST", "/_sim/seed", `{"user":"ann","family":"invoices","count":3}`)
	equal(t, "seeded", s.must(200, "GET", "/v2/invoices?sort=-reference", "").list(t)[0]["reference"], any("003"))

	fault := s.control(201, "POST", "/_sim/faults", `{"kind":"status","match":{"path_prefix":"/v2/company"}}`)
	s.must(503, "GET", "/v2/company", "")
	listed := s.control(200, "GET", "/_sim/faults", "")["faults"].([]any)[0].(map[string]any)
	equal(t, "hits", fmt.Sprint(listed["hits"], listed["id"]), fmt.Sprint(1, fault["id"]))
	s.control(400, "DELETE", "/_sim/faults?id=99", "")
	s.control(200, "DELETE", fmt.Sprint("/_sim/faults?id=", fault["id"]), "")
	s.must(200, "GET", "/v2/company", "")
	s.control(201, "POST", "/_sim/faults", `{"kind":"drop"}`)
	s.control(200, "DELETE", "/_sim/faults", "")
	s.must(200, "GET", "/v2/company", "")

	changed := s.control(200, "POST", "/_sim/config", `{"link_quotes":"double","user_limits":[{"requests":1,"per":"1h"}],"access_token_lifetime":"1.5s"}`)
	equal(t, "changed", fmt.Sprint(changed["link_quotes"], changed["access_token_lifetime"], changed["rotation"]), "double1.5sstrict")
	for _, wrong := range []string{`{"rotatoin":"strict"}`, `{"rotation":"sometimes"}`, `{"grace":"-1s"}`, `{"user_limits":[{"requests":0,"per":"1s"}]}`, `{"request_log":0.5}`, `[]`} {
		s.control(400, "POST", "/_sim/config", wrong)
	}
	s.must(200, "GET", "/v2/company", "")
	s.must(429, "GET", "/v2/company", "")
	s.control(200, "POST", "/_sim/stats/reset", "")
	stats := s.control(200, "GET", "/_sim/stats", "")
	equal(t, "requests after a reset", stats["requests"], any(0.0))
	s.must(200, "GET", "/v2/company", "")

	s.control(200, "POST", "/_sim/reset", "")
	equal(t, "link_quotes", s.Config().LinkQuotes, "single")
	equal(t, "log", len(s.control(200, "GET", "/_sim/requests", "")["requests"].([]any)), 0)
	s.must(401, "GET", "/v2/company", "")
	s.token = s.AccessToken("ann")
	equal(t, "records", len(s.must(200, "GET", "/v2/invoices", "").list(t)), 0)

	for path, wrong := range map[string]string{
		"/_sim/authorize": `{"who":"x"}`, "/_sim/revoke": `{"tokens":"some"}`, "/_sim/seed": `{"family":"contacts"}`, "/_sim/faults": `{"kind":"x"}`,
	} {
		s.control(400, "POST", path, wrong)
	}
	s.control(400, "GET", "/_sim/requests?since=x", "")
	s.control(404, "GET", "/_sim/nothing", "")
	s.control(405, "PUT", "/_sim/config", "{}")
	equal(t, "about", strings.Contains(s.must(200, "GET", "/", "").body, "This is not FreeAgent"), true)
}

func TestConfigProblems(t *testing.T) {
	defer func() {
		problem := fmt.Sprint(recover())
		for _, key := range []string{"rotation", "enforcement", "redirect_error_status", "user_limits", "request_log", "max_body"} {
			if !strings.Contains(problem, key) {
				t.Errorf("no %s in %s", key, problem)
			}
		}
	}()
	simulator.New(simulator.Config{
		Rotation: "x", Enforcement: "y", RedirectErrorStatus: 7, UserLimits: []simulator.Window{{}}, RequestLog: -1, MaxBody: -1,
	})
}

// TestConfigIsNotShared: changing what Config returned, or merging, leaves running requests' switches alone.
func TestConfigIsNotShared(t *testing.T) {
	s := start(t, simulator.Config{UserLimits: []simulator.Window{window(10, time.Second)}})
	before := s.Config()
	s.control(200, "POST", "/_sim/config", `{"user_limits":[{"requests":20,"per":"2s"}]}`)
	equal(t, "as it was", before.UserLimits[0], window(10, time.Second))
	equal(t, "as it is", s.Config().UserLimits[0], window(20, 2*time.Second))
}

// TestDocuments: every path, switch and fault is in the document and the
// other way round, and every curl body there is understood.
func TestDocuments(t *testing.T) {
	text, err := os.ReadFile("../../docs/simulator.md")
	if err != nil {
		t.Fatal(err)
	}
	document := string(text)
	s := start(t, simulator.Config{})

	var switches []string
	for f := range reflect.TypeFor[simulator.Config]().Fields() {
		switches = append(switches, f.Tag.Get("json"))
	}
	same(t, "switches", firstColumn(section(t, document, "## Switches")), switches)

	index := s.must(200, "GET", "/_sim", "").body
	for _, name := range switches {
		equal(t, name+" in the index", strings.Contains(index, name), true)
	}
	var paths, simulators []string
	for _, m := range regexp.MustCompile(`(?m)^(GET|POST|DELETE|any) +(/\S+)`).FindAllStringSubmatch(index, -1) {
		if strings.HasPrefix(m[2], "/v2/") {
			simulators = append(simulators, m[2])
		} else {
			paths = append(paths, m[1]+" "+m[2])
		}
	}
	same(t, "paths", firstColumn(section(t, document, "## The control API")), append(paths, simulators...))

	_, kinds, _ := strings.Cut(index, "Kinds of faults: ")
	faults := strings.Split(strings.TrimSpace(kinds), ", ")
	fields := []string{"after", "match.method", "match.path_prefix", "match.nth", "match.probability", "match.times"}
	same(t, "faults", firstColumn(section(t, document, "## Faults")), append(faults, fields...))

	for _, m := range regexp.MustCompile(`curl -s -X (\S+) "?\$SIM(/_sim[^ "\n]*)"?(?: -d '([^']*)')?`).FindAllStringSubmatch(document, -1) {
		if got := s.do(m[1], m[2], m[3]); got.StatusCode >= 300 {
			t.Errorf("%s: %s", m[0], got.body)
		}
	}
}

func section(t *testing.T, document, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(document, heading+"\n")
	if !ok {
		t.Fatalf("no section %s", heading)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

func firstColumn(text string) []string {
	var names []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("%s: %s is not documented", what, name)
		}
	}
	for _, name := range got {
		if !slices.Contains(want, name) {
			t.Errorf("%s: %s is documented and does not exist", what, name)
		}
	}
}
