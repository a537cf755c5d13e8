package tokens_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

// consent is a grant as the exchange of a code brings it.
func (r *rig) consent(number string) tokens.Grant {
	return tokens.Grant{
		Account:      account,
		AccessToken:  secret + "-access-" + number + "=",
		RefreshToken: r.agent.grant(),
		ObtainedAt:   time.Now(),
		ExpiresAt:    time.Now().Add(time.Hour),
	}
}

func TestPut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ctx := context.Background()
		if err := r.Put(ctx, r.consent("50")); err != nil {
			t.Fatal(err)
		}
		if got := bearer(t, r.token()); got != 50 {
			t.Errorf("token %d, want 50", got)
		}
		first := r.stored()
		if first.Version < time.Now().UnixMilli() {
			t.Errorf("version %d, want at least now in milliseconds", first.Version)
		}
		if err := r.Put(ctx, r.consent("51")); err != nil {
			t.Fatal(err)
		}
		if got := r.stored(); got.Version <= first.Version || bearer(t, r.token()) != 51 {
			t.Errorf("version %d after %d, token %d", got.Version, first.Version, bearer(t, r.token()))
		}
		for name, bad := range map[string]tokens.Grant{"no account": {RefreshToken: "x"}, "no refresh token": {Account: account}} {
			if err := r.Put(ctx, bad); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		r.refreshes(0)
		r.events.expect(t, tokens.EventAuthorized)
	})
}

// What an operator gives wakes those who wait, and a refresh that was under way does not undo it.
func TestPutDuringRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.then(late(20*time.Second, r.agent.refresh))
		waiting := make(chan tokens.Token)
		go func() { waiting <- r.token() }()
		sleep(time.Second)
		began := time.Now()
		if err := r.Put(context.Background(), r.consent("50")); err != nil {
			t.Fatal(err)
		}
		if got := bearer(t, <-waiting); got != 50 || time.Since(began) != 0 {
			t.Errorf("who waited got token %d after %v, want 50 at once", got, time.Since(began))
		}
		sleep(time.Minute)
		if got := bearer(t, r.token()); got != 50 {
			t.Errorf("token %d, want 50", got)
		}
		if got, want := r.stored().AccessToken, secret+"-access-50="; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
		r.events.expect(t, tokens.EventSuperseded)
	})
}

// A store that says at each try that another was faster: an error in the end, and no endless loop.
func TestPutConflictsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.store.on("save", func() error { return tokens.ErrConflict })
		err := r.Put(context.Background(), r.consent("50"))
		if !errors.Is(err, tokens.ErrStore) || !errors.Is(err, tokens.ErrConflict) {
			t.Errorf("Put: %v, want ErrStore because of ErrConflict", err)
		}
		r.store.heal("save")
		sleep(10 * time.Second)
		r.stored()
	})
}

// A refresh that waits for its permit spends nothing any more when a consent has come.
func TestPutWhileARefreshWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		permits := make(chan struct{}, 10)
		r := newRig(t, func(c *tokens.Config) {
			c.Permit = func(context.Context, string) (func(), func(), error) {
				<-permits
				return func() {}, func() {}, nil
			}
		})
		permits <- struct{}{}
		r.authorised()
		sleep(time.Hour)
		go func() { _, _ = r.tokenWithin(time.Minute) }()
		sleep(time.Second)
		if err := r.Put(context.Background(), r.consent("50")); err != nil {
			t.Fatal(err)
		}
		permits <- struct{}{}
		synctest.Wait()
		r.refreshes(1)
	})
}

// A consent that cannot be stored serves, says so, and is stored later, over whatever is there by then.
func TestPutWhileTheStoreFails(t *testing.T) {
	for _, steps := range [][]string{{"save"}, {"load"}, {"load", "save", "lock"}} {
		t.Run(steps[0], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.authorised()
				other := newRigOn(t, r.agent, r.store.Store, r.agent.endpoint())
				r.store.fail(steps...)
				if err := r.Put(context.Background(), r.consent("50")); !errors.Is(err, tokens.ErrStore) {
					t.Errorf("Put: %v, want ErrStore", err)
				}
				if got := bearer(t, r.token()); got != 50 {
					t.Errorf("token %d, want 50", got)
				}
				sleep(time.Minute)
				if err := other.Import(context.Background(), account, r.agent.grant()); err != nil { // which is older than it looks
					t.Fatal(err)
				}
				later := r.stored().Version
				r.store.heal(steps...)
				sleep(time.Minute)
				got := r.stored()
				if got.AccessToken != secret+"-access-50=" || got.Version <= later {
					t.Errorf("stored %q, version %d after %d", got.AccessToken, got.Version, later)
				}
				if len(got.Seeds) != 2 {
					t.Errorf("%d seeds, want those of the grants it replaced", len(got.Seeds))
				}
				r.state(tokens.StateOK)
			})
		})
	}
}

func TestImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ctx := context.Background()
		first := r.agent.grant()
		if err := r.Import(ctx, account, first); err != nil {
			t.Fatal(err)
		}
		before := r.stored()
		if before.RefreshToken == first || before.PreviousRefresh != first || len(before.Seeds) != 1 {
			t.Error("stored is not what the import brought")
		}
		// The same again, an explicit wish: FreeAgent decides.
		err := r.Import(ctx, account, first)
		if refusal := new(tokens.RefusedError); !errors.As(err, &refusal) || !errors.Is(err, tokens.ErrReauthorize) {
			t.Errorf("Import of a spent token: %v, want a RefusedError", err)
		}
		if after := r.stored(); after.Version != before.Version {
			t.Error("a refused import changed the grant")
		}
		if bearer(t, r.token()) != 2 {
			t.Error("a refused import changed the token")
		}
		r.agent.then(unavailable)
		if err := r.Import(ctx, account, r.agent.grant()); !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("Import while the endpoint is down: %v, want ErrUnavailable", err)
		} else if !strings.Contains(err.Error(), "Try again in a minute; if it is refused then") {
			t.Errorf("Import while the endpoint is down: %v, want what to do", err)
		}
		r.agent.then(answer(http.StatusTooManyRequests, "text/plain", ""))
		if err := r.Import(ctx, account, r.agent.grant()); err == nil || !strings.HasSuffix(err.Error(), "Try again in a minute") {
			t.Errorf("Import over the limit: %v, want what to do", err)
		}
		if err := r.Import(ctx, account, r.agent.grant()); err != nil {
			t.Fatal(err)
		}
		if got := r.stored(); len(got.Seeds) != 2 || got.Version <= before.Version {
			t.Errorf("seeds %v, version %d", got.Seeds, got.Version)
		}
		if err := r.Import(ctx, account, ""); err == nil {
			t.Error("an empty refresh token was accepted")
		}
	})
}

// A store that cannot be written costs the imported token nothing.
func TestImportWhileTheStoreIsUnwritable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.store.fail("lock")
		if err := r.Import(context.Background(), account, r.agent.grant()); !errors.Is(err, tokens.ErrStore) {
			t.Errorf("Import: %v, want ErrStore", err)
		}
		r.refreshes(0)
	})
}

// The store fails, or the operator leaves, after the imported token was spent: the new pair is kept.
func TestImportIsNotLost(t *testing.T) {
	t.Run("store", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.store.fail("save")
			if err := r.Import(context.Background(), account, r.agent.grant()); !errors.Is(err, tokens.ErrStore) {
				t.Errorf("Import: %v, want ErrStore", err)
			}
			if got := bearer(t, r.token()); got != 2 {
				t.Errorf("token %d, want 2", got)
			}
			r.store.heal("save")
			sleep(10 * time.Second)
			if got, want := r.stored().AccessToken, secret+"-access-2="; got != want {
				t.Errorf("stored %q, want %q", got, want)
			}
		})
	})
	t.Run("operator", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.agent.then(late(10*time.Second, r.agent.refresh))
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if err := r.Import(ctx, account, r.agent.grant()); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Import: %v, want DeadlineExceeded", err)
			}
			sleep(10 * time.Second)
			if got, want := r.stored().AccessToken, secret+"-access-2="; got != want {
				t.Errorf("stored %q, want %q", got, want)
			}
		})
	})
}

// An operator who left before the token was sent has imported nothing.
func TestImportAbandonedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		lease, err := r.store.Lock(context.Background(), account)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := r.Import(ctx, account, r.agent.grant()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Import: %v, want DeadlineExceeded", err)
		}
		lease.Release()
		sleep(time.Minute)
		r.refreshes(0)
	})
}

// Importing the very token that a flight is spending waits for the flight.
func TestImportDuringRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.then(late(10*time.Second, r.agent.refresh))
		go func() { _, _ = r.tokenWithin(time.Minute) }()
		sleep(time.Second)
		if err := r.Import(context.Background(), account, r.agent.grant()); err != nil {
			t.Fatal(err)
		}
		times := r.agent.times()
		if d := gaps(times[1:])[0]; d < 10*time.Second {
			t.Errorf("the import's refresh came %v after the flight's, want it to wait", d)
		}
		if got := r.stored(); got.AccessToken != r.token().Authorization()[len("Bearer "):] {
			t.Error("stored is not what serves")
		}
	})
}

func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ctx := context.Background()
		if err := r.Remove(ctx, account); !errors.Is(err, tokens.ErrNoGrant) {
			t.Errorf("Remove of nothing: %v, want ErrNoGrant", err)
		}
		r.inUse()
		for range 3 { // within one millisecond
			version := r.stored().Version
			if err := errors.Join(r.Remove(ctx, account), r.Put(ctx, r.consent("50"))); err != nil {
				t.Fatal(err)
			}
			if got := r.stored().Version; got <= version {
				t.Errorf("version %d is not above the removed one's, %d", got, version)
			}
		}
		if err := r.Remove(ctx, account); err != nil {
			t.Fatal(err)
		}
		if _, ok := r.TokenNow(account); ok {
			t.Error("a token after Remove")
		}
		if _, err := r.tokenWithin(time.Minute); !errors.Is(err, tokens.ErrNoGrant) {
			t.Errorf("Token: %v, want ErrNoGrant", err)
		}
		sleep(2 * time.Hour)
		r.refreshes(1)
		r.events.expect(t, tokens.EventRemoved)
	})
}

// A refresh that was under way, or a pair that waits to be stored, does not bring a removed account back.
func TestNothingIsResurrected(t *testing.T) {
	for name, prepare := range map[string]func(*rig){
		"refresh under way": func(r *rig) {
			r.agent.then(late(10*time.Second, r.agent.refresh))
			go func() { _, _ = r.tokenWithin(time.Minute) }()
		},
		"refused under way": func(r *rig) {
			r.agent.then(late(10*time.Second, refuse))
			go func() { _, _ = r.tokenWithin(time.Minute) }()
		},
		"unsaved pair": func(r *rig) {
			r.store.fail("save")
			r.token()
		},
		"save under way": func(r *rig) {
			r.store.on("save", func() error { time.Sleep(5 * time.Second); return nil })
			r.token()
		},
		"look under way": func(r *rig) {
			r.store.then("load", func() error { time.Sleep(5 * time.Second); return nil })
			r.agent.trouble = func() { t.Error("the removed refresh token was spent") }
			go func() { _, _ = r.tokenWithin(time.Minute) }()
		},
		"seed that waits": func(r *rig) {
			r.agent.ever(unavailable)
			if err := r.Seed(context.Background(), account, r.agent.grant()); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.authorised()
				sleep(time.Hour)
				prepare(r)
				sleep(time.Second)
				if err := r.Remove(context.Background(), account); err != nil {
					t.Fatal(err)
				}
				r.store.heal("save")
				sleep(time.Minute)
				if _, err := r.store.Store.Load(context.Background(), account); !errors.Is(err, tokens.ErrNoGrant) {
					t.Errorf("stored: %v, want ErrNoGrant", err)
				}
				if _, err := r.tokenWithin(time.Minute); !errors.Is(err, tokens.ErrNoGrant) {
					t.Errorf("Token: %v, want ErrNoGrant", err)
				}
				r.state(tokens.StateUnauthorised)
			})
		})
	}
}

// A removal that the store refuses changes nothing.
func TestRemoveFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		r.store.fail("remove")
		if err := r.Remove(context.Background(), account); !errors.Is(err, tokens.ErrStore) {
			t.Errorf("Remove: %v, want ErrStore", err)
		}
		r.token()
	})
}
