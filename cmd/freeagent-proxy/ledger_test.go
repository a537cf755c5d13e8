package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"freeagent-proxy/internal/simulator"
)

// ledger stands in front of a simulator with strict rotation. It writes down each rotation before its answer
// leaves, so that a test can tell what a refresh token found in a store is worth.
type ledger struct {
	sim    *simulator.Simulator
	server *httptest.Server

	mu        sync.Mutex
	newest    string            // the only refresh token that FreeAgent takes
	previous  string            // the one that was spent for it
	access    string            // the access token that came with it
	used      bool              // that access token has been seen
	rotations int               // since the beginning
	rotated   chan struct{}     // closed, and made anew, at each rotation
	open      map[net.Conn]bool // connections
}

func newLedger(t *testing.T, sim *simulator.Simulator) *ledger {
	l := &ledger{sim: sim, newest: sim.Authorize("owner"), rotated: make(chan struct{}), open: map[net.Conn]bool{}}
	l.server = httptest.NewUnstartedServer(l)
	l.server.Config.ConnState = l.connState
	l.server.Start()
	t.Cleanup(l.server.Close)
	return l
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v2/token_endpoint" {
		l.saw(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		l.sim.ServeHTTP(w, r)
		return
	}
	form, err := io.ReadAll(r.Body)
	if err != nil {
		return // who asked died in the middle of it
	}
	r.Body = io.NopCloser(bytes.NewReader(form))
	answer := httptest.NewRecorder()
	l.sim.ServeHTTP(answer, r)
	if answer.Code == http.StatusOK {
		l.write(form, answer.Body.Bytes())
	}
	for name, lines := range answer.Header() {
		w.Header()[name] = lines
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // who asked may be dead
}

// write enters a rotation.
func (l *ledger) write(form, answer []byte) {
	spent, err := url.ParseQuery(string(form))
	var issued struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
	}
	if err != nil || json.Unmarshal(answer, &issued) != nil {
		panic(fmt.Sprintf("the simulator answered %q with %q", form, answer))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newest, l.previous, l.access = issued.RefreshToken, spent.Get("refresh_token"), issued.AccessToken
	l.used = false
	l.rotations++
	close(l.rotated)
	l.rotated = make(chan struct{})
}

// saw notes that an API request came with an access token.
func (l *ledger) saw(access string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used = l.used || access == l.access
}

// authorize makes a new grant, as a person would.
func (l *ledger) authorize() (refreshToken string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newest, l.previous, l.access, l.used = l.sim.Authorize("owner"), "", "", false
	return l.newest
}

// rotation is how many there were, and a channel that the next one closes.
func (l *ledger) rotation() (n int, next <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rotations, l.rotated
}

// worth is what a refresh token is worth.
type worth string

const (
	newest worth = "the newest"
	// unanswered is a spent token whose successor nobody has been seen to have.
	unanswered worth = "spent; its successor was not seen in use"
	outdated   worth = "spent; its successor was in use"
	unknown    worth = "older, or none of ours"
)

func (l *ledger) worth(refreshToken string) worth {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case refreshToken == l.newest:
		return newest
	case refreshToken != l.previous:
		return unknown
	case l.used:
		return outdated
	default:
		return unanswered
	}
}

func (l *ledger) connState(conn net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateNew:
		l.open[conn] = true
	case http.StateClosed, http.StateHijacked:
		delete(l.open, conn)
	}
}

// settle waits until everything that a dead process has sent was acted upon.
func (l *ledger) settle(t *testing.T) {
	t.Helper()
	// Connections are accepted in their order: when this one is answered, all of the dead process's were.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(l.server.URL + "/_sim")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	eventually(t, "the end of the dead process's connections", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.open) == 0
	})
}
