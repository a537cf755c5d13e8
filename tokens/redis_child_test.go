package tokens_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/tokens"
)

// childLease is how long a lock outlives its holder's last sign of life here. It gives one each third of that, or late on a busy machine.
const childLease = 1500 * time.Millisecond

// childReplica is what the test binary does as another replica: it renews the token that is stored, prints what it got, and
// goes on until it is killed. call is as RedisConfig.Call.
func childReplica(redisAddr, endpoint, key string, call time.Duration) error {
	parsed, err := tokens.ParseKey("test", key)
	if err != nil {
		return err
	}
	base, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	store, err := tokens.NewRedis(tokens.RedisConfig{
		Client: redis.NewClient(&redis.Options{Addr: redisAddr, ContextTimeoutEnabled: true}),
		Keys:   []tokens.Key{parsed}, Lease: childLease, Call: call,
	})
	if err != nil {
		return err
	}
	m := tokens.New(tokens.Config{
		Store:    store,
		Endpoint: tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: base, Timeout: call}),
		App:      func(string) (tokens.App, bool) { return app, true },
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go store.Watch(ctx, m.Changed)
	old, err := m.Token(ctx, account)
	if err != nil {
		return err
	}
	got, err := m.Renew(ctx, attempt("/", old))
	if err != nil {
		return err
	}
	fmt.Println(got.Authorization())
	<-ctx.Done()
	return nil
}

// pair is a replica in another process, which refreshes, and one in this.
type pair struct {
	*replica
	sim    *simulator.Simulator
	server *redistest.Server
	old    tokens.Token
	cmd    *exec.Cmd
	lines  *bufio.Scanner
}

// startPair starts both, and returns when the child's refresh request has arrived, whole. faults must begin with a latency.
func startPair(t *testing.T, call time.Duration, faults ...simulator.Fault) *pair {
	t.Helper()
	p := &pair{sim: simulator.New(simulator.Config{}), server: redistest.Start(t)}
	web, err := p.sim.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = web.Close() })
	for _, f := range faults {
		if _, err := p.sim.Fault(f); err != nil {
			t.Fatal(err)
		}
	}
	base, _ := url.Parse(web.URL())
	endpoint := tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: base, Timeout: call})
	p.replica = newReplica(t, newFreeAgent(), endpoint, p.server, func(c *tokens.RedisConfig) { c.Lease, c.Call = childLease, call })
	save(t, p.redis, aged(p.sim.Authorize("")), 0)
	p.old = p.token()

	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), "TOKENS_TEST_CHILD=replica", "TOKENS_TEST_REDIS="+p.server.Addr(),
		"TOKENS_TEST_ENDPOINT="+web.URL(), "TOKENS_TEST_KEY="+redisKey, "TOKENS_TEST_CALL="+call.String())
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	p.lines = bufio.NewScanner(out)
	eventually(t, "refreshing", func() bool { // the headers alone spend nothing
		requests := p.sim.Requests(0)
		return len(requests) == 1 && requests[0].Fault != ""
	})
	return p
}

func (p *pair) signal(signal syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
}

// owner is who has the lock.
func (p *pair) owner() string {
	return p.server.Client(p.t).Get(p.t.Context(), "fap:v1:{acme}:lock").Val()
}

// renewing renews here, in the background.
func (p *pair) renewing() <-chan string {
	got := make(chan string, 1)
	go func() {
		token, err := p.renewWithin(30*time.Second, "/", p.old)
		if err != nil {
			p.t.Errorf("Renew: %v", err)
		}
		got <- token.Authorization()
	}()
	return got
}

// childGot is what the child's renewal brought.
func (p *pair) childGot() string {
	p.t.Helper()
	if !p.lines.Scan() {
		p.t.Fatal("the child ended")
	}
	return p.lines.Text()
}

// counts expects so many refreshes at the simulator, and so many tokens that were spent twice.
func (p *pair) counts(refreshes, spent int64) {
	p.t.Helper()
	if got := p.sim.Stats().Tokens; got.Refreshes != refreshes || got.SpentTokens != spent {
		p.t.Errorf("%d refreshes, %d tokens spent twice; want %d, %d", got.Refreshes, got.SpentTokens, refreshes, spent)
	}
}

func latency(d time.Duration) simulator.Fault {
	return simulator.Fault{Kind: simulator.FaultLatency, Delay: simulator.Duration(d), Match: simulator.Match{Times: 1}}
}

// The holder is halted while its request is on its way, for longer than its lock lives: another has the lock by then, but
// does not spend what may be spent already, and gets the new pair when the holder goes on.
func TestHolderHaltedLongerThanItsLock(t *testing.T) {
	t.Parallel()
	p := startPair(t, 6*time.Second, latency(3*time.Second))
	owner := p.owner()
	p.signal(syscall.SIGSTOP)
	got := p.renewing()
	eventually(t, "taken over", func() bool { now := p.owner(); return now != "" && now != owner })
	eventually(t, "answered", func() bool { return p.sim.Stats().InFlight == 0 })
	p.counts(1, 0)
	p.signal(syscall.SIGCONT)
	if child, here := p.childGot(), <-got; child != here || child == "" {
		t.Error("they have different tokens")
	}
	p.counts(1, 0)
}

// It is halted for even longer, until nobody can know that it lives. The other tries then, in vain; yet the pair that the
// holder brings at last, whose answer lay ready all the time, is not lost.
func TestHolderHaltedLongerThanItsCall(t *testing.T) {
	t.Parallel()
	p := startPair(t, 4*time.Second, latency(2*time.Second))
	p.signal(syscall.SIGSTOP)
	if _, err := p.renewWithin(20*time.Second, "/", p.old); !errors.Is(err, tokens.ErrReauthorize) {
		t.Errorf("Renew: %v, want ErrReauthorize", err)
	}
	p.counts(1, 1)
	p.signal(syscall.SIGCONT)
	child := p.childGot()
	eventually(t, "adopted", func() bool {
		token, ok := p.TokenNow(account)
		return ok && token.Authorization() == child
	})
	if n := p.sim.Stats().Tokens.Refreshes; n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
	p.state(tokens.StateOK)
}

// The holder is killed before FreeAgent acted: another spends the token, once it is sure.
func TestHolderKilled(t *testing.T) {
	t.Parallel()
	drop := simulator.Fault{Kind: simulator.FaultDrop, Match: simulator.Match{Times: 1}}
	p := startPair(t, 3*time.Second, latency(2*time.Second), drop)
	began := time.Now()
	p.signal(syscall.SIGKILL)
	if got := <-p.renewing(); got == "" {
		t.Error("no token")
	}
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("spent %v after the kill, while an answer could come", took)
	}
	p.counts(1, 0)
}

// An endpoint that is slower than the lock's lease costs nobody anything.
func TestEndpointSlowerThanTheLock(t *testing.T) {
	t.Parallel()
	p := startPair(t, 8*time.Second, latency(4*time.Second))
	owner := p.owner()
	got := p.renewing()
	eventually(t, "answered", func() bool {
		now := p.owner()
		if now != "" && now != owner && p.sim.Stats().InFlight == 1 {
			t.Error("another took the lock of a holder that lives")
		}
		return p.sim.Stats().InFlight == 0
	})
	if child, here := p.childGot(), <-got; child != here || child == "" {
		t.Error("they have different tokens")
	}
	p.counts(1, 0)
}
