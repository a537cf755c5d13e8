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

// When the grant is dead a stubborn resource does not end the access token that others accept.
func TestStubbornResourceOfADeadGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		sleep(time.Minute)
		_, _ = r.request(invoices, never)
		r.agent.revoke()
		for range 3 {
			sleep(40 * time.Second)
			if rejected, err := r.request(invoices, never); err != nil && !errors.Is(err, tokens.ErrReauthorize) {
				t.Errorf("request: %v, %v", rejected, err)
			}
			if rejected, err := r.request("GET /v2/company", always); rejected || err != nil {
				t.Errorf("healthy traffic: %v, %v", rejected, err)
			}
		}
		r.state(tokens.StateReauthorise)
		if rejected, err := r.request(invoices, never); !rejected || err != nil {
			t.Errorf("request: %v, %v; want the resource's own 401", rejected, err)
		}
	})
}

// A new consent is not held responsible for what the last one's tokens met with.
func TestStubbornResourcesOfAnotherGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, replace := range []func(*rig) error{
			func(r *rig) error { return r.Put(context.Background(), r.consent("50")) },
			func(r *rig) error { return r.Remove(context.Background(), account) },
		} {
			r := newRig(t)
			r.inUse()
			sleep(time.Minute)
			_, _ = r.request(invoices, never)
			if err := replace(r); err != nil {
				t.Fatal(err)
			}
			if r.Suspicious() {
				t.Error("still suspicious")
			}
		}
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

// A stubborn resource is polled alone, then a token is revoked: what other resources meet
// with is cured, since its 401s were not the token's fault.
func TestRevokedBesideAStubbornResource(t *testing.T) {
	for _, polls := range []int{1, 3, 600} {
		t.Run(fmt.Sprint(polls), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.inUse()
				for range polls {
					if rejected, err := r.request("GET /v2/forbidden", never); !rejected || err != nil {
						t.Fatalf("request: %v, %v; want the resource's own 401", rejected, err)
					}
					sleep(time.Second)
				}
				if n := most(r.agent.times(), time.Minute); n > 3 { // the first is the import
					t.Errorf("%d refreshes in one minute", n)
				}
				revoked := r.token()
				before := r.agent.count()
				if rejected, err := r.request(invoices, func(t tokens.Token) bool { return t != revoked }); rejected || err != nil {
					t.Errorf("revoked token: %v, %v; want it cured", rejected, err)
				}
				r.refreshes(before + 1)
			})
		})
	}
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
		sleep(5 * time.Second)
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

// What is remembered of resources is bounded: the one longest ago is forgotten.
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
