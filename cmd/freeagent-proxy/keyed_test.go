package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
)

// keyedWorlds runs a test with each kind of store.
func keyedWorlds(t *testing.T, settings string, test func(t *testing.T, w *world)) {
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		w := newSimulated(t, simNoLimits, settings)
		w.authorise(w.sim.Authorize("owner"))
		test(t, w)
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		w := newShared(t, simNoLimits, "redis://"+redistest.Start(t).Addr(), settings)
		w.authorise(w.sim.Authorize("owner"))
		test(t, w)
	})
}

// reply is what a program got.
type reply struct {
	status   int
	replayed bool
	body     string
}

// create sends a keyed create; status 0: there was no answer.
func (w *world) create(client *http.Client, url, key string) reply {
	body := fmt.Sprintf(`{"contact":{"organisation_name":%q}}`, key)
	req, err := http.NewRequest("POST", url+"/v2/contacts", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	req.GetBody = nil // Go's client takes the key as leave to send it again by itself
	resp, err := client.Do(req)
	if err != nil {
		return reply{}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}
	}
	return reply{resp.StatusCode, resp.Header.Get("Idempotency-Replayed") == "true", string(text)}
}

// eventually sends a create again while it is said to run.
func (w *world) eventually(client *http.Client, url, key string) (got reply) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if got = w.create(client, url, key); got.status != 0 && !strings.Contains(got.body, "still running") && got.status != http.StatusServiceUnavailable {
			return got
		}
	}
	w.t.Fatalf("key %s: at last %+v", key, got)
	return got
}

func (w *world) fault(f simulator.Fault) {
	w.t.Helper()
	if _, err := w.sim.Fault(f); err != nil {
		w.t.Fatal(err)
	}
}

// acts expects how many writes FreeAgent carried out, none of them twice.
func (w *world) acts(want int64) {
	w.t.Helper()
	if got := w.sim.Stats().Writes; got.Acted != want || got.Duplicates != 0 || got.Repeated != 0 {
		w.t.Errorf("FreeAgent carried out %d writes, %d of them twice, and got %d more again; want %d, 0, 0; %v",
			got.Acted, got.Duplicates, got.Repeated, want, got.Examples)
	}
}

// A proxy that is killed while FreeAgent works on a write does not let it be sent again.
func TestKeyedKilledWhileSent(t *testing.T) {
	t.Parallel()
	keyedWorlds(t, noLimits, func(t *testing.T, w *world) {
		client := w.client(false)
		p, url := w.serve()
		done := w.create(client, url, "done")
		if done.status != 201 || done.replayed {
			t.Fatalf("first create: %+v", done)
		}
		w.fault(simulator.Fault{Kind: simulator.FaultStall, After: true, Match: simulator.Match{Method: "POST", Times: 1}})
		var sending sync.WaitGroup
		sending.Go(func() { w.create(client, url, "killed") })
		for deadline := time.Now().Add(patience); w.sim.Stats().Writes.Acted < 2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("FreeAgent was not asked")
			}
		}
		p.kill()
		sending.Wait()
		p, url = w.serve()
		for range 3 {
			if got := w.eventually(client, url, "killed"); got.status != 409 || !strings.Contains(got.body, "may have acted") {
				t.Errorf("after the kill: %+v", got)
			}
		}
		want := done
		want.replayed, want.body = true, sameURLs(done.body)
		got := w.create(client, url, "done")
		if got.body = sameURLs(got.body); got != want {
			t.Errorf("what was done: got %+v, want %+v", got, want)
		}
		if code, err := p.stop(syscall.SIGTERM); code != exitOK || err != nil {
			t.Errorf("exit code %d, %v", code, err)
		}
		_, url = w.serve()
		if got := w.create(client, url, "killed"); got.status != 409 {
			t.Errorf("after another restart: %+v", got)
		}
		w.acts(2)
	})
}

// sameURLs leaves the port out, which is another one for each process.
func sameURLs(body string) string {
	var b strings.Builder
	for i, part := range strings.Split(body, "http://127.0.0.1:") {
		if i > 0 {
			part = strings.TrimLeft(part, "0123456789")
		}
		b.WriteString(part)
	}
	return b.String()
}

// What waited for its turn when the proxy was killed was not sent, and its key is free.
func TestKeyedKilledWhileWaiting(t *testing.T) {
	t.Parallel()
	const oneAnHour = "limits: {api: [{requests: 1, per: 1h}], guard: 0s, max_wait: 1h}\n"
	keyedWorlds(t, oneAnHour, func(t *testing.T, w *world) {
		client := w.client(false)
		p, url := w.serve()
		if got := w.create(client, url, "before"); got.status != 201 {
			t.Fatalf("before: %+v", got)
		}
		sent := make(chan reply, 2)
		for range 2 { // one waits, and the other is told so
			go func() { sent <- w.create(client, url, "waits") }()
		}
		if got := <-sent; !strings.Contains(got.body, "still running") {
			t.Errorf("of two the second got %+v", got)
		}
		p.kill()
		<-sent
		path := filepath.Join(w.folder, "config.yaml")
		write(t, path, replaced(t, readText(t, path), map[string]string{oneAnHour: noLimits})) // or it would wait for the hour to pass
		_, url = w.serve()
		if got := w.eventually(client, url, "waits"); got.status != 201 {
			t.Errorf("after the kill: %+v", got)
		}
		w.acts(2)
	})
}

// A proxy with a folder is stopped and killed at random instants under keyed creates: each is carried out once, or its
// program is told that nobody knows; what it answered once it answers for ever.
func TestKeyedRestarts(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, strings.Replace(noLimits, "max_wait: 1m", "max_wait: 2s", 1))
	w.authorise(w.sim.Authorize("owner"))
	w.fault(simulator.Fault{Kind: simulator.FaultLatency, Delay: simulator.Duration(20 * time.Millisecond), Match: simulator.Match{PathPrefix: "/v2/contacts"}})
	client := w.client(true)
	const programs, rounds = 12, 6
	var running sync.WaitGroup
	over := make(chan struct{})
	created, unknown := make([]int, programs), make([]int, programs)
	for program := range programs {
		running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				key := fmt.Sprintf("program-%d-%d", program, i)
				got := w.insist(client, key)
				switch {
				case got.status == 201:
					created[program]++
				case got.status == 409:
					unknown[program]++
				default:
					t.Errorf("%s: %+v", key, got)
				}
			}
		})
	}
	for round := range rounds {
		p, _ := w.serve()
		time.Sleep(200*time.Millisecond + rand.N(300*time.Millisecond)) // any instant
		if round%2 == 0 {
			p.kill()
		} else if code, err := p.stop(syscall.SIGTERM); code != exitOK || err != nil {
			t.Errorf("exit code %d, %v", code, err)
		}
	}
	w.serve()
	close(over)
	running.Wait()
	sum := func(all []int) (n int64) {
		for _, one := range all {
			n += int64(one)
		}
		return n
	}
	stats := w.sim.Stats().Writes
	if stats.Duplicates != 0 || stats.Repeated != 0 || stats.Acted < sum(created) || stats.Acted > sum(created)+sum(unknown) || sum(created) < rounds {
		t.Errorf("%d created and %d unknown, as programs were told; FreeAgent acted %d times, %d of them twice, and got %d again: %v",
			sum(created), sum(unknown), stats.Acted, stats.Duplicates, stats.Repeated, stats.Examples)
	}
	if most := int64(programs * (rounds/2 + 1)); sum(unknown) > most {
		t.Errorf("%d unknown, more than %d that were at FreeAgent when it was killed", sum(unknown), most)
	}
}

// insist sends a create to the proxy's socket until its answer is final.
func (w *world) insist(client *http.Client, key string) (got reply) {
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		got = w.create(client, "http://localhost", key)
		if got.status == 201 || got.status == 409 && !strings.Contains(got.body, "still running") {
			return got
		}
	}
	return got
}

// Replicas agree: of one key that comes to all of them, again and again, one create is carried out.
func TestKeyedReplicas(t *testing.T) {
	t.Parallel()
	w := newShared(t, simNoLimits, "redis://"+redistest.Start(t).Addr(), noLimits)
	w.authorise(w.sim.Authorize("owner"))
	client := w.client(false)
	var urls []string
	for range 2 {
		_, url := w.serve()
		urls = append(urls, url)
	}
	const keys = 50
	var all sync.WaitGroup
	for i := range keys {
		for j := range 4 {
			all.Go(func() {
				if got := w.eventually(client, urls[j%2], fmt.Sprint("key-", i)); got.status != 201 {
					t.Errorf("key %d: %+v", i, got)
				}
			})
		}
	}
	all.Wait()
	w.acts(keys)
}

// Creates from clients that resend on every failure, through replicas that are killed in turn while FreeAgent fails: each
// is carried out once, or its client has been told that nobody knows.
func TestKeyedStorm(t *testing.T) {
	t.Parallel()
	w := newShared(t, simNoLimits, "redis://"+redistest.Start(t, redistest.Persistent()).Addr(), noLimits)
	w.authorise(w.sim.Authorize("owner"))
	for _, f := range []simulator.Fault{
		{Kind: simulator.FaultDrop}, {Kind: simulator.FaultDrop, After: true}, {Kind: simulator.FaultReset}, {Kind: simulator.FaultStatus, Status: 502, After: true},
	} {
		f.Match = simulator.Match{Method: "POST", PathPrefix: "/v2/contacts", Probability: 0.02}
		w.fault(f)
	}
	w.fault(simulator.Fault{Kind: simulator.FaultLatency, Delay: simulator.Duration(20 * time.Millisecond), Match: simulator.Match{PathPrefix: "/v2/contacts"}})
	s := &keyedStorm{world: w, client: w.client(false), members: make([]*replica, 3), outcomes: map[int]int{}}
	for i := range s.members {
		s.join(i)
	}
	const creates, programs = 1200, 40
	var all sync.WaitGroup
	for program := range programs {
		all.Go(func() {
			for i := program; i < creates; i += programs {
				s.insist(i)
			}
		})
	}
	over := make(chan struct{})
	go func() { all.Wait(); close(over) }()
	kills := 0
	for ended := false; !ended; {
		select {
		case <-over:
			ended = true
		case <-time.After(time.Second):
			if kills < len(s.members) { // each once: a new one needs seconds until it may send
				s.member(kills).leave()
				s.join(kills)
				kills++
			}
		}
	}
	if kills == 0 {
		t.Error("it was over before a replica was killed")
	}
	stats := w.sim.Stats().Writes
	t.Logf("%d kills; outcomes by status: %v; carried out: %d", kills, s.outcomes, stats.Acted)
	if stats.Duplicates != 0 || stats.DuplicateReferences != 0 {
		t.Errorf("%d writes were carried out twice: %v", stats.Duplicates, stats.Examples)
	}
	told := s.outcomes[201]
	if s.outcomes[201]+s.outcomes[409] != creates || stats.Acted < int64(told) {
		t.Errorf("outcomes %v of %d creates, %d carried out", s.outcomes, creates, stats.Acted)
	}
	if s.outcomes[409] > creates/4 {
		t.Errorf("%d outcomes are unknown, more than faults and kills explain", s.outcomes[409])
	}
}

type keyedStorm struct {
	*world
	client   *http.Client
	mu       sync.Mutex
	members  []*replica
	outcomes map[int]int // creates by the status of their last answer
}

func (s *keyedStorm) join(i int) {
	p, url := s.serve()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members[i] = &replica{process: p, url: url}
}

func (s *keyedStorm) member(i int) *replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.members[i]
}

// insist sends one create until its answer is final, each time to another replica.
func (s *keyedStorm) insist(i int) {
	key := fmt.Sprint("create-", i)
	for try, deadline := i, time.Now().Add(2*patience); time.Now().Before(deadline); try++ {
		got := s.create(s.client, s.member(try%3).url, key)
		final := got.status == 201 || got.status == 409 && !strings.Contains(got.body, "still running")
		if final {
			s.mu.Lock()
			s.outcomes[got.status]++
			s.mu.Unlock()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.t.Errorf("%s: no final answer", key)
}
