package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	stdlog "log"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

// debugged is a proxy that logs each decision.
type debugged struct {
	*reloaded
	n int
}

func newDebugged(t *testing.T, format string) *debugged {
	t.Helper()
	w := newSimulated(t, simulator.Config{Enforcement: simulator.EnforceOff, UnknownReferences: true}, "")
	w.configure(w.simURL, reloadable+fmt.Sprintf(`log: {level: debug, format: %s}
clients:
  billing: {key_sha256: %s}
  legacy: {listen: 'unix:legacy.sock', read_only: true, urls: passthrough}
  nightly: {cidrs: 127.0.0.1, accounts: acme, share: 0.5}
limits: {api: [{requests: 1000, per: 1s}], refresh: [{requests: 1000, per: 1s}], guard: 0s}
`, format, hexDigest(mark+"-key")))
	w.authorise(w.sim.Authorize("owner"))
	d := &debugged{reloaded: &reloaded{world: w, client: w.client(false), proxy: w.start("serve")}}
	found, err := d.proxy.await(&d.proxy.stderr, `serving programs.*"listen": ?"(127[^"]+)"[^$]*serving the operator.*"page": ?"http://127`)
	if err != nil {
		t.Fatal(err)
	}
	d.url = "http://" + found[1]
	return d
}

// ask sends one request, and returns its id and the answer's status; 0: there is none.
func (d *debugged) ask(method, path, body string, headers ...string) (id string, status int) {
	d.t.Helper()
	d.n++
	id = fmt.Sprintf("request-%d", d.n)
	req, err := http.NewRequest(method, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("X-Request-Id", id)
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		req.Header[name] = append(req.Header[name], value)
		if name == "Host" {
			req.Host = value
		}
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return id, 0
	}
	resp.Body.Close()
	return id, resp.StatusCode
}

// decisions are the messages of a request's lines, and what they say beside; the last one is the access log's.
func (d *debugged) decisions(id string) (said []string, all string) {
	d.t.Helper()
	eventually(d.t, "the line of "+id, func() bool {
		said, all = nil, ""
		for line := range strings.Lines(d.proxy.stderr.String()) {
			var l struct {
				Msg string
				ID  string `json:"request_id"`
			}
			if json.Unmarshal([]byte(line), &l) == nil && l.ID == id {
				said, all = append(said, l.Msg), all+line
			}
		}
		return slices.Contains(said, "request")
	})
	return said, all
}

// At level debug the log has each decision about a request, in order, under its id.
func TestDebugShowsDecisions(t *testing.T) {
	t.Parallel()
	d := newDebugged(t, "json")
	key := "X-Api-Key: " + mark + "-key"
	expect := func(id, messages string, says ...string) {
		t.Helper()
		said, all := d.decisions(id)
		if got := strings.Join(said, "; "); got != messages {
			t.Errorf("%s: got  %s\nwant %s", id, got, messages)
		}
		for _, s := range says {
			if !strings.Contains(all, s) {
				t.Errorf("%s: no %q in %s", id, s, all)
			}
		}
	}
	usual := "client known; account chosen; request read; token; permit taken; attempt ended; answer passed on; request"
	id, _ := d.ask("GET", "/v2/company", "", key)
	expect(id, usual, `"by":"its key in X-Api-Key"`, `"by":"the client's only or default one"`, `"from":"memory"`, `"waited":"not at all"`,
		`"left":{"api/acme":"999 of 1000 per 1s"`, `"status":200`, `"urls_rewritten":`)
	id, _ = d.ask("GET", "/accounts/acme/v2/company", "")
	expect(id, usual, `"by":"its address","authorization_replaced":false`, `"by":"the path"`, `api/acme/client/nightly`)
	id, _ = d.ask("GET", "/v2/company", "", "Authorization: Bearer "+mark+"-left-over")
	expect(id, usual, `"by":"its address","authorization_replaced":true`)
	id, _ = d.ask("GET", "/v2/company", "", "Authorization: Bearer "+mark+"-key", "X-Freeagent-Account: acme")
	expect(id, usual, `"by":"its key in Authorization"`, `"by":"X-FreeAgent-Account"`)
	standIn := refresh(t, ownOAuth(d.url, "billing", mark+"-key", 0))
	id, _ = d.ask("GET", "/v2/company", "", "Authorization: Bearer "+standIn.AccessToken)
	expect(id, usual, `"by":"a stand-in token of ours"`)
	contact := fmt.Sprintf(`{"contact":{"organisation_name":"Marks","url":"%s/v2/contacts/1"}}`, d.url)
	id, _ = d.ask("POST", "/v2/contacts", contact, key, "Idempotency-Key: "+mark+"-1", "Content-Type: application/json")
	expect(id, strings.Replace(usual, "token;", "idempotency key; token;", 1), `"urls_rewritten":1`, `new, so the request is sent`)
	id, _ = d.ask("POST", "/v2/contacts", contact, key, "Idempotency-Key: "+mark+"-1", "Content-Type: application/json")
	expect(id, "client known; account chosen; request read; idempotency key; request", `the answer that was kept is given again`)
	id, _ = d.ask("POST", "/v2/invoices", "{}", key, "Content-Type: application/json")
	if _, all := d.decisions(id); !strings.Contains(all, `"msg":"turn taken","write":"POST /v2/invoices"`) {
		t.Errorf("no turn: %s", all)
	}
	d.sim.RevokeAccess("owner")
	time.Sleep(5 * time.Second) // a younger token is not taken for ended
	id, _ = d.ask("GET", "/v2/company", "", key)
	expect(id, strings.Replace(usual, "attempt ended;", "attempt ended; sent again; token; permit taken; attempt ended;", 1),
		`"status":401`, "FreeAgent refused the token, and there is another one", `"status":200`)
	if _, err := d.sim.Fault(simulator.Fault{Kind: simulator.FaultDrop, Match: simulator.Match{Times: 1}}); err != nil {
		t.Fatal(err)
	}
	id, _ = d.ask("GET", "/v2/company", "", key)
	expect(id, strings.Replace(usual, "attempt ended;", "attempt ended; sent again; token; permit taken; attempt ended;", 1),
		`"error":"`, "the connection failed")
	id, _ = d.ask("POST", "/v2/company", "", key, "Sec-Fetch-Site: cross-site")
	expect(id, "request")
}

// Whatever holds a secret, in whatever a request goes through, none is in the log at level debug, in either format: see complaints.
func TestDebugShowsNoSecret(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "console"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			d := newDebugged(t, format)
			seen := d.matrix()
			if _, err := d.proxy.await(&d.proxy.stderr, fmt.Sprintf("request-%d\\b", d.n)); err != nil {
				t.Fatal(err)
			}
			log := d.proxy.stderr.String()
			for _, want := range []int{200, 201, 401, 403, 404, 421, 502} {
				if !seen[want] {
					t.Errorf("no answer %d among %v: the matrix is not what it was made for", want, seen)
				}
			}
			if !regexp.MustCompile(`(?i)debug`).MatchString(log) || strings.Contains(log, "fapt_") || strings.Contains(log, hexDigest(mark+"-key")) {
				t.Errorf("no decision, or a stand-in, or a digest in the log: %s", log)
			}
		})
	}
}

// matrix sends secrets in all places, while FreeAgent does all that it may do.
func (d *debugged) matrix() (seen map[int]bool) {
	d.t.Helper()
	key := mark + "-key"
	standIn := refresh(d.t, ownOAuth(d.url, "billing", key, 0)).AccessToken
	places := [][]string{
		{"X-Api-Key: " + key}, {"X-Api-Key: " + mark + "-wrong"}, {"Authorization: Bearer " + key}, {"Authorization: Bearer " + mark + "-wrong"},
		{"Authorization: Bearer " + standIn}, {"Authorization: Basic TUFSS0VEOk1BUktFRC1rZXk="}, {"Authorization: " + mark},
		{"Cookie: session=" + mark, "Referer: http://localhost/?t=" + mark, "User-Agent: " + mark, "Prefer: " + mark, "X-Custom: " + mark, "Accept: " + mark},
		{"X-Freeagent-Account: " + mark}, {"X-Subdomain: " + mark}, {"Origin: http://" + mark}, {"Host: " + mark}, {"Sec-Fetch-Site: " + mark},
		{"X-Forwarded-For: " + mark, "Forwarded: for=" + mark, "Via: " + mark, "X-Ratelimit-Test: " + mark, "If-None-Match: \"" + mark + "\""},
	}
	requests := [][3]string{
		{"GET", "/v2/company?secret=" + mark, ""},
		{"GET", "/v2/contacts%3Fsecret=" + mark, ""},
		{"GET", "/v2/contacts?a=" + d.url + "/v2/" + mark, ""},
		{"POST", "/v2/contacts?secret=" + mark, `{"contact":{"organisation_name":"` + mark + `","url":"` + d.url + `/v2/contacts/` + mark + `"}}`},
		{"POST", "/v2/token_endpoint?client_secret=" + mark, "grant_type=refresh_token&client_id=" + mark + "&client_secret=" + mark + "&refresh_token=" + mark},
		{"POST", "/v2/token_endpoint", `{"grant_type":"authorization_code","client_id":"billing","client_secret":"` + key + `","code":"` + mark + `"}`},
	}
	seen = map[int]bool{}
	all := func() {
		for _, place := range places {
			for i, r := range requests {
				headers := append([]string{"Content-Type: application/json", fmt.Sprintf("Idempotency-Key: %s-%d", mark, i)}, place...)
				_, status := d.ask(r[0], r[1], r[2], headers...)
				seen[status] = true
			}
		}
	}
	all()
	for _, fault := range []simulator.Fault{
		{Kind: simulator.FaultStatus, Status: http.StatusBadGateway}, {Kind: simulator.FaultDrop, After: true}, {Kind: simulator.FaultStatus, Status: http.StatusInternalServerError},
	} {
		fault.Match.PathPrefix = "/v2/co"
		if _, err := d.sim.Fault(fault); err != nil {
			d.t.Fatal(err)
		}
		places = places[:2]
		all()
		d.sim.ClearFaults()
	}
	d.sim.RevokeAll("owner")
	all()
	return seen
}

// What a package tells the global logger is a line at level debug, without what it quotes.
func TestStdLogIsNotQuoted(t *testing.T) {
	var out bytes.Buffer
	log, flush := newLogger(&out, LogConfig{Level: "debug", Format: "json"})
	restore := redirectStdLog(log.Logger)
	stdlog.Printf("Unsolicited response received on idle HTTP channel starting with %q; err=%v", "HTTP/1.1 200 OK\r\n\r\n"+mark, nil)
	restore()
	flush()
	if got := out.String(); strings.Contains(got, mark) || !strings.Contains(got, `"text":"Unsolicited response received on idle HTTP channel starting with (the rest is left out)"`) {
		t.Errorf("got %s", got)
	}
	if stdlog.Writer() == nil || stdlog.Flags() == 0 {
		t.Error("the global logger is not what it was")
	}
}
