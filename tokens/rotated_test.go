package tokens_test

import (
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

// withhold keeps access tokens out of the answers, which rotate the refresh token all the same.
func (f *freeAgent) withhold(yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.more = nil
	if yes {
		f.more = map[string]any{"access_token": nil}
	}
}

// A refresh token that came without an access token is kept, stored, and spent next: FreeAgent takes the one before no more.
func TestRotatedWithoutAccessToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := r.inUse()
		r.agent.withhold(true)
		sleep(59 * time.Minute)
		if got := r.token(); got != first {
			t.Error("the good token does not serve through it")
		}
		r.state(tokens.StateTrouble)
		sleep(2 * time.Minute)
		if _, err := r.tokenWithin(40 * time.Second); err == nil {
			t.Error("there is a token")
		}
		r.state(tokens.StateTrouble)
		spent := r.agent.spentTokens()
		if want := r.stored().PreviousRefresh; want != spent[len(spent)-1] {
			t.Errorf("the store has what %q brought, want %q", want, spent[len(spent)-1])
		}
		for i, d := range gaps(r.agent.times()[1:]) {
			if least := min(time.Second<<i, 8*time.Second); d < least {
				t.Errorf("pause %d was %v, want %v at least", i, d, least)
			}
		}
		r.agent.withhold(false)
		if got := r.token(); got == first {
			t.Error("the token was not renewed")
		}
		synctest.Wait()
		r.state(tokens.StateOK)
	})
}
