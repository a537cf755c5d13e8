package tokens_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

// A process that has its store to itself need not ask it for leave: the pair is kept in memory until the store is back.
func TestAloneWithoutStore(t *testing.T) {
	for _, steps := range [][]string{{"lock", "load", "save"}, {"load", "save"}, {"lock"}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, func(c *tokens.Config) { c.Alone = true })
			before := r.inUse()
			r.store.fail(steps...)
			for hour := range 3 { // it refreshes again and again
				time.Sleep(time.Hour)
				token := r.token()
				if token == before {
					t.Fatalf("%v, hour %d: the token is the same", steps, hour)
				}
				before = token
			}
			r.store.heal(steps...)
			time.Sleep(time.Minute)
			if stored := r.stored(); stored.AccessToken == "" || r.Status(account).State != tokens.StateOK {
				t.Errorf("%v: stored %v, %+v", steps, stored, r.Status(account))
			}
			if r.token() != before {
				t.Errorf("%v: the token changed when the store came back", steps)
			}
		})
	}
}

// But it has nothing to go on with before the store was read: it says so, and does not ask it over and over for those who wait.
func TestAloneBeforeTheStoreWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := newRig(t)
		other.authorised()
		r := newRigOn(t, other.agent, other.store.Store, other.agent.endpoint(), func(c *tokens.Config) { c.Alone = true })
		asked := 0 // by one flight at a time
		r.store.on("lock", func() error {
			asked++
			time.Sleep(time.Millisecond)
			return errDisk
		})
		r.store.fail("load")
		_, err := r.tokenWithin(10 * time.Second)
		if !errors.Is(err, tokens.ErrUnavailable) || !errors.Is(err, tokens.ErrStore) {
			t.Errorf("got %v, want an *UnavailableError because of the store", err)
		}
		if asked > 10 {
			t.Errorf("the store was asked %d times in 10 s", asked)
		}
		r.state(tokens.StateTrouble)
		r.store.heal("lock", "load")
		r.token()
	})
}

// One that has not, does not spend its refresh token.
func TestNotAloneWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.inUse()
		r.store.fail("lock", "load", "save")
		spent := r.agent.count()
		time.Sleep(2 * time.Hour)
		if token, err := r.tokenWithin(10 * time.Second); err == nil {
			t.Errorf("token %v", token)
		}
		r.refreshes(spent)
		r.store.heal("lock", "load", "save")
		time.Sleep(time.Minute)
		r.token()
	})
}
