package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/tokens"
)

// kills is how often the proxy is killed.
const kills = 200

// slaughter kills proxies that share a store folder, under load.
type slaughter struct {
	*world
	ledger *ledger
	client *http.Client
	lost   int // rounds whose newest tokens nobody could have stored
	served int // answers to the load
	mu     sync.Mutex
}

// A proxy is killed at random instants, with access tokens that live a second and refresh tokens that die when they are
// used. What was stored must bring the next process up. The only loss that nobody can avoid is this: FreeAgent
// had rotated, and the proxy died before it had the answer on disk. It had, if a request was seen with the new access token.
func TestSIGKILL(t *testing.T) {
	t.Parallel()
	switches := simNoLimits
	switches.AccessTokenLifetime = simulator.Duration(time.Second)
	switches.NoGzip = true // the ledger reads along
	sim := simulator.New(switches)
	// FreeAgent takes its time on both sides of the rotation, so that it is hit.
	for _, after := range []bool{false, true} {
		if _, err := sim.Fault(simulator.Fault{
			Kind: simulator.FaultLatency, Delay: simulator.Duration(10 * time.Millisecond), After: after,
			Match: simulator.Match{PathPrefix: "/v2/token_endpoint"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	l := newLedger(t, sim)
	w := newWorld(t, sim, l.server.URL, noLimits)
	s := &slaughter{world: w, ledger: l, client: w.client(true)}
	w.authorise(l.newest)
	stop := s.load()
	defer stop()
	for round := range kills {
		if err := s.round(round); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	s.verify()
	stop()
	rotations, _ := l.rotation()
	t.Logf("%d kills, %d rotations, %d answers; %d rounds lost to the window that cannot be closed", kills, rotations, s.served, s.lost)
}

// round is the life of one process, and what it left.
func (s *slaughter) round(n int) error {
	p := s.start("serve")
	switch n % 4 {
	case 0: // while it starts, and wakes up with an access token that may have ended
		time.Sleep(rand.N(400 * time.Millisecond))
	case 1: // while the newest tokens come and are stored
		before, rotated := s.ledger.rotation()
		if err := s.awaitAnswer(p); err != nil {
			return err
		}
		if now, _ := s.ledger.rotation(); now == before {
			<-rotated
		}
		time.Sleep(rand.N(15 * time.Millisecond))
	default: // while it works
		if err := s.awaitAnswer(p); err != nil {
			return err
		}
		time.Sleep(rand.N(250 * time.Millisecond))
	}
	p.kill()
	s.ledger.settle(s.t)
	return s.inspect()
}

// inspect judges what a dead process has left in the store.
func (s *slaughter) inspect() error {
	store, err := tokens.OpenFile(tokens.FileConfig{Dir: filepath.Join(s.folder, "store"), ReadOnly: true})
	if err != nil {
		return err
	}
	defer store.Close()
	grant, err := store.Load(context.Background(), account)
	if err != nil {
		return err
	}
	switch stored := s.ledger.worth(grant.RefreshToken); stored {
	case newest:
		return nil
	case unanswered:
		s.lost++
		s.authorise(s.ledger.authorize())
		return nil
	default:
		return fmt.Errorf("the stored refresh token is %s", stored)
	}
}

// verify expects that no process ever sent a refresh token that was spent.
func (s *slaughter) verify() {
	p := s.start("serve")
	if err := s.awaitAnswer(p); err != nil {
		s.t.Fatal("at last: ", err)
	}
	stats := s.sim.Stats().Tokens
	if stats.SpentTokens != 0 || stats.Refused != 0 {
		s.t.Errorf("%d spent refresh tokens were sent, %d refused; want none", stats.SpentTokens, stats.Refused)
	}
}

// awaitAnswer waits until the process serves a request.
func (s *slaughter) awaitAnswer(p *process) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		served, err := s.ask()
		if served || err != nil {
			return err
		}
		select {
		case <-p.ended:
			return fmt.Errorf("the next process ended by itself: %s", &p.stderr)
		default:
		}
	}
	return fmt.Errorf("the next process does not serve: %s", &p.stderr)
}

// ask makes one request. An answer that is not FreeAgent's is an error; none at all is not: nobody may be there.
func (s *slaughter) ask() (served bool, err error) {
	resp, err := s.client.Get("http://localhost/v2/_sim_echo")
	if err != nil {
		return false, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return err == nil, nil
}

// load makes requests from several clients until stop is called.
func (s *slaughter) load() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var loading sync.WaitGroup
	for range 4 {
		loading.Go(func() {
			for ctx.Err() == nil {
				served, err := s.ask()
				if err != nil {
					s.t.Errorf("a client got %v", err)
					return
				}
				if !served {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				s.mu.Lock()
				s.served++
				s.mu.Unlock()
			}
		})
	}
	return func() {
		cancel()
		loading.Wait()
	}
}
