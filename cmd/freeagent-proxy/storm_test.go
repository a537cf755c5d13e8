package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

const (
	// crowd is how many requests meet a revoked token at once; every other one is a POST.
	crowd = 500
	// largest is the largest body: FreeAgent takes attachments of 5 MB, in base64.
	largest = 6 << 20
)

// storm is a crowd of requests through one proxy.
type storm struct {
	*world
	url    string
	client *http.Client
	tokens *barrier // holds back new tokens
	random []byte   // what bodies are cut from: 500 MB of them share it
}

// newStorm starts a proxy with a good access token, which is then revoked. A new one comes when the test lets it.
func newStorm(t *testing.T) *storm {
	t.Helper()
	w := newSimulated(t, simNoLimits, noLimits)
	w.authorise(w.sim.Authorize("owner"))
	s := &storm{world: w, client: w.client(false), tokens: w.bar("/v2/token_endpoint"), random: make([]byte, largest+crowd)}
	_, s.url = w.serve()
	var seed [32]byte
	_, _ = rand.NewChaCha8(seed).Read(s.random) // never fails
	if err := s.send(context.Background(), 0); err != nil {
		t.Fatal("before the storm: ", err)
	}
	return s
}

// body is what request n carries, nil for a GET: no two are the same.
func (s *storm) body(n int) []byte {
	if n%2 == 0 {
		return nil
	}
	return s.random[n:][:largest>>(n%14)]
}

// echoed is what the simulator says of a request.
type echoed struct {
	Echo struct {
		Method string
		SHA256 string `json:"body_sha256"`
	}
}

// send sends request n and compares what arrived.
func (s *storm) send(ctx context.Context, n int) error {
	method, body := http.MethodGet, s.body(n)
	if body != nil {
		method = http.MethodPost
	}
	status, answer, err := s.call(ctx, method, fmt.Sprintf("/v2/_sim_echo?n=%d", n), body)
	if err != nil {
		return fmt.Errorf("request %d: %w", n, err)
	}
	var got echoed
	if err := json.Unmarshal(answer, &got); err != nil || status != http.StatusOK {
		return fmt.Errorf("request %d: status %d: %s", n, status, answer)
	}
	if want := sum(body); got.Echo.SHA256 != want || got.Echo.Method != method {
		return fmt.Errorf("request %d: %s with SHA-256 %s arrived, want %s with %s", n, got.Echo.Method, got.Echo.SHA256, method, want)
	}
	return nil
}

func (s *storm) call(ctx context.Context, method, target string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url+target, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

func sum(body []byte) string {
	digest := sha256.Sum256(body)
	return hex.EncodeToString(digest[:])
}

// most waits until half of the crowd has met the revoked token, and then lets a new one come. It had its answer then, or waits for it.
func (s *storm) most(before simulator.Stats) {
	s.t.Helper()
	defer s.tokens.let()
	eventually(s.t, "those who meet the revoked token", func() bool { return s.sim.Stats().Unauthorized >= before.Unauthorized+crowd/2 })
}

// all sends the requests from first on at once and waits for their answers.
func (s *storm) all(first int) {
	s.t.Helper()
	var sending sync.WaitGroup
	for n := first; n < crowd; n++ {
		sending.Go(func() {
			if err := s.send(context.Background(), n); err != nil {
				s.t.Error(err)
			}
		})
	}
	sending.Wait()
}

// checkBodies compares every body that arrived, also those that a 401 answered.
func (s *storm) checkBodies() {
	s.t.Helper()
	rejected := 0
	for _, r := range s.arrivals() {
		var n int
		if _, err := fmt.Sscanf(r.Target, "/v2/_sim_echo?n=%d", &n); err != nil {
			continue
		}
		if want := sum(s.body(n)); r.BodySHA256 != want {
			s.t.Errorf("request %d arrived with SHA-256 %s (%d bytes) and got %d; want %s", n, r.BodySHA256, r.BodyBytes, r.Status, want)
		}
		if r.Status == http.StatusUnauthorized {
			rejected++
		}
	}
	if rejected < crowd/2 {
		s.t.Errorf("%d requests met the revoked token; this test wants most of %d", rejected, crowd)
	}
}

// refreshes expects that many token requests since before, none with a spent token.
func (s *storm) refreshes(before simulator.Stats, most int64) {
	s.t.Helper()
	after := s.sim.Stats().Tokens
	if n := after.RefreshRequests - before.Tokens.RefreshRequests; n < 1 || n > most {
		s.t.Errorf("%d refreshes, want 1 to %d", n, most)
	}
	if after.SpentTokens != 0 || after.Refused != 0 {
		s.t.Errorf("%d spent refresh tokens were sent, %d refused; want none", after.SpentTokens, after.Refused)
	}
}

func (s *storm) fault(f simulator.Fault) {
	s.t.Helper()
	if _, err := s.sim.Fault(f); err != nil {
		s.t.Fatal(err)
	}
}

func TestStorm(t *testing.T) {
	s := newStorm(t)
	before := s.sim.Stats()
	s.sim.RevokeAccess("owner")
	defer inBackground(func() { s.most(before) }).Wait()
	s.all(0)
	s.refreshes(before, 1)
	s.checkBodies()
}

func TestStormWithSlowTokenEndpoint(t *testing.T) {
	s := newStorm(t)
	before := s.sim.Stats()
	s.sim.RevokeAccess("owner")
	s.fault(simulator.Fault{
		Kind: simulator.FaultLatency, Delay: simulator.Duration(5 * time.Second),
		Match: simulator.Match{PathPrefix: "/v2/token_endpoint"},
	})
	defer inBackground(func() { s.most(before) }).Wait()
	s.all(0)
	s.refreshes(before, 1)
	s.checkBodies()
}

// The first request's client hangs up while the refresh that it caused is under way.
func TestStormWhoseLeaderHangsUp(t *testing.T) {
	s := newStorm(t)
	before := s.sim.Stats()
	s.sim.RevokeAccess("owner")
	leader, hangUp := context.WithCancel(context.Background())
	defer hangUp()
	led := make(chan error, 1)
	go func() { led <- s.send(leader, 0) }()
	eventually(t, "the leader's refresh", func() bool {
		return s.sim.Stats().Tokens.RefreshRequests > before.Tokens.RefreshRequests
	})
	others := make(chan struct{})
	go func() {
		s.all(1)
		close(others)
	}()
	defer func() { <-others }()
	eventually(t, "others who wait for the refresh", func() bool {
		return s.sim.Stats().Unauthorized > before.Unauthorized+10
	})
	hangUp()
	s.most(before)
	<-others
	if err := <-led; !errors.Is(err, context.Canceled) {
		t.Errorf("the leader: got %v, want that it hung up", err)
	}
	s.refreshes(before, 1)
	s.checkBodies()
}

// A resource that always answers 401 is polled before, during and after the storm. It gets
// its 401s, and costs two refreshes a minute at most.
func TestStormBesideStubbornResource(t *testing.T) {
	s := newStorm(t)
	cfg := s.sim.Config()
	cfg.AlwaysUnauthorized = []string{"/v2/bank_feeds"}
	if err := s.sim.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	before := s.sim.Stats()
	s.tokens.let()
	polls := make(chan struct{}, 100) // one for each answer
	stop := make(chan struct{})
	var polling sync.WaitGroup
	polling.Go(func() {
		for {
			status, answer, err := s.call(context.Background(), http.MethodGet, "/v2/bank_feeds", nil)
			if err != nil || status != http.StatusUnauthorized || !strings.Contains(string(answer), "Access token not recognised") {
				t.Errorf("the stubborn resource: %v, status %d: %s; want FreeAgent's 401", err, status, answer)
			}
			polls <- struct{}{}
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
		}
	})
	for range 3 {
		<-polls
	}
	s.tokens.shut()
	s.sim.RevokeAccess("owner")
	defer inBackground(func() { s.most(before) }).Wait()
	s.all(0)
	close(stop)
	polling.Wait()
	s.refreshes(before, 1+2)
	s.checkBodies()
}

// eventually waits until something has come about.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: does not come", what)
		}
	}
}
