package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

// A token in use is renewed between five and four minutes before it expires, once, and the
// old one serves meanwhile.
func TestRenewedAheadWhenInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := r.inUse()
		r.agent.then(late(10*time.Second, r.agent.refresh))
		sleep(55 * time.Minute)
		before := r.agent.count()
		sleep(time.Minute)
		if before != 1 {
			t.Errorf("%d refreshes before the 55th minute, want only the first", before)
		}
		r.refreshes(2)
		sleep(10 * time.Second)
		if got := r.token(); got == first {
			t.Error("still the old token after its renewal")
		}
	})
}

func TestOldTokenServesWhileItIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := r.inUse()
		r.agent.then(late(29*time.Second, r.agent.refresh))
		for len(r.agent.times()) == 1 {
			sleep(time.Second)
		}
		began := time.Now()
		if got := r.token(); got != first || time.Since(began) != 0 {
			t.Errorf("Token = %v after %v, want the old one at once", got, time.Since(began))
		}
		if !r.Status(account).Refreshing {
			t.Error("Status does not say that it is refreshing")
		}
		sleep(30 * time.Second)
		r.refreshes(2)
	})
}

// An idle account is left alone, also after it was in use.
func TestIdleAccountIsNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(24 * time.Hour)
		r.refreshes(2) // the one that was in use; its successor was not
		r.Status(account)
		sleep(24 * time.Hour)
		r.refreshes(2)
	})
}

// A manager that loads a token late in its life renews it when it is first used.
func TestRenewedAtFirstUseWhenLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(57 * time.Minute)
		r.refreshes(1)
		old := r.token()
		synctest.Wait()
		r.refreshes(2)
		if r.token() == old {
			t.Error("still the old token")
		}
	})
}

// With tokens that live a second everything happens within it.
func TestShortLifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.lifetime = time.Second
		r.authorised()
		for range 300 {
			token := r.token()
			sleep(100 * time.Millisecond)
			if now, ok := r.TokenNow(account); !ok && now == token {
				t.Fatal("an expired token")
			}
		}
		if n := r.agent.count(); n < 30 || n > 45 {
			t.Errorf("%d refreshes in 30 s, want one for each second, ahead of time", n)
		}
	})
}

// A refresh token is not let die unseen: after two thirds of its life it is used.
func TestRefreshTokenIsKeptAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		month := 30 * 24 * time.Hour
		r.agent.more = map[string]any{"refresh_token_expires_in": month.Seconds()}
		r.authorised()
		if err := r.Start(context.Background(), []string{account}); err != nil {
			t.Fatal(err)
		}
		sleep(20*24*time.Hour - time.Minute)
		r.refreshes(1)
		sleep(2 * time.Minute)
		r.refreshes(2)
		if got, want := r.Status(account).RefreshExpiresAt, time.Now().Add(month-5*time.Minute); got.Before(want) {
			t.Errorf("refresh token ends %v, want it renewed", got)
		}
	})
}

func TestRefreshTokenIsKeptAliveAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		now := time.Now()
		for _, name := range []string{"a", "b", "c"} {
			g := tokens.Grant{Account: name, RefreshToken: r.agent.grant(), Version: 1,
				RefreshObtained: now.Add(-20 * time.Hour), RefreshExpiresAt: now.Add(time.Hour)}
			if name == "c" {
				g.RefreshExpiresAt = now.Add(100 * time.Hour)
			}
			if err := r.store.Save(context.Background(), g, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Start(context.Background(), []string{"a", "b", "c", "never authorised"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.refreshes(2)
	})
}

// The way to the store and back is not paid for each account by itself.
func TestGrantsAreLoadedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		const accounts = 320
		names := make([]string, accounts)
		for i := range names {
			names[i] = fmt.Sprintf("account-%d", i)
			if err := r.store.Save(context.Background(), tokens.Grant{Account: names[i], RefreshToken: "r", Version: 1}, 0); err != nil {
				t.Fatal(err)
			}
		}
		r.store.on("load", func() error { time.Sleep(time.Second); return nil })
		began := time.Now()
		if err := r.Start(context.Background(), names); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != accounts/32*time.Second {
			t.Errorf("took %v, want 32 at a time", took)
		}
		for _, name := range names {
			if got := r.Status(name); got.State != tokens.StateOK {
				t.Fatalf("%s: %q (%s)", name, got.State, got.Reason)
			}
		}
	})
}

// An answer that does not extend the refresh token's life is no reason to ask each minute.
func TestKeepingAliveInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		seed := r.agent.grant()
		r.agent.ever(answer(200, "application/json", `{"access_token":"`+secret+`-access-5=","expires_in":3600}`))
		g := tokens.Grant{Account: account, RefreshToken: seed, Version: 1,
			RefreshObtained: time.Now().Add(-25 * 24 * time.Hour), RefreshExpiresAt: time.Now().Add(5 * 24 * time.Hour)}
		if err := r.store.Save(context.Background(), g, 0); err != nil {
			t.Fatal(err)
		}
		if err := r.Start(context.Background(), []string{account}); err != nil {
			t.Fatal(err)
		}
		sleep(2*24*time.Hour + time.Hour)
		r.refreshes(3)
		if got := r.stored(); got.RefreshToken != seed || got.PreviousRefresh != "" || !got.RefreshExpiresAt.Equal(g.RefreshExpiresAt) {
			t.Errorf("the refresh token that was not replaced is not as it was: %+v", got)
		}
	})
}

// Start works without the store, and catches up when it comes.
func TestStartWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		g := tokens.Grant{Account: account, RefreshToken: r.agent.grant(), Version: 1}
		if err := r.store.Save(context.Background(), g, 0); err != nil {
			t.Fatal(err)
		}
		r.store.fail("accounts", "load")
		if err := r.Start(context.Background(), []string{account}); err == nil {
			t.Error("Start says nothing of the store")
		}
		r.state(tokens.StateTrouble)
		sleep(time.Hour)
		r.store.heal("accounts", "load")
		sleep(10 * time.Second)
		r.state(tokens.StateOK)
		r.token()
	})
}

// Start keeps to its context; what it did not load is loaded when it is asked for.
func TestStartIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		g := tokens.Grant{Account: account, RefreshToken: r.agent.grant(), Version: 1}
		if err := r.store.Save(context.Background(), g, 0); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Start(ctx, []string{account}); !errors.Is(err, context.Canceled) {
			t.Errorf("Start: %v, want Canceled", err)
		}
		r.token()
	})
}

// One grant that cannot be read is reported, and does not keep the others from loading.
func TestStartWithAnUnreadableGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		g := tokens.Grant{Account: account, RefreshToken: r.agent.grant(), Version: 1}
		if err := r.store.Save(context.Background(), g, 0); err != nil {
			t.Fatal(err)
		}
		r.store.fail("load")
		if err := r.Start(context.Background(), []string{"never authorised", account}); err == nil {
			t.Error("Start says nothing of the grant")
		}
		if got := r.Status("never authorised").State; got != tokens.StateUnauthorised {
			t.Errorf("the other account is %q", got)
		}
		r.state(tokens.StateTrouble)
		r.store.heal("load")
		sleep(2 * time.Minute)
		r.state(tokens.StateOK)
		r.refreshes(0)
	})
}
