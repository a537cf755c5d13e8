package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
			if err := r.Seed(ctx, account, "spent long ago"); err != nil {
				t.Fatal(err)
			}
			sleep(50 * time.Minute)
			r.refreshes(2)
			if got := r.stored(); r.token() != old || got.RefreshToken != before.RefreshToken || len(got.Seeds) != 1 {
				t.Error("the stored grant did not stay")
			}
			r.state(tokens.StateOK)
			r.events.expect(t, tokens.EventSeedRefused)

			sleep(10 * time.Minute) // the grant is refreshed: client id and secret are good
			if got := r.stored(); len(got.Seeds) != 2 {
				t.Error("the seed is not remembered as worthless")
			}
			if err := r.Seed(ctx, account, "spent long ago"); err != nil { // the next start
				t.Fatal(err)
			}
			sleep(time.Minute)
			r.refreshes(3)
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

// A new seed is not thrown away because the client secret was wrong once: the grant is tried next,
// and if that is refused as well, both are kept and tried.
func TestSeedAndWrongSecret(t *testing.T) {
	wrong := tokens.App{ClientID: app.ClientID, ClientSecret: secret + "-wrong"}
	for name, corrected := range map[string]func(r *rig, seed string) *rig{
		"corrected at the next start": func(r *rig, seed string) *rig {
			_ = r.Close(context.Background())
			next := newRigOn(r.t, r.agent, r.store.Store, r.agent.endpoint())
			_ = next.Start(context.Background(), []string{account})
			_ = next.Seed(context.Background(), account, seed)
			return next
		},
		"corrected at once": func(r *rig, _ string) *rig { r.setApp(app); return r },
		"FreeAgent's mistake": func(r *rig, _ string) *rig {
			good := r.agent.refresh
			r.agent.ever(func(w http.ResponseWriter, q *http.Request) {
				q.SetBasicAuth(app.ClientID, app.ClientSecret)
				good(w, q)
			})
			sleep(2 * time.Hour)
			return r
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.t = t
				r.inUse()
				r.agent.revoke() // which is why there is a new seed
				seed := r.agent.grant()
				r.setApp(wrong)
				if err := r.Seed(context.Background(), account, seed); err != nil {
					t.Fatal(err)
				}
				sleep(3 * time.Hour) // the access token has ended
				r.state(tokens.StateReauthorise)
				r = corrected(r, seed)
				sleep(time.Second)
				_, _ = r.tokenWithin(time.Minute)
				sleep(time.Second)
				r.token() // of the seed: there is no other good refresh token
				r.state(tokens.StateOK)
			})
		})
	}
}

// Trouble that a seed alone meets with keeps nobody from the stored grant. The seed is tried ever more rarely.
func TestTroubleWithASeedAlone(t *testing.T) {
	for _, status := range []int{403, 422, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.inUse()
				r.agent.ever(func(w http.ResponseWriter, q *http.Request) {
					if q.PostForm.Get("refresh_token") == "'quoted by mistake'" {
						answer(status, "text/html", secret)(w, q)
						return
					}
					r.agent.refresh(w, q)
				})
				if err := r.Seed(context.Background(), account, "'quoted by mistake'"); err != nil {
					t.Fatal(err)
				}
				for range 24 * 60 {
					began := time.Now()
					if r.token(); time.Since(began) != 0 {
						t.Fatalf("waited %v for the stored grant", time.Since(began))
					}
					r.state(tokens.StateOK)
					sleep(time.Minute)
				}
				if n := r.agent.count(); n > 24+12+24+2 {
					t.Errorf("%d refresh requests in a day", n)
				}
				if n := r.events.count(tokens.EventSeedTrouble); n != 1 {
					t.Errorf("%d events of it, want one", n)
				}
			})
		})
	}
}

// A 429 is for the grant as well: nothing is sent until it says.
func TestTooManyRequestsForASeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.then(func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Retry-After", "45")
			answer(429, "text/plain", "")(w, q)
		})
		if err := r.Seed(context.Background(), account, r.agent.grant()); err != nil {
			t.Fatal(err)
		}
		sleep(44 * time.Second)
		r.refreshes(2)
		sleep(2 * time.Second)
		r.refreshes(3)
		r.token()
	})
}

// A seed that is offered while the stored grant is refused does not wait for the next probe.
func TestSeedForADeadGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.dead()
		sleep(10 * time.Hour)
		began := time.Now()
		if err := r.Seed(context.Background(), account, r.agent.grant()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.token()
		if waited := time.Since(began); waited != 0 {
			t.Errorf("it served after %v", waited)
		}
	})
}

// A seed that was there before a consent does not replace what the consent brought at the next start,
// though FreeAgent would take it.
func TestSeedThatIsOlderThanAConsent(t *testing.T) {
	for name, before := range map[string]func(*rig, string) error{
		"removed between": func(r *rig, seed string) error {
			return errors.Join(r.Seed(context.Background(), account, seed), r.Remove(context.Background(), account))
		},
		"never served": func(r *rig, seed string) error { return r.Supersede(account, seed) },
	} {
		for way, consent := range map[string]func(*rig) error{
			"authorised": func(r *rig) error { return r.Put(context.Background(), r.consent("50")) },
			"imported":   func(r *rig) error { return r.Import(context.Background(), account, r.agent.grant()) },
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					r.agent.lenient = true
					seed := r.agent.grant()
					if err := errors.Join(before(r, seed), consent(r)); err != nil {
						t.Fatal(err)
					}
					want := r.token()
					_ = r.Close(context.Background())
					next := newRigOn(t, r.agent, r.store.Store, r.agent.endpoint())
					if err := next.Seed(context.Background(), account, seed); err != nil {
						t.Fatal(err)
					}
					sleep(time.Minute)
					if next.token() != want {
						t.Error("the old seed replaced the newer grant")
					}
				})
			})
		}
	}
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
