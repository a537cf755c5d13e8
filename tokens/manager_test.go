package tokens_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

func TestTokenComesFromMemory(t *testing.T) {
	r := newRig(t)
	first := r.inUse()
	if got, ok := r.TokenNow(account); !ok || got != first {
		t.Errorf("TokenNow = %v, %v; want the token that Import brought", got, ok)
	}
	if got := r.token(); got != first {
		t.Error("Token is another than before")
	}
	if got, want := first.Authorization(), "Bearer "+secret+"-access-2="; got != want {
		t.Errorf("Authorization = %q, want %q", got, want)
	}
	r.refreshes(1)
	if got := testing.AllocsPerRun(100, func() { _, _ = r.Token(context.Background(), account) }); got != 0 {
		t.Errorf("Token allocates %v times, want never", got)
	}
}

func TestUnknownAccount(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	_, tokenErr := r.Token(ctx, "unknown")
	_, renewErr := r.Renew(ctx, tokens.Attempt{Account: "unknown"})
	for what, err := range map[string]error{
		"Token": tokenErr, "Renew": renewErr,
		"Import": r.Import(ctx, "unknown", "x"), "Seed": r.Seed(ctx, "unknown", "x"), "Start": r.Start(ctx, []string{"unknown"}),
	} {
		if !errors.Is(err, tokens.ErrUnknownAccount) {
			t.Errorf("%s: %v, want ErrUnknownAccount", what, err)
		}
	}
	if _, ok := r.TokenNow("unknown"); ok {
		t.Error("TokenNow has a token for an unknown account")
	}
	r.Accepted(tokens.Attempt{Account: "unknown"})
	if got := r.Status("unknown"); got.State != tokens.StateUnauthorised || !strings.Contains(got.Reason, "not configured") {
		t.Errorf("Status = %+v", got)
	}
}

// An account that left the configuration gets an error at once, not a wait.
func TestAccountThatIsUnknownByNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := true
		r := newRig(t, func(c *tokens.Config) {
			c.App = func(string) (tokens.App, bool) { return app, known }
		})
		r.authorised()
		known = false
		sleep(time.Hour)
		if _, err := r.tokenWithin(time.Minute); !errors.Is(err, tokens.ErrUnknownAccount) {
			t.Errorf("Token: %v, want ErrUnknownAccount", err)
		}
	})
}

func TestOneRefreshForAll(t *testing.T) {
	agent := newFreeAgent()
	r := newRigOn(t, agent, newMemory(), agent.listen(t, 0))
	ctx := context.Background()
	if err := r.Put(ctx, tokens.Grant{Account: account, RefreshToken: agent.grant()}); err != nil {
		t.Fatal(err)
	}
	first := gather(t, 500, func() (tokens.Token, error) { return r.Token(ctx, account) })
	r.refreshes(1)

	// A token that is old enough, by its own account, is renewed once however many saw it rejected.
	g := r.stored()
	g.ObtainedAt = g.ObtainedAt.Add(-time.Minute)
	if err := r.Put(ctx, g); err != nil {
		t.Fatal(err)
	}
	second := gather(t, 500, func() (tokens.Token, error) {
		return r.Renew(ctx, attempt("GET /v2/company", first))
	})
	if first == second {
		t.Error("Renew returned the rejected token")
	}
	r.refreshes(2)

	third := gather(t, 500, func() (tokens.Token, error) { // only re-reads
		return r.Renew(ctx, attempt("GET /v2/company", first))
	})
	if third != second {
		t.Error("Renew of a token that is not the current one did not return the current one")
	}
	r.refreshes(2)
}

// gather calls f from n goroutines at once and expects one token from all of them.
func gather(t *testing.T, n int, f func() (tokens.Token, error)) tokens.Token {
	t.Helper()
	got := make([]tokens.Token, n)
	errs := make([]error, n)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-begin
			got[i], errs[i] = f()
		})
	}
	close(begin)
	wg.Wait()
	for i := range n {
		if errs[i] != nil || got[i] != got[0] {
			t.Fatalf("goroutine %d: %v %v; the first got %v", i, got[i], errs[i], got[0])
		}
	}
	return got[0]
}

// The one whose request began the refresh leaves; the refresh goes on, and the pair is kept.
func TestLeaderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.then(late(5*time.Second, r.agent.refresh))
		ctx, leave := context.WithCancel(context.Background())
		left := make(chan error)
		go func() {
			_, err := r.Token(ctx, account)
			left <- err
		}()
		sleep(time.Second)
		follower := make(chan tokens.Token)
		go func() { follower <- r.token() }()
		sleep(time.Second)
		leave()
		err := <-left
		if !errors.Is(err, tokens.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("leader: %v, want ErrUnavailable and its context's error", err)
		}
		if got, want := bearer(t, <-follower), 3; got != want {
			t.Errorf("follower got token %d, want %d", got, want)
		}
		synctest.Wait()
		if got, want := bearer(t, r.token()), 3; got != want || r.stored().AccessToken == "" {
			t.Errorf("token %d, want %d", got, want)
		}
		r.refreshes(2)
	})
}

// Who is gone before it asks starts nothing.
func TestGoneBeforeItAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := r.Token(ctx, account); !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("Token: %v, want ErrUnavailable", err)
		}
		synctest.Wait()
		r.refreshes(1)
	})
}

func TestNeverAuthorised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		began := time.Now()
		for range 3 {
			if _, err := r.tokenWithin(time.Minute); !errors.Is(err, tokens.ErrNoGrant) {
				t.Fatalf("Token: %v, want ErrNoGrant", err)
			}
		}
		if _, err := r.renewWithin(time.Minute, "GET /", tokens.Token{}); !errors.Is(err, tokens.ErrNoGrant) {
			t.Errorf("Renew: %v, want ErrNoGrant", err)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %v, want not at all", waited)
		}
		r.state(tokens.StateUnauthorised)

		// Another replica stores a grant: found within seconds by who asks, and not by asking the store each time.
		looks := 0
		r.store.on("load", func() error { looks++; return nil })
		for range 100 {
			_, _ = r.tokenWithin(time.Minute)
			sleep(100 * time.Millisecond)
		}
		if looks == 0 || looks > 5 {
			t.Errorf("%d looks into the store in 10 s, want a few", looks)
		}
		g := tokens.Grant{Account: account, RefreshToken: r.agent.grant(), Version: 7}
		if err := r.store.Store.Save(context.Background(), g, 0); err != nil {
			t.Fatal(err)
		}
		sleep(5 * time.Second)
		_, _ = r.tokenWithin(time.Minute)
		synctest.Wait()
		if got := bearer(t, r.token()); got != 2 {
			t.Errorf("token %d, want 2", got)
		}
	})
}

// What another process wrote is taken over instead of refreshing.
func TestAdoptsWhatAnotherReplicaRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newRig(t)
		b := newRigOn(t, a.agent, a.store, a.agent.endpoint())
		a.authorised()
		if got := bearer(t, b.token()); got != 2 {
			t.Errorf("b has token %d, want 2", got)
		}
		sleep(time.Hour)
		result := make(chan int, 2)
		go func() { result <- bearer(t, a.token()) }()
		go func() { result <- bearer(t, b.token()) }()
		if one, two := <-result, <-result; one != 3 || two != 3 {
			t.Errorf("tokens %d and %d, want 3 and 3", one, two)
		}
		a.refreshes(2)
	})
}

// Accounts do not wait for one another.
func TestAccountsAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.then(late(20*time.Second, r.agent.refresh))
		go func() { _, _ = r.tokenWithin(time.Minute) }()
		synctest.Wait()
		ctx := context.Background()
		if err := r.Import(ctx, "other", r.agent.grant()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := r.Token(ctx, "other"); err != nil || time.Since(began) != 0 {
			t.Errorf("the other account's token: %v after %v, want it at once", err, time.Since(began))
		}
	})
}

func TestPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		var refuse error
		r := newRig(t, func(c *tokens.Config) {
			c.Permit = func(ctx context.Context, name string) (func(), func(), error) {
				if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < time.Minute {
					t.Errorf("permit may wait for %v, want more than a minute", time.Until(deadline))
				}
				log = append(log, "take "+name)
				return func() { log = append(log, "sent") }, func() { log = append(log, "release") }, refuse
			}
		})
		expect := func(want string) {
			t.Helper()
			synctest.Wait()
			if got := strings.Join(log, ", "); got != want {
				t.Errorf("permit: %s; want %s", got, want)
			}
			log = nil
		}
		r.authorised()
		expect("take acme, sent, release")
		sleep(time.Hour)
		r.agent.then(unavailable)
		_, _ = r.tokenWithin(time.Second / 2)
		expect("take acme, sent, release")
		sleep(time.Minute)
		refuse = errors.New("limiter is shutting down")
		_, err := r.tokenWithin(time.Second / 2)
		if !errors.Is(err, tokens.ErrUnavailable) || !errors.Is(err, refuse) {
			t.Errorf("Token: %v, want ErrUnavailable because of the limiter", err)
		}
		expect("take acme")
		r.refreshes(2)
	})
}

// A permit for a request that certainly did not leave is given back.
func TestPermitOfARefreshThatDidNotLeave(t *testing.T) {
	agent := newFreeAgent()
	agent.trouble = func() { t.Error("a request came") }
	var sent, released int
	r := newRigOn(t, agent, newMemory(), unreachable(), func(c *tokens.Config) {
		c.Permit = func(context.Context, string) (func(), func(), error) {
			return func() { sent++ }, func() { released++ }, nil
		}
	})
	err := r.Import(context.Background(), account, "token")
	if trouble := new(tokens.TroubleError); !errors.As(err, &trouble) || trouble.Uncertain {
		t.Errorf("Import: %v, want trouble that spent nothing", err)
	}
	if sent != 0 || released != 1 {
		t.Errorf("sent %d, released %d; want 0 and 1", sent, released)
	}
}
