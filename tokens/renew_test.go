package tokens_test

import (
	"context"
	"errors"
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
	return r.exactly(resource, resource, healthy)
}

// exactly is request for one of several that share a resource.
func (r *rig) exactly(resource, request string, healthy func(tokens.Token) bool) (rejected bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	q := tokens.Attempt{Account: account, Resource: resource, Request: request}
	for range 4 {
		if q.Token, err = r.Token(ctx, account); err != nil {
			return false, err
		}
		q.Sent = time.Now()
		if healthy(q.Token) {
			r.Accepted(q)
			return false, nil
		}
		_, err = r.Renew(ctx, q)
		if errors.Is(err, tokens.ErrNotRenewed) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		q.Rejected = q.Token
		if q.RejectedAt.IsZero() {
			q.RejectedAt = q.Sent
		}
	}
	return true, nil
}

// but is a resource that takes all tokens but one.
func but(revoked tokens.Token) func(tokens.Token) bool {
	return func(t tokens.Token) bool { return t != revoked }
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

// The same while the renewal ahead of time meets with trouble: not held back beyond the token's life.
func TestYoungTokenNearItsExpiryInTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.lifetime = time.Second
		r.authorised()
		r.agent.then(unavailable)
		token, _ := r.TokenNow(account)
		began := time.Now()
		got, err := r.renewWithin(time.Minute, invoices, token)
		if err != nil || got == token || time.Since(began) > 2500*time.Millisecond {
			t.Errorf("Renew = %v, %v after %v; want another token after one pause", got, err, time.Since(began))
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
