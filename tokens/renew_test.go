package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

const invoices = "GET /v2/invoices"

// request is what the proxy does with one request to a resource; healthy says whether FreeAgent takes the
// token there. It returns whether the client saw a 401.
func (r *rig) request(resource string, healthy func(tokens.Token) bool) (rejected bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	token, err := r.Token(ctx, account)
	if err != nil {
		return false, err
	}
	if healthy(token) {
		r.Accepted(account, resource, token)
		return false, nil
	}
	token, err = r.Renew(ctx, tokens.Rejection{Account: account, Token: token, Resource: resource})
	if errors.Is(err, tokens.ErrNotRenewed) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if healthy(token) {
		r.Accepted(account, resource, token)
		return false, nil
	}
	r.StillRejected(account, resource, token)
	return true, nil
}

func always(tokens.Token) bool { return true }
func never(tokens.Token) bool  { return false }

func TestRevokedTokenIsRenewedAtOnce(t *testing.T) {
	for _, age := range []time.Duration{5 * time.Second, time.Minute, 50 * time.Minute} {
		t.Run(age.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				old := r.inUse()
				sleep(age)
				began := time.Now()
				got, err := r.renewWithin(time.Minute, invoices, old)
				if err != nil || got == old || time.Since(began) != 0 {
					t.Errorf("Renew = %v, %v after %v; want another token at once", got, err, time.Since(began))
				}
				r.refreshes(2)
			})
		})
	}
}

// A token that is younger than 5 s is renewed when it has become so old.
func TestYoungTokenIsRenewedWhenItIsOldEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		young := r.inUse()
		sleep(2 * time.Second)
		began := time.Now()
		got, err := r.renewWithin(time.Minute, invoices, young)
		if err != nil || got == young || time.Since(began) != 3*time.Second {
			t.Errorf("Renew = %v, %v after %v; want another token after 3 s", got, err, time.Since(began))
		}
		sleep(time.Second)
		if _, err := r.renewWithin(time.Second, invoices, got); !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("Renew with too little patience: %v, want ErrUnavailable", err)
		}
		r.refreshes(2)
	})
}

// Who waits for a token to grow old enough gets one that came meanwhile.
func TestYoungTokenIsReplacedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		young := r.inUse()
		go func() {
			time.Sleep(time.Second)
			if err := r.Import(context.Background(), account, r.agent.grant()); err != nil {
				t.Error(err)
			}
		}()
		began := time.Now()
		got, err := r.renewWithin(time.Minute, invoices, young)
		if err != nil || got == young || time.Since(began) != time.Second {
			t.Errorf("Renew = %v, %v after %v; want the imported one after 1 s", got, err, time.Since(began))
		}
	})
}

// With tokens that live a second expiry decides, not the floors.
func TestYoungTokenNearItsExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.lifetime = time.Second
		r.authorised()
		token, _ := r.TokenNow(account)
		began := time.Now()
		got, err := r.renewWithin(time.Minute, invoices, token)
		if err != nil || got == token || time.Since(began) > time.Second {
			t.Errorf("Renew = %v, %v after %v; want another token within its life", got, err, time.Since(began))
		}
	})
}

// An endpoint that gives out the same access token again has renewed it all the same.
func TestSameAccessTokenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.ever(answer(200, "application/json", `{"access_token":"same","refresh_token":"same","expires_in":3600}`))
		r.authorised()
		token := r.token()
		sleep(time.Minute)
		began := time.Now()
		got, err := r.renewWithin(time.Minute, invoices, token)
		if err != nil || got != token || time.Since(began) != 0 {
			t.Errorf("Renew = %v, %v after %v; want the same token at once", got, err, time.Since(began))
		}
		r.refreshes(2)
	})
}

func TestRenewWaitsThroughTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		token := r.inUse()
		sleep(time.Minute)
		r.agent.then(unavailable, unavailable)
		if got, err := r.renewWithin(time.Minute, invoices, token); err != nil || got == token {
			t.Errorf("Renew = %v, %v; want another token", got, err)
		}
		r.refreshes(4)
		r.agent.ever(unavailable)
		sleep(time.Minute)
		if _, err := r.renewWithin(20*time.Second, invoices, r.token()); !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("Renew: %v, want ErrUnavailable", err)
		}
	})
}

// A resource that answers 401 to healthy tokens, polled each second amid healthy traffic: at most two
// refreshes in any minute, and no client waits for it.
func TestStubbornResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(10 * time.Second)
		for i := range 10 * 60 {
			began := time.Now()
			if rejected, err := r.request("GET /v2/forbidden", never); !rejected || err != nil {
				t.Fatalf("second %d: rejected %v, %v; want the resource's own 401", i, rejected, err)
			}
			if waited := time.Since(began); waited != 0 {
				t.Errorf("second %d: waited %v", i, waited)
			}
			if rejected, err := r.request(invoices, always); rejected || err != nil {
				t.Fatalf("second %d: healthy traffic: %v, %v", i, rejected, err)
			}
			sleep(time.Second)
		}
		if n := most(r.agent.times()[1:], time.Minute); n > 2 {
			t.Errorf("%d refreshes in one minute", n)
		}
		if n := r.agent.count(); n < 15 || n > 21 {
			t.Errorf("%d refreshes in ten minutes, want about two each", n)
		}

		// Meanwhile a token that is revoked is cured at once by any other resource.
		sleep(10 * time.Second)
		revoked := r.token()
		began := time.Now()
		if rejected, err := r.request(invoices, func(t tokens.Token) bool { return t != revoked }); rejected || err != nil || time.Since(began) != 0 {
			t.Errorf("revoked token: %v, %v after %v", rejected, err, time.Since(began))
		}
	})
}

// A resource that accepts a token again is trusted again.
func TestStubbornResourceComesRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(time.Minute)
		if r.Suspicious() {
			t.Error("suspicious of nothing")
		}
		_, _ = r.request(invoices, never)
		r.refreshes(2)
		if !r.Suspicious() {
			t.Error("not suspicious")
		}
		sleep(10 * time.Second)
		if rejected, _ := r.request(invoices, never); !rejected {
			t.Error("not stubborn")
		}
		r.refreshes(2)
		_, _ = r.request(invoices, always)
		if r.Suspicious() {
			t.Error("still suspicious")
		}
		revoked := r.token()
		if rejected, err := r.request(invoices, func(t tokens.Token) bool { return t != revoked }); rejected || err != nil {
			t.Errorf("request: %v, %v; want it cured", rejected, err)
		}
		r.refreshes(3)
	})
}

// Requests that wait for a token to grow old enough are let go when it turns out to be the resource's fault.
func TestWaitingForAStubbornResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(time.Minute)
		fresh, err := r.renewWithin(time.Minute, invoices, r.token())
		if err != nil {
			t.Fatal(err)
		}
		waiting := make(chan error)
		go func() {
			_, err := r.renewWithin(time.Minute, invoices, fresh)
			waiting <- err
		}()
		sleep(time.Second)
		r.StillRejected(account, invoices, fresh)
		began := time.Now()
		if err := <-waiting; !errors.Is(err, tokens.ErrNotRenewed) || time.Since(began) != 0 {
			t.Errorf("Renew: %v after %v, want ErrNotRenewed at once", err, time.Since(began))
		}
		r.refreshes(2)
	})
}

// A company where everything is 401: the floor doubles up to a minute.
func TestEverythingIsRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(time.Minute)
		for i := range 10 * 60 {
			resource := fmt.Sprintf("GET /v2/resource-%c", 'a'+i%26)
			if rejected, err := r.request(resource, never); !rejected || err != nil {
				t.Fatalf("second %d: %v, %v", i, rejected, err)
			}
			sleep(time.Second)
		}
		if n := r.agent.count(); n > 16 {
			t.Errorf("%d refreshes in ten minutes", n)
		}
		at := r.agent.times()
		if n := most(at[6:], time.Minute); n > 1 {
			t.Errorf("%d refreshes in one minute, want one in the end", n)
		}

		// One answer that is not 401, and all is forgotten.
		sleep(time.Minute)
		before := r.agent.count()
		r.Accepted(account, invoices, r.token())
		revoked := r.token()
		if rejected, err := r.request("GET /v2/new", func(t tokens.Token) bool { return t != revoked }); rejected || err != nil {
			t.Errorf("request: %v, %v; want it cured", rejected, err)
		}
		r.refreshes(before + 1)
	})
}

// 500 requests that saw the same renewal fail count as one.
func TestUselessRenewalCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(time.Minute)
		fresh, err := r.renewWithin(time.Minute, invoices, r.token())
		if err != nil {
			t.Fatal(err)
		}
		for range 500 {
			r.StillRejected(account, invoices, fresh)
		}
		sleep(10 * time.Second) // the floor is 10 s now
		began := time.Now()
		if _, err := r.renewWithin(time.Minute, "GET /v2/other", fresh); err != nil || time.Since(began) != 0 {
			t.Errorf("Renew: %v after %v, want it at once", err, time.Since(began))
		}
	})
}

// A token that is not fresh says nothing of the resource: it may have been revoked since.
func TestOldTokenIsNotTheResourcesFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		token := r.inUse()
		sleep(time.Minute)
		r.StillRejected(account, invoices, token)
		if _, err := r.renewWithin(time.Minute, invoices, token); err != nil {
			t.Errorf("Renew: %v, want it renewed", err)
		}
		r.StillRejected(account, invoices, token) // not the current one
		sleep(6 * time.Second)
		if _, err := r.renewWithin(time.Minute, invoices, r.token()); err != nil {
			t.Errorf("Renew: %v, want it renewed", err)
		}
		r.refreshes(3)
	})
}

// What is remembered of resources is bounded: the one that was silent longest is forgotten.
func TestStubbornResourcesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		token := r.inUse()
		for i := range 1000 {
			r.StillRejected(account, fmt.Sprint("GET /v2/", i), token)
			sleep(time.Millisecond)
		}
		sleep(10 * time.Second)
		r.Accepted(account, "GET /v2/fine", token) // the floor is 5 s again
		if _, err := r.renewWithin(time.Minute, "GET /v2/999", token); !errors.Is(err, tokens.ErrNotRenewed) {
			t.Errorf("the newest: %v, want ErrNotRenewed", err)
		}
		if _, err := r.renewWithin(time.Minute, "GET /v2/0", token); err != nil {
			t.Errorf("the oldest: %v, want it forgotten and the token renewed", err)
		}
	})
}

// A clock that was set back does not make a token young for hours.
func TestTokenFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		later := time.Now().Add(time.Hour)
		g := tokens.Grant{Account: account, AccessToken: "from the future", RefreshToken: r.agent.grant(),
			ObtainedAt: later, ExpiresAt: later.Add(time.Hour)}
		if err := r.Put(context.Background(), g); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := r.renewWithin(time.Minute, invoices, r.token()); err != nil || time.Since(began) != 0 {
			t.Errorf("Renew: %v after %v, want it at once", err, time.Since(began))
		}
	})
}

// 401s and renewals from all sides at once, on the real clock: for the race detector.
func TestRenewConcurrently(t *testing.T) {
	agent := newFreeAgent()
	agent.lifetime = time.Second
	r := newRigOn(t, agent, newMemory(), agent.listen(t, 0))
	r.authorised()
	var rejections atomic.Int64
	until := time.Now().Add(2 * time.Second)
	gather(t, 50, func() (tokens.Token, error) {
		for i := 0; time.Now().Before(until); i++ {
			healthy := func(tokens.Token) bool { return i%7 != 0 }
			if rejected, err := r.request(invoices, healthy); err != nil {
				return tokens.Token{}, err
			} else if rejected {
				rejections.Add(1)
			}
			_ = r.Status(account)
			time.Sleep(time.Millisecond)
		}
		return tokens.Token{}, nil
	})
	if n := agent.count(); n > 8 {
		t.Errorf("%d refreshes in 2 s with tokens of 1 s", n)
	}
}
