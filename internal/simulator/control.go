package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// route is one path of the control API. Its handler gets the request's body.
type route struct {
	method, path, does string
	handle             func(s *Simulator, w http.ResponseWriter, r *http.Request, body []byte) error
}

// controlRoutes is the whole control API; the index and a test of the documents read it, too.
func controlRoutes() []route {
	return []route{
		{"GET", "/_sim", "this index", (*Simulator).serveIndex},
		{"GET", "/_sim/config", "every switch as it is now", (*Simulator).serveConfig},
		{"POST", "/_sim/config", "change the switches that the body names", (*Simulator).mergeConfig},
		{"GET", "/_sim/stats", "what was counted at the wire", (*Simulator).serveStats},
		{"POST", "/_sim/stats/reset", "begin a new count", (*Simulator).serveResetStats},
		{"GET", "/_sim/requests", "the last requests; ?since=SEQ for those after one", (*Simulator).serveRequests},
		{"POST", "/_sim/authorize", "make a grant: {\"user\": \"owner\"}", (*Simulator).serveAuthorize},
		{"POST", "/_sim/revoke", "revoke tokens: {\"tokens\": \"access\" | \"refresh\" | \"all\", \"user\": \"owner\"}, without user of all", (*Simulator).serveRevoke},
		{"POST", "/_sim/seed", "make records: {\"user\": \"owner\", \"subdomain\": \"\", \"family\": \"contacts\", \"count\": 1000}", (*Simulator).serveSeed},
		{"GET", "/_sim/faults", "the armed faults with their hits", (*Simulator).serveFaults},
		{"POST", "/_sim/faults", "arm a fault: {\"match\": {…}, \"kind\": \"…\"}", (*Simulator).serveAddFault},
		{"DELETE", "/_sim/faults", "remove all faults; ?id=N only one", (*Simulator).serveClearFaults},
		{"POST", "/_sim/reset", "as new: switches, tokens, records, faults, counts, log", (*Simulator).serveReset},
	}
}

// maxControlBody bounds what the control API reads.
const maxControlBody = 1 << 20

// control answers everything below /_sim.
func (s *Simulator) control(w http.ResponseWriter, r *http.Request, path string) {
	known := false
	for _, route := range controlRoutes() {
		if route.path != path {
			continue
		}
		known = true
		if route.method != r.Method && !(route.method == http.MethodGet && r.Method == http.MethodHead) {
			continue
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControlBody))
		if err == nil {
			err = route.handle(s, w, r, body)
		}
		if err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		}
		return
	}
	status := http.StatusNotFound
	if known {
		status = http.StatusMethodNotAllowed
	}
	writeJSON(w, status, map[string]string{"error": r.Method + " " + path + " is not here; GET /_sim lists what is"})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil { // none of our types can fail
		status, body = http.StatusInternalServerError, []byte(`{"error": "cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that has gone reads no error
}

// decode reads a body strictly; an empty one leaves v as it is.
func decode(body []byte, v any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func (s *Simulator) serveIndex(w http.ResponseWriter, _ *http.Request, _ []byte) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, "FreeAgent simulator: the control API. Neither counted nor limited.\n\n")
	for _, route := range controlRoutes() {
		fmt.Fprintf(w, "%-6s %-18s %s\n", route.method, route.path, route.does)
	}
	fmt.Fprint(w, "\nBelow /v2 it adds to FreeAgent's resources, authorised, counted and limited as those are:\n\n"+
		"GET    /v2/_sim_stream    ?bytes=N: N bytes at full speed\n"+
		"any    /v2/_sim_echo      what arrived: method, target, header, length and SHA-256 of the body\n\n"+
		"Switches: "+strings.Join(switchNames(), ", ")+"\n\nKinds of faults: "+strings.Join(faultKinds(), ", ")+"\n")
	return nil
}

func (s *Simulator) serveConfig(w http.ResponseWriter, _ *http.Request, _ []byte) error {
	writeJSON(w, http.StatusOK, s.Config())
	return nil
}

func (s *Simulator) mergeConfig(w http.ResponseWriter, r *http.Request, body []byte) error {
	if err := s.configure(func(cfg Config) (Config, error) { return cfg.merged(body) }); err != nil {
		return err
	}
	return s.serveConfig(w, r, nil)
}

func (s *Simulator) serveStats(w http.ResponseWriter, _ *http.Request, _ []byte) error {
	writeJSON(w, http.StatusOK, s.Stats())
	return nil
}

func (s *Simulator) serveResetStats(w http.ResponseWriter, r *http.Request, _ []byte) error {
	s.ResetStats()
	return s.serveStats(w, r, nil)
}

func (s *Simulator) serveRequests(w http.ResponseWriter, r *http.Request, _ []byte) error {
	since := int64(0)
	if text := r.URL.Query().Get("since"); text != "" {
		var err error
		if since, err = strconv.ParseInt(text, 10, 64); err != nil || since < 0 {
			return fmt.Errorf("since: %q is not the seq of a request", text)
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"requests": s.Requests(since)})
	return nil
}

func (s *Simulator) serveAuthorize(w http.ResponseWriter, _ *http.Request, body []byte) error {
	var asked struct {
		User string `json:"user"`
	}
	if err := decode(body, &asked); err != nil {
		return err
	}
	p := s.authorize(asked.User)
	writeJSON(w, http.StatusOK, map[string]string{"refresh_token": p.refresh, "access_token": p.access})
	return nil
}

func (s *Simulator) serveRevoke(w http.ResponseWriter, _ *http.Request, body []byte) error {
	var asked struct {
		Tokens string `json:"tokens"`
		User   string `json:"user"`
	}
	if err := decode(body, &asked); err != nil {
		return err
	}
	switch asked.Tokens {
	case "access":
		s.RevokeAccess(asked.User)
	case "refresh":
		s.RevokeRefresh(asked.User)
	case "all":
		s.RevokeAll(asked.User)
	default:
		return fmt.Errorf("tokens: %q is not one of access, refresh, all", asked.Tokens)
	}
	writeJSON(w, http.StatusOK, map[string]string{"revoked": asked.Tokens})
	return nil
}

func (s *Simulator) serveSeed(w http.ResponseWriter, _ *http.Request, body []byte) error {
	var asked struct {
		User      string `json:"user"`
		Subdomain string `json:"subdomain"`
		Family    string `json:"family"`
		Count     int    `json:"count"`
	}
	if err := decode(body, &asked); err != nil {
		return err
	}
	if err := s.Seed(asked.User, asked.Subdomain, asked.Family, asked.Count); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]int{"seeded": asked.Count})
	return nil
}

func (s *Simulator) serveFaults(w http.ResponseWriter, _ *http.Request, _ []byte) error {
	writeJSON(w, http.StatusOK, map[string]any{"faults": s.Faults()})
	return nil
}

func (s *Simulator) serveAddFault(w http.ResponseWriter, _ *http.Request, body []byte) error {
	var f Fault
	if err := decode(body, &f); err != nil {
		return err
	}
	f, err := s.faults.add(f)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, f)
	return nil
}

func (s *Simulator) serveClearFaults(w http.ResponseWriter, r *http.Request, _ []byte) error {
	id := 0
	if text := r.URL.Query().Get("id"); text != "" {
		id, _ = strconv.Atoi(text)
		if id < 1 || !s.faults.clear(id) {
			return fmt.Errorf("id: there is no fault %q", text)
		}
		return s.serveFaults(w, r, nil)
	}
	s.ClearFaults()
	return s.serveFaults(w, r, nil)
}

func (s *Simulator) serveReset(w http.ResponseWriter, _ *http.Request, _ []byte) error {
	s.Reset()
	writeJSON(w, http.StatusOK, map[string]bool{"reset": true})
	return nil
}

// about is GET /.
func about(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, page(http.StatusOK, "FreeAgent simulator", `<p>This is not FreeAgent. It answers below <code>/v2</code> as FreeAgent's API does,
as far as that is known, keeps everything in memory and counts what it sees.</p>
<p><a href="/_sim">Control API</a> · <a href="/_sim/stats">counts</a> · <a href="/_sim/requests">last requests</a></p>`).text)
}
