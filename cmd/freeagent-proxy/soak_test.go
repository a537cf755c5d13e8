//go:build !race

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
)

const (
	soakCreates   = 10_000
	soakCompanies = 20 // in each of which one invoice at a time is created
	soakPrograms  = 120
	soakKills     = 6
)

// 10,000 invoices are created under keys by programs that resend on every failure, through three replicas that are killed in
// turn, with a Redis that is killed, while FreeAgent fails in all ways and numbers invoices by its race. Each is created
// once, or its program has been told that nobody knows; all are in FreeAgent's lists; no reference comes twice.
//
// It runs without the race detector, with which ten thousand creates take minutes: TestKeyedStorm is for that.
func TestTenThousandInvoices(t *testing.T) {
	t.Parallel()
	s := newSoak(t)
	began := time.Now()
	var all sync.WaitGroup
	for program := range soakPrograms {
		all.Go(func() {
			for i := program; i < soakCreates; i += soakPrograms {
				s.insist(i)
			}
		})
	}
	over := make(chan struct{})
	go func() { all.Wait(); close(over) }()
	kills := s.havoc(over)
	took := time.Since(began)
	if kills != soakKills {
		t.Errorf("%d kills, want %d", kills, soakKills)
	}
	s.settle()
	s.verify()
	stats := s.sim.Stats()
	t.Logf("%d creates in %s; %d kills, %d faults, %d sendings by programs, %d at FreeAgent; outcomes %v, of the unknown %d were created; %d replayed",
		soakCreates, took.Round(100*time.Millisecond), kills, stats.FaultsApplied, s.sendings.Load(), stats.Requests, s.statuses(), s.unknownCreated, s.replays.Load())
}

// soak is the world of that, and what its programs were told at last.
type soak struct {
	*world
	redis  *redistest.Server
	client *http.Client

	mu             sync.Mutex
	members        []*replica
	outcomes       map[int]told
	done           atomic.Int64
	sendings       atomic.Int64
	replays        atomic.Int64
	unknownCreated int
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	sim := simulator.New(simulator.Config{
		Enforcement: simulator.EnforceOff, RequestLog: 1,
		NumberingDelay: simulator.Duration(time.Millisecond), DuplicateReferences: true, UnknownReferences: true,
	})
	running, err := sim.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { running.Close() })
	s := &soak{world: newWorld(t, sim, running.URL(), ""), outcomes: map[int]told{}, members: make([]*replica, 3)}
	s.accounts = account + ": {app: main, practice: true}"
	// What was written survives Redis's death, but not the machine's; and no child of it rewrites the file beside it.
	s.redis = redistest.Start(t, redistest.Set("appendonly", "yes"), redistest.Set("auto-aof-rewrite-percentage", "0"))
	s.share(s.simURL+", timeout: 2s", s.redis, noLimits, map[string]string{account: "practice"})
	s.client = s.world.client(false)
	s.client.Timeout = 15 * time.Second
	for i := range s.members {
		s.join(i)
	}
	for _, f := range []simulator.Fault{
		{Kind: simulator.FaultDrop}, {Kind: simulator.FaultDrop, After: true}, {Kind: simulator.FaultReset},
		{Kind: simulator.FaultStatus, Status: 502, After: true}, {Kind: simulator.FaultStatus}, {Kind: simulator.FaultUnauthorized},
		{Kind: simulator.FaultStall, After: true}, {Kind: simulator.FaultRateLimited, RetryAfter: 1},
	} {
		f.Match = simulator.Match{Method: "POST", PathPrefix: "/v2/invoices", Probability: 0.003}
		switch f.Kind {
		case simulator.FaultStall:
			f.Match.Probability = 0.0005
		case simulator.FaultRateLimited, simulator.FaultUnauthorized: // which stop all of them for a while
			f.Match.Times = 2
		}
		s.fault(f)
	}
	return s
}

func (s *soak) join(i int) {
	s.t.Helper()
	p, url := s.serve()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members[i] = &replica{process: p, url: url}
}

func (s *soak) member(i int) *replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.members[i%len(s.members)]
}

// havoc kills the replicas in turn, each whenever another part of the creates is done, and Redis in the middle.
func (s *soak) havoc(over <-chan struct{}) (kills int) {
	s.t.Helper()
	for redisDied := false; ; {
		select {
		case <-over:
			return kills
		case <-time.After(50 * time.Millisecond):
		}
		done := int(s.done.Load())
		switch {
		case done > soakCreates/2 && !redisDied:
			redisDied = true
			s.redis.Restart()
		case done > (kills+1)*soakCreates/(soakKills+1) && kills < soakKills:
			s.member(kills).leave()
			s.join(kills % len(s.members))
			kills++
		}
	}
}

// insist sends one create until its answer is final, each time to another replica.
func (s *soak) insist(i int) {
	for try, deadline := i, time.Now().Add(4*patience); time.Now().Before(deadline); try++ {
		got := s.create(i, s.member(try).url)
		unknown := got.status == http.StatusConflict && got.retryAfter == ""
		if got.status == http.StatusCreated && !got.cut || unknown {
			s.mu.Lock()
			s.outcomes[i] = got
			s.mu.Unlock()
			s.done.Add(1)
			if got.replayed {
				s.replays.Add(1)
			}
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	s.t.Errorf("create %d: no final answer", i)
}

func markOf(i int) string { return fmt.Sprintf("create-%d", i) }

func (s *soak) create(i int, url string) told {
	s.sendings.Add(1)
	body := fmt.Sprintf(`{"invoice":{"contact":"/v2/contacts/1","dated_on":"2026-01-01","payment_terms_in_days":30,"comments":%q}}`, markOf(i))
	req, err := http.NewRequest("POST", url+"/v2/invoices", strings.NewReader(body))
	if err != nil {
		s.t.Error(err)
		return told{}
	}
	req.GetBody = nil // Go's client takes the key as leave to send it again by itself
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", markOf(i))
	req.Header.Set("X-Subdomain", company(i))
	resp, err := s.client.Do(req)
	if err != nil {
		return told{}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return told{status: resp.StatusCode, cut: err != nil, body: string(text),
		replayed: resp.Header.Get("Idempotency-Replayed") == "true", retryAfter: resp.Header.Get("Retry-After")}
}

func company(i int) string { return fmt.Sprint("client-", i%soakCompanies) }

func (s *soak) statuses() map[int]int {
	n := map[int]int{}
	for _, got := range s.outcomes {
		n[got.status]++
	}
	return n
}

// settle waits until nothing is at FreeAgent any more.
func (s *soak) settle() {
	s.t.Helper()
	eventually(s.t, "the end of what FreeAgent works on", func() bool { return s.sim.Stats().InFlight == 0 })
}

// created is an invoice, as FreeAgent's list and its answer to the create have it.
type createdInvoice struct{ URL, Reference, Comments string }

// verify compares what programs were told with what FreeAgent has.
func (s *soak) verify() {
	s.t.Helper()
	found := map[string]createdInvoice{}
	for c := range soakCompanies {
		references := map[int]bool{}
		for _, invoice := range s.list(company(c)) {
			if other, ok := found[invoice.Comments]; ok {
				s.t.Errorf("%s was created twice: %s and %s", invoice.Comments, other.URL, invoice.URL)
			}
			found[invoice.Comments] = invoice
			n, err := strconv.Atoi(invoice.Reference)
			if err != nil || references[n] {
				s.t.Errorf("%s: reference %q a second time", company(c), invoice.Reference)
			}
			references[n] = true
		}
		if most := slices.Max(slices.Collect(maps.Keys(references))); most != len(references) {
			s.t.Errorf("%s: %d invoices, numbered up to %d", company(c), len(references), most)
		}
	}
	for i := range soakCreates {
		got, there := s.outcomes[i], found[markOf(i)]
		delete(found, markOf(i))
		switch {
		case got.status == http.StatusConflict:
			if !strings.Contains(got.body, "may have acted") && !strings.Contains(got.body, "it will not be sent again") {
				s.t.Errorf("%s: %s", markOf(i), got.body)
			}
			if there.URL != "" {
				s.unknownCreated++
			}
		case got.status == http.StatusCreated:
			var answer struct{ Invoice createdInvoice }
			if err := json.Unmarshal([]byte(got.body), &answer); err != nil || answer.Invoice.Reference != there.Reference || there.URL == "" {
				s.t.Errorf("%s: answered %+v (%v), FreeAgent has %+v", markOf(i), answer.Invoice, err, there)
			}
		}
	}
	for _, invoice := range found {
		s.t.Errorf("nobody asked for %+v", invoice)
	}
	stats := s.sim.Stats().Writes
	if stats.Duplicates != 0 || stats.DuplicateReferences != 0 || stats.Repeated != 0 {
		s.t.Errorf("%d duplicates, %d sent again, %d duplicate references: %v", stats.Duplicates, stats.Repeated, stats.DuplicateReferences, stats.Examples)
	}
	if unknown := s.statuses()[http.StatusConflict]; unknown > soakCreates/10 {
		s.t.Errorf("%d outcomes are unknown, more than faults and kills explain", unknown)
	}
}

// list is a company's invoices, as FreeAgent itself tells them.
func (s *soak) list(company string) (all []createdInvoice) {
	s.t.Helper()
	token := s.sim.AccessToken("practice")
	for page := 1; ; page++ {
		r, answer := httptest.NewRequest("GET", fmt.Sprintf("/v2/invoices?per_page=100&page=%d", page), nil), httptest.NewRecorder()
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("X-Subdomain", company)
		s.sim.ServeHTTP(answer, r)
		var got struct{ Invoices []createdInvoice }
		if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil {
			s.t.Fatalf("%v: %s", err, answer.Body)
		}
		if len(got.Invoices) == 0 {
			return all
		}
		all = append(all, got.Invoices...)
	}
}
