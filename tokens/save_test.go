package tokens_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

// The store fails just when the rotated pair is to be written: the pair serves, and is written
// as soon as that works. It is told once that it failed, and once that it is stored.
func TestSaveFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		before := r.stored()
		r.store.fail("save")
		began := time.Now()
		if got := bearer(t, r.token()); got != 3 || time.Since(began) != 0 {
			t.Errorf("token %d after %v, want 3 at once", got, time.Since(began))
		}
		sleep(10 * time.Minute)
		if got := bearer(t, r.token()); got != 3 {
			t.Errorf("token %d, want 3", got)
		}
		if r.stored().Version != before.Version {
			t.Error("stored although the store failed")
		}
		r.state(tokens.StateTrouble)
		if !r.Status(account).Unsaved {
			t.Error("the status does not say that the pair is unsaved")
		}
		r.store.heal("save")
		sleep(11 * time.Second)
		if r.Status(account).Unsaved {
			t.Error("the status says that the pair is unsaved, and it is stored")
		}
		if got := r.stored(); got.AccessToken != secret+"-access-3=" || got.PreviousRefresh != before.RefreshToken {
			t.Errorf("stored is not the newest pair")
		}
		r.state(tokens.StateOK)
		if n, m := r.events.count(tokens.EventUnsaved), r.events.count(tokens.EventSaved); n != 1 || m != 1 {
			t.Errorf("told %d times that it is not stored and %d times that it is, want once each", n, m)
		}
		r.refreshes(2)
	})
}

// A new token is stored before it is used, so that what FreeAgent has seen used survives a crash;
// but a store that takes long keeps nobody waiting.
func TestStoredBeforeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.store.on("save", func() error {
			if _, ok := r.TokenNow(account); ok {
				t.Error("the new token is used before it is stored")
			}
			time.Sleep(500 * time.Millisecond)
			return nil
		})
		began := time.Now()
		if r.token(); time.Since(began) != 500*time.Millisecond {
			t.Errorf("token after %v, want it when it was stored", time.Since(began))
		}
		r.store.on("save", func() error { time.Sleep(9 * time.Second); return nil })
		sleep(2 * time.Hour)
		began = time.Now()
		if r.token(); time.Since(began) != time.Second {
			t.Errorf("token after %v, want it after a second", time.Since(began))
		}
		sleep(10 * time.Second)
		if got := r.stored(); got.AccessToken != r.token().Authorization()[len("Bearer "):] {
			t.Error("the new token is not stored")
		}
	})
}

// While a pair is unsaved no other refresh token is spent, and when the store works again the newest is kept.
func TestRefreshWhileUnsaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.store.fail("save")
		old := r.token()
		sleep(2 * time.Hour)
		if _, err := r.tokenWithin(30 * time.Second); !errors.Is(err, tokens.ErrUnavailable) || !errors.Is(err, tokens.ErrStore) {
			t.Errorf("Token: %v, want ErrUnavailable because of ErrStore", err)
		}
		r.refreshes(2)
		r.store.heal("save")
		if r.token() == old {
			t.Error("still the old token")
		}
		synctest.Wait()
		r.refreshes(3)
		if got, want := r.stored().AccessToken, secret+"-access-4="; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
	})
}

// A save that succeeded though it seemed not to is not taken for somebody else's.
func TestSaveThatSucceededUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.store.then("save", func() error { return errDisk })
		r.token()
		synctest.Wait()
		r.store.then("save", nil)
		sleep(time.Minute)
		r.state(tokens.StateOK)
		if r.events.count(tokens.EventSuperseded) != 0 {
			t.Error("its own grant was taken for another's")
		}
		if got, want := r.stored().AccessToken, secret+"-access-3="; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
	})
}

// The lock was too slow, and somebody else wrote: theirs stays, ours is dropped.
func TestSaveConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newRig(t)
		b := newRigOn(t, a.agent, a.store.Store, a.agent.endpoint())
		a.authorised()
		sleep(time.Hour)
		a.agent.then(func(w http.ResponseWriter, req *http.Request) {
			g := tokens.Grant{Account: account, AccessToken: secret + "-access-77=", RefreshToken: a.agent.grant(),
				ObtainedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
			if err := b.Put(context.Background(), g); err != nil {
				t.Error(err)
			}
			a.agent.refresh(w, req)
		})
		a.token()
		synctest.Wait()
		if got := bearer(t, a.token()); got != 77 {
			t.Errorf("token %d, want the operator's, 77", got)
		}
		if got, want := a.stored().AccessToken, secret+"-access-77="; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
		a.events.expect(t, tokens.EventSuperseded)
		a.state(tokens.StateOK)
	})
}

// Another process removed the account while its refresh was under way: it stays removed.
func TestRemovedElsewhere(t *testing.T) {
	for name, failing := range map[string]bool{"before the save": false, "while it fails": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newRig(t)
				b := newRigOn(t, a.agent, a.store.Store, a.agent.endpoint())
				a.authorised()
				sleep(time.Hour)
				if failing {
					a.store.fail("save")
					a.token()
				}
				remove := func() {
					if err := b.Remove(context.Background(), account); err != nil {
						t.Error(err)
					}
				}
				if failing {
					remove()
					a.store.heal("save")
				} else {
					a.agent.then(func(w http.ResponseWriter, req *http.Request) { remove(); a.agent.refresh(w, req) })
					_, _ = a.tokenWithin(time.Minute)
				}
				sleep(time.Minute)
				if _, err := a.tokenWithin(time.Minute); !errors.Is(err, tokens.ErrNoGrant) {
					t.Errorf("Token: %v, want ErrNoGrant", err)
				}
				if _, err := a.store.Store.Load(context.Background(), account); !errors.Is(err, tokens.ErrNoGrant) {
					t.Errorf("stored: %v, want ErrNoGrant", err)
				}
			})
		})
	}
}

// What another process removed is not refreshed any more.
func TestRemovedElsewhereWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newRig(t)
		b := newRigOn(t, a.agent, a.store.Store, a.agent.endpoint())
		a.authorised()
		if err := b.Remove(context.Background(), account); err != nil {
			t.Fatal(err)
		}
		sleep(time.Hour)
		if _, err := a.tokenWithin(time.Minute); !errors.Is(err, tokens.ErrNoGrant) {
			t.Errorf("Token: %v, want ErrNoGrant", err)
		}
		synctest.Wait()
		a.refreshes(1)
		a.state(tokens.StateUnauthorised)
		a.events.expect(t, tokens.EventRemoved)
	})
}

// A store that went back in time, as a replica that takes over may, gets the newest grant again.
func TestStoreWentBackInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		old := r.stored()
		sleep(time.Hour)
		r.token()
		synctest.Wait()
		newest := r.stored()
		store := r.store.Store.(*memory)
		store.mu.Lock()
		store.grants[account] = old
		store.mu.Unlock()
		sleep(time.Hour)
		r.token()
		synctest.Wait()
		if got := r.agent.spentTokens()[2]; got != newest.RefreshToken {
			t.Errorf("spent %q, want the newest refresh token %q", got, newest.RefreshToken)
		}
		r.refreshes(3)
		if got := r.stored(); got.PreviousRefresh != newest.RefreshToken {
			t.Error("stored is not the newest pair")
		}
	})
}
