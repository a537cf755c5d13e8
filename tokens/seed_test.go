package tokens_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

func TestSeed(t *testing.T) {
	ctx := context.Background()
	t.Run("no grant", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			seed := r.agent.grant()
			if err := r.Seed(ctx, account, seed); err != nil {
				t.Fatal(err)
			}
			if got := r.stored(); got.RefreshToken != seed || got.AccessToken != "" || len(got.Seeds) != 1 {
				t.Error("the seed is not the grant")
			}
			r.state(tokens.StateOK)
			r.refreshes(0)
			r.token()
			r.refreshes(1)
		})
	})
	t.Run("known", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			seed := r.agent.grant()
			for range 3 { // starts
				if err := r.Seed(ctx, account, seed); err != nil {
					t.Fatal(err)
				}
				r.token()
				sleep(2 * time.Hour)
			}
			if slices.Contains(r.agent.spentTokens()[1:], seed) {
				t.Error("the old seed was spent again")
			}
		})
	})
	t.Run("newly consented", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			old := r.inUse()
			seed := r.agent.grant()
			r.agent.then(late(10*time.Second, r.agent.refresh))
			began := time.Now()
			if err := r.Seed(ctx, account, seed); err != nil {
				t.Fatal(err)
			}
			sleep(time.Second)
			if got := r.token(); got != old || time.Since(began) != time.Second {
				t.Error("the stored grant does not serve meanwhile")
			}
			sleep(10 * time.Second)
			if got := r.token(); got == old {
				t.Error("the seed did not win")
			}
			g := r.stored()
			if len(g.Seeds) != 2 || g.PreviousRefresh != seed {
				t.Errorf("stored is not what the seed brought: %v", g.Seeds)
			}
			if err := r.Seed(ctx, account, seed); err != nil {
				t.Fatal(err)
			}
			sleep(time.Minute)
			r.refreshes(2)
		})
	})
	t.Run("refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			old := r.inUse()
			before := r.stored()
			for range 2 { // starts
				if err := r.Seed(ctx, account, "spent long ago"); err != nil {
					t.Fatal(err)
				}
				sleep(time.Minute)
			}
			r.refreshes(2)
			if got := r.stored(); r.token() != old || got.RefreshToken != before.RefreshToken || len(got.Seeds) != 2 {
				t.Error("the stored grant did not stay")
			}
			r.state(tokens.StateOK)
			r.events.expect(t, tokens.EventSeedRefused)
		})
	})
	t.Run("refused, and the access token expired", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.authorised()
			sleep(time.Hour)
			if err := r.Seed(ctx, account, "spent long ago"); err != nil {
				t.Fatal(err)
			}
			r.token()
			r.refreshes(3)
		})
	})
	t.Run("trouble", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			old := r.inUse()
			r.agent.ever(unavailable)
			if err := r.Seed(ctx, account, r.agent.grant()); err != nil {
				t.Fatal(err)
			}
			sleep(time.Minute)
			if r.token() != old {
				t.Error("the stored grant does not serve meanwhile")
			}
			r.agent.ever(nil)
			sleep(11 * time.Second)
			if r.token() == old {
				t.Error("the seed was not tried again")
			}
		})
	})
	t.Run("store down", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.store.fail("load", "lock")
			if err := r.Seed(ctx, account, r.agent.grant()); !errors.Is(err, tokens.ErrStore) {
				t.Errorf("Seed: %v, want ErrStore", err)
			}
			sleep(time.Minute)
			r.store.heal("load", "lock")
			sleep(11 * time.Second)
			r.token()
			r.refreshes(1)
		})
	})
	t.Run("superseded by a consent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.authorised()
			seed := r.agent.grant()
			r.agent.then(late(10*time.Second, r.agent.refresh))
			if err := r.Seed(ctx, account, seed); err != nil {
				t.Fatal(err)
			}
			sleep(time.Second)
			if err := r.Put(ctx, r.consent("50")); err != nil {
				t.Fatal(err)
			}
			sleep(time.Minute)
			if got := bearer(t, r.token()); got != 50 {
				t.Errorf("token %d, want 50", got)
			}
			if err := r.Seed(ctx, account, seed); err != nil {
				t.Fatal(err)
			}
			sleep(time.Minute)
			r.refreshes(2)
		})
	})
	t.Run("empty", func(t *testing.T) {
		if err := newRig(t).Seed(ctx, account, ""); err == nil {
			t.Error("accepted")
		}
	})
}

// What a grant remembers of seeds is bounded.
func TestSeedsAreBounded(t *testing.T) {
	r := newRig(t)
	for range 40 {
		if err := r.Import(context.Background(), account, r.agent.grant()); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(r.stored().Seeds); got != 16 {
		t.Errorf("%d seeds, want 16", got)
	}
}
