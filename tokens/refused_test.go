package tokens_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

// dead makes the account's refresh token refused, and its access token expired.
func (r *rig) dead() {
	r.t.Helper()
	r.authorised()
	sleep(time.Hour)
	r.agent.revoke()
	if _, err := r.tokenWithin(time.Minute); !errors.Is(err, tokens.ErrReauthorize) {
		r.t.Fatalf("Token: %v, want ErrReauthorize", err)
	}
	r.state(tokens.StateReauthorise)
}

func TestRefusedWhateverTheBody(t *testing.T) {
	for name, refuse := range map[string]http.HandlerFunc{
		"plain text 401":   refuse,
		"JSON 400":         answer(http.StatusBadRequest, "application/json", `{"error":"invalid_grant","error_description":"`+secret+`"}`),
		"empty 401":        answer(http.StatusUnauthorized, "text/plain", ""),
		"HTML 400":         answer(http.StatusBadRequest, "text/html", "<html>no</html>"),
		"JSON with tokens": answer(http.StatusUnauthorized, "application/json", `{"access_token":"a","refresh_token":"b"}`),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.authorised()
				before := r.stored()
				sleep(time.Hour)
				r.agent.ever(refuse)
				began := time.Now()
				_, err := r.tokenWithin(time.Minute)
				if !errors.Is(err, tokens.ErrReauthorize) || errors.Is(err, tokens.ErrUnavailable) || time.Since(began) != 0 {
					t.Errorf("Token: %v after %v, want ErrReauthorize at once", err, time.Since(began))
				}
				for range 100 { // no token call for each client
					_, _ = r.tokenWithin(time.Minute)
				}
				synctest.Wait()
				r.refreshes(1 + 2) // the newest, and once the one before
				reason := r.state(tokens.StateReauthorise).Reason
				if !strings.Contains(reason, "authorise again") || !strings.Contains(reason, "client id and secret") {
					t.Errorf("reason %q names not both remedies", reason)
				}
				if after := r.stored(); after.Version != before.Version || after.RefreshToken != before.RefreshToken {
					t.Error("the stored grant was touched")
				}
				r.events.expect(t, tokens.EventRefused)
			})
		})
	}
}

// A dead grant is tried again after 1, 2, 4 … 60 minutes, and lives again without help.
func TestDeadGrantIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.dead()
		began := len(r.agent.times()) - 1
		sleep(6 * time.Hour)
		want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60, 60}
		got := gaps(r.agent.times()[began:])
		for i := range got {
			got[i] /= time.Minute
		}
		if !slices.Equal(got, want) {
			t.Errorf("tried after %v minutes, want %v", got, want)
		}
		next := r.Status(account).NextTry
		if d := time.Until(next); d <= 0 || d > time.Hour {
			t.Errorf("next try in %v", d)
		}

		r.agent.mu.Lock()
		r.agent.good = []string{r.stored().RefreshToken} // it was a mistake of FreeAgent's
		r.agent.mu.Unlock()
		sleep(time.Hour)
		r.state(tokens.StateOK)
		if _, ok := r.TokenNow(account); !ok {
			t.Error("no token after the probe that succeeded")
		}
	})
}

func TestTroubleWhileProbing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.dead()
		r.agent.ever(unavailable)
		before := r.agent.count()
		sleep(10 * time.Minute)
		if n := r.agent.count() - before; n < 5 || n > 10 {
			t.Errorf("%d probes in 10 minutes of trouble, want about one a minute", n)
		}
		r.state(tokens.StateReauthorise)
	})
}

func TestDeadGrantIsReplaced(t *testing.T) {
	for name, replace := range map[string]func(*rig) error{
		"Put": func(r *rig) error {
			return r.Put(context.Background(), tokens.Grant{Account: account, RefreshToken: r.agent.grant()})
		},
		"Import": func(r *rig) error { return r.Import(context.Background(), account, r.agent.grant()) },
		"another replica": func(r *rig) error {
			old := r.stored()
			g := tokens.Grant{Account: account, RefreshToken: r.agent.grant(), Version: old.Version + 1}
			err := r.store.Store.Save(context.Background(), g, old.Version)
			sleep(5 * time.Second)
			_, _ = r.tokenWithin(time.Minute) // who asks makes it look
			synctest.Wait()
			return err
		},
		"a corrected client secret": func(r *rig) error {
			r.agent.mu.Lock()
			r.agent.good = []string{r.stored().RefreshToken}
			r.agent.mu.Unlock()
			r.setApp(app)
			_, _ = r.tokenWithin(time.Minute)
			synctest.Wait()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.authorised()
				sleep(time.Hour)
				r.agent.revoke()
				r.setApp(tokens.App{ClientID: app.ClientID, ClientSecret: secret + "-wrong"})
				if _, err := r.tokenWithin(time.Minute); !errors.Is(err, tokens.ErrReauthorize) {
					t.Fatalf("Token: %v, want ErrReauthorize", err)
				}
				if name != "a corrected client secret" {
					r.setApp(app)
					_, _ = r.tokenWithin(time.Minute)
					synctest.Wait()
				}
				if err := replace(r); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				r.token()
				if time.Since(began) != 0 {
					t.Errorf("waited %v", time.Since(began))
				}
				r.state(tokens.StateOK)
			})
		})
	}
}

// Another writer's grant is looked for before a grant is called dead.
func TestRefusedBecauseAnotherRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.then(func(w http.ResponseWriter, req *http.Request) {
			old := r.stored() // a replica that held no lock was faster
			next := tokens.Grant{Account: account, AccessToken: secret + "-access-99=", RefreshToken: "x", Version: old.Version + 1,
				ObtainedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
			if err := r.store.Store.Save(context.Background(), next, old.Version); err != nil {
				t.Error(err)
			}
			refuse(w, req)
		})
		if got := bearer(t, r.token()); got != 99 {
			t.Errorf("token %d, want the other's, 99", got)
		}
		synctest.Wait()
		r.refreshes(2)
		r.events.expect(t, tokens.EventAdopted)
	})
}

// Others write faster than tokens can be tried: trouble, not a dead grant.
func TestRefusedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.ever(func(w http.ResponseWriter, req *http.Request) {
			old := r.stored()
			next := tokens.Grant{Account: account, RefreshToken: "x", Version: old.Version + 1}
			if err := r.store.Store.Save(context.Background(), next, old.Version); err != nil {
				t.Error(err)
			}
			refuse(w, req)
		})
		if _, err := r.tokenWithin(500 * time.Millisecond); !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("Token: %v, want ErrUnavailable", err)
		}
		r.refreshes(1 + 4)
	})
}

// The refresh token before the newest is tried once, and never again.
func TestPreviousRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.token()
		g := r.stored()
		if g.PreviousRefresh == "" || g.PreviousRefresh == g.RefreshToken {
			t.Fatal("no previous refresh token")
		}
		r.agent.mu.Lock()
		r.agent.good = []string{g.PreviousRefresh} // the answer that brought the newest was never final
		r.agent.mu.Unlock()
		sleep(time.Hour)
		r.token()
		r.refreshes(4)
		want := []string{g.RefreshToken, g.PreviousRefresh}
		if got := r.agent.spentTokens()[2:]; !slices.Equal(got, want) {
			t.Errorf("spent %v, want the newest and then the one before", got)
		}

		r.agent.revoke()
		sleep(3 * time.Hour)
		g = r.stored()
		spent := r.agent.spentTokens()[4:]
		want = []string{g.RefreshToken, g.PreviousRefresh, g.RefreshToken, g.RefreshToken}
		if len(spent) < 4 || !slices.Equal(spent[:4], want) || slices.Contains(spent[4:], g.PreviousRefresh) {
			t.Errorf("spent %v, want the one before once, and the newest again and again", spent)
		}
	})
}

// The access token of a dead grant serves as long as FreeAgent takes it.
func TestAccessTokenOutlivesTheGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		token := r.inUse()
		r.agent.revoke()
		sleep(56 * time.Minute)
		r.state(tokens.StateReauthorise)
		if got := r.token(); got != token {
			t.Error("another token than before")
		}
		if !r.Status(account).Usable {
			t.Error("not usable")
		}
		_, err := r.renewWithin(time.Minute, "GET /", token)
		if !errors.Is(err, tokens.ErrReauthorize) {
			t.Errorf("Renew: %v, want ErrReauthorize", err)
		}
		if r.Status(account).Usable {
			t.Error("usable after its rejection")
		}
		if got := r.token(); got != token {
			t.Error("another token than before; want it kept, since another resource may take it")
		}
		sleep(4 * time.Minute)
		if _, err := r.tokenWithin(time.Minute); !errors.Is(err, tokens.ErrReauthorize) {
			t.Errorf("Token after its expiry: %v, want ErrReauthorize", err)
		}
	})
}

// A rejected token whose renewal is refused: nobody can tell whether it is dead, so it serves on, but
// is not called usable; who meets with a 401 is told to authorise.
func TestRejectedAndRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		token := r.inUse()
		sleep(time.Minute)
		r.agent.revoke()
		for range 10 {
			if _, err := r.request(invoices, never); !errors.Is(err, tokens.ErrReauthorize) {
				t.Errorf("request: %v, want ErrReauthorize", err)
			}
			sleep(time.Second)
		}
		r.refreshes(1 + 2)
		if got, ok := r.TokenNow(account); !ok || got != token || r.Status(account).Usable {
			t.Errorf("served %v, usable %v", ok, r.Status(account).Usable)
		}
		r.fine("GET /v2/company", always) // so it was the resource
		if !r.Status(account).Usable {
			t.Error("not usable although it was accepted again")
		}
		r.own(invoices, 0)
	})
}

// The token endpoint refuses once, asked because of a resource's own 401 or ahead of time. Nobody else notices while
// the access token is accepted.
func TestRefusalWhileTheTokenIsGood(t *testing.T) {
	for name, approach := range map[string]func(*rig){
		"after a 401": func(*rig) { sleep(10 * time.Minute) },
		// Not an age alone: the time ahead is jittered, and a minute later the grant is tried again.
		"ahead of time": func(r *rig) {
			sleep(54 * time.Minute)
			for r.events.count(tokens.EventRefused) == 0 {
				sleep(time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				token := r.inUse()
				r.agent.then(refuse, refuse)
				approach(r)
				if _, err := r.request(forbidden, never); !errors.Is(err, tokens.ErrReauthorize) {
					t.Errorf("own 401: %v, want ErrReauthorize: nothing tells yet that it is", err)
				}
				sleep(time.Second)
				for range 30 {
					r.fine(invoices, always)
					sleep(time.Second)
					r.own(forbidden, 0)
				}
				sleep(2 * time.Minute)
				r.state(tokens.StateOK)
				r.fine(invoices, but(token))
			})
		})
	}
}

// Put while a refresh is being refused: the refusal says nothing of the new grant.
func TestRefusalComesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.revoke()
		r.agent.then(late(10*time.Second, refuse))
		result := make(chan error)
		go func() {
			_, err := r.tokenWithin(time.Minute)
			result <- err
		}()
		sleep(time.Second)
		if err := r.Put(context.Background(), tokens.Grant{Account: account, RefreshToken: r.agent.grant()}); err != nil {
			t.Fatal(err)
		}
		if err := <-result; err != nil {
			t.Errorf("Token: %v, want one of the new grant", err)
		}
		r.state(tokens.StateOK)
		r.refreshes(3)
	})
}
