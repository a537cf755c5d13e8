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

// An account that is configured no more is left alone: its token serves those who have asked before, its grant stays, and nothing
// is refreshed. Configured again, it goes on by itself.
func TestAccountComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Bool
		r := newRig(t, func(c *tokens.Config) {
			app := c.App
			c.App = func(name string) (tokens.App, bool) {
				known, ok := app(name)
				return known, ok && !gone.Load()
			}
		})
		first := r.inUse()
		if err := r.Start(context.Background(), []string{account}); err != nil {
			t.Fatal(err)
		}
		gone.Store(true)
		if got := r.token(); got != first {
			t.Error("the token in memory does not serve who has asked before")
		}
		sleep(2 * time.Hour)
		r.refreshes(1)
		if _, err := r.Token(context.Background(), account); !errors.Is(err, tokens.ErrUnknownAccount) {
			t.Errorf("Token: got %v, want ErrUnknownAccount", err)
		}
		if _, err := r.store.Load(context.Background(), account); err != nil {
			t.Errorf("the grant is not stored any more: %v", err)
		}
		gone.Store(false)
		if err := r.Load(context.Background(), []string{account}); err != nil {
			t.Fatal(err)
		}
		if got := r.token(); got == first {
			t.Error("still the old token")
		}
		r.refreshes(2)
	})
}

// What an account that is configured no more owes to the store is paid all the same.
func TestRemovedAccountIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Bool
		r := newRig(t, func(c *tokens.Config) {
			app := c.App
			c.App = func(name string) (tokens.App, bool) {
				known, ok := app(name)
				return known, ok && !gone.Load()
			}
		})
		r.authorised()
		var broken atomic.Bool
		broken.Store(true)
		r.store.on("save", func() error {
			if broken.Load() {
				return tokens.ErrStore
			}
			return nil
		})
		sleep(2 * time.Hour)
		r.token()
		synctest.Wait()
		if !r.Status(account).Unsaved {
			t.Fatal("nothing is owed to the store")
		}
		gone.Store(true)
		broken.Store(false)
		sleep(time.Minute)
		if r.Status(account).Unsaved {
			t.Error("still owed to the store")
		}
	})
}
