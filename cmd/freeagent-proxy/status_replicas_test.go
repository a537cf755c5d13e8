package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/admin"
	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
)

// Three replicas, and one that comes later, say the same of budgets, which is what FreeAgent has counted. Who waits is each
// one's own.
func TestStatusOfReplicas(t *testing.T) {
	t.Parallel()
	w := newShared(t, simulator.Config{Enforcement: simulator.EnforceOff}, "redis://"+redistest.Start(t).Addr(),
		"limits: {api: [{requests: 1000, per: 5m}], max_wait: 4m}\n"+twoClients())
	w.skew() // their times are compared
	w.authorise(w.sim.Authorize("owner"))
	var all []*observed
	for range 3 {
		all = append(all, newObserved(w))
	}
	alive := func(n int) {
		t.Helper()
		for i, s := range all {
			eventually(t, fmt.Sprintf("replica %d sees %d", i, n), func() bool {
				now, _ := s.look()
				return now.Store == admin.Store{Kind: "redis", Up: true, State: "linked", Replicas: n}
			})
		}
	}
	// agree waits until all of them tell that of the account, and of who used the address's budget.
	agree := func(what, want string) {
		t.Helper()
		for i, s := range all {
			got := ""
			for deadline := time.Now().Add(patience); got != want && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
				w := s.of(account).Windows[0] // what is allowed grows back as we look
				got = fmt.Sprintf("%d of %d left, %v", w.Remaining, w.Requests, w.UsedBy)
			}
			if got != want {
				t.Errorf("%s: replica %d says %s, want %s", what, i, got, want)
			}
		}
	}
	alive(3)
	for i, s := range all {
		s.visit()
		eventually(t, fmt.Sprintf("replica %d knows the company's name", i), func() bool { return s.of(account).Company == "Owner Ltd" })
	}
	all[0].ask(t.Context(), 10, "billing", "/v2/contacts")
	all[1].ask(t.Context(), 7, "nightly", "/v2/contacts")
	all[2].ask(t.Context(), 3, "billing", "/v2/contacts")
	agree("used", "977 of 1000 left, map[billing:13 freeagent-proxy:3 nightly:7]")
	if n := len(w.arrivals()); n != 23 {
		t.Errorf("FreeAgent has counted %d, want 23", n)
	}

	if _, err := w.sim.Fault(simulator.Fault{Match: simulator.Match{PathPrefix: "/v2/projects"}, Kind: simulator.FaultRateLimited, RetryAfter: 200}); err != nil {
		t.Fatal(err)
	}
	if got := all[1].ask(t.Context(), 1, "nightly", "/v2/projects", "Prefer: wait=100"); got != http.StatusTooManyRequests {
		t.Errorf("status %d, want FreeAgent's 429", got)
	}
	agree("paused", "0 of 1000 left, map[billing:13 freeagent-proxy:3 nightly:8]")
	ctx, stop := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer stop()
	waiting.Go(func() { all[2].ask(ctx, 1, "billing", "/v2/contacts") })
	eventually(t, "one waits at the third", func() bool { return all[2].of(account).Queue == 1 })
	first := *all[0].of(account).PausedUntil
	saysSo := func(t *testing.T, who string, s *observed) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s is paused until %s, as the first one is", who, first), func() bool { // to say it takes its time, too
			until := s.of(account).PausedUntil
			return until != nil && until.Sub(first).Abs() <= 500*time.Millisecond
		})
	}
	for i, s := range all {
		saysSo(t, fmt.Sprint("replica ", i), s)
		a := s.of(account)
		if allowed := a.Windows[0].Allowed; allowed < 200 || allowed > 400 { // a fifth is ours at least
			t.Errorf("replica %d says that %d are ours, want little more than 200", i, allowed)
		}
		if want := i / 2; a.Queue != want {
			t.Errorf("replica %d has %d that wait, want %d", i, a.Queue, want)
		}
	}
	late := newObserved(w)
	all = append(all, late)
	alive(4)
	all = all[3:]
	agree("the one that came late", "0 of 1000 left, map[unknown:24]")
	saysSo(t, "the one that came late", late)
}
