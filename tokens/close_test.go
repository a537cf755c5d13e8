package tokens_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

func (r *rig) closeWithin(d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return r.Close(ctx)
}

// Who waits is let go at once; the refresh that was sent is finished and stored.
func TestCloseFinishesWhatWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.then(late(10*time.Second, r.agent.refresh))
		waiting := make(chan error, 1)
		go func() {
			_, err := r.tokenWithin(time.Minute)
			waiting <- err
		}()
		sleep(time.Second)
		closed := make(chan error)
		go func() { closed <- r.closeWithin(30 * time.Second) }()
		began := time.Now()
		if err := <-waiting; !errors.Is(err, tokens.ErrClosed) || time.Since(began) != 0 {
			t.Errorf("Token: %v after %v, want ErrClosed at once", err, time.Since(began))
		}
		if err := <-closed; err != nil {
			t.Errorf("Close: %v", err)
		}
		if got, want := r.stored().AccessToken, secret+"-access-3="; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
		if got := bearer(t, r.token()); got != 3 {
			t.Errorf("token %d, want what there is to serve to the end", got)
		}
		ctx := context.Background()
		_, renewErr := r.renewWithin(time.Second, invoices, r.token())
		for what, err := range map[string]error{
			"Renew": renewErr, "Put": r.Put(ctx, r.consent("50")), "Import": r.Import(ctx, account, "x"),
			"Seed": r.Seed(ctx, account, "x"), "Remove": r.Remove(ctx, account), "Start": r.Start(ctx, nil),
		} {
			if !errors.Is(err, tokens.ErrClosed) {
				t.Errorf("%s after Close: %v, want ErrClosed", what, err)
			}
		}
	})
}

// What was not sent yet is not begun.
func TestCloseBeginsNothing(t *testing.T) {
	t.Run("waits for the lock", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.authorised()
			sleep(time.Hour)
			if _, err := r.store.Lock(context.Background(), account); err != nil {
				t.Fatal(err)
			}
			r.closesAtOnce()
		})
	})
	t.Run("waits for a permit", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			granted := 0
			r := newRig(t, func(c *tokens.Config) {
				c.Permit = func(ctx context.Context, _ string) (func(), func(), error) {
					if granted++; granted > 1 {
						<-ctx.Done()
						return nil, nil, ctx.Err()
					}
					return func() {}, func() {}, nil
				}
			})
			r.authorised()
			sleep(time.Hour)
			r.closesAtOnce()
		})
	})
}

// closesAtOnce expects that nothing keeps Close from ending, and that nothing more is spent.
func (r *rig) closesAtOnce() {
	r.t.Helper()
	go func() { _, _ = r.tokenWithin(time.Minute) }()
	sleep(time.Second)
	began := time.Now()
	if err := r.closeWithin(30 * time.Second); err != nil || time.Since(began) != 0 {
		r.t.Errorf("Close: %v after %v, want nil at once", err, time.Since(began))
	}
	r.refreshes(1)
}

// Close waits for the store, and says whose tokens it could not store.
func TestCloseAndTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.store.fail("save")
		ctx := context.Background()
		_ = r.Import(ctx, account, r.agent.grant())
		_ = r.Import(ctx, "other", r.agent.grant())
		closed := make(chan error)
		go func() { closed <- r.closeWithin(time.Minute) }()
		sleep(10 * time.Second)
		r.store.heal("save")
		if err := <-closed; err != nil {
			t.Errorf("Close: %v", err)
		}
		if got, want := r.stored().AccessToken, secret+"-access-2="; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.store.fail("save")
		ctx := context.Background()
		_ = r.Import(ctx, account, r.agent.grant())
		_ = r.Import(ctx, "other", r.agent.grant())
		began := time.Now()
		err := r.closeWithin(10 * time.Second)
		if !errors.Is(err, tokens.ErrStore) || !strings.Contains(err.Error(), `"acme"`) || !strings.Contains(err.Error(), `"other"`) {
			t.Errorf("Close: %v, want ErrStore naming both accounts", err)
		}
		if d := time.Since(began); d != 10*time.Second {
			t.Errorf("Close took %v", d)
		}
	})
}

// A code that was sent is exchanged to its end, and what it brings is stored: it is good for once.
func TestCloseFinishesAnExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		pair := `{"access_token": "` + secret + `-access-50=", "refresh_token": "` + secret + `-refresh-50=", "expires_in": 3600}`
		r.agent.then(late(10*time.Second, answer(200, "application/json", pair)))
		exchanged := make(chan error, 1)
		go func() { exchanged <- r.Exchange(context.Background(), account, "code", "http://localhost/callback") }()
		sleep(time.Second)
		if err := r.closeWithin(30 * time.Second); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-exchanged; err != nil {
			t.Errorf("Exchange: %v", err)
		}
		if got, want := r.stored().RefreshToken, secret+"-refresh-50="; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
		if err := r.Exchange(context.Background(), account, "code", ""); !errors.Is(err, tokens.ErrClosed) {
			t.Errorf("Exchange after Close: %v, want ErrClosed", err)
		}
		r.refreshes(1)
	})
}

// A code, or an imported token, whose answer outlasts Close's patience is named, too.
func TestCloseCutsOperatorsOff(t *testing.T) {
	for name, do := range map[string]func(r *rig) error{
		"code":   func(r *rig) error { return r.Exchange(context.Background(), account, "code", "") },
		"import": func(r *rig) error { return r.Import(context.Background(), account, r.agent.grant()) },
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.agent.then(late(25*time.Second, r.agent.refresh))
			done := make(chan error, 1)
			go func() { done <- do(r) }()
			sleep(time.Second)
			if err := r.closeWithin(5 * time.Second); err == nil || !strings.Contains(err.Error(), `"acme" was cut off`) {
				t.Errorf("%s: Close: %v, want the account named", name, err)
			}
			if err := <-done; err == nil {
				t.Errorf("%s: it worked", name)
			}
		})
	}
}

// A refresh that outlasts Close's patience is cut off, and named.
func TestCloseCutsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.then(late(25*time.Second, r.agent.refresh))
		go func() { _, _ = r.tokenWithin(time.Minute) }()
		sleep(time.Second)
		began := time.Now()
		if err := r.closeWithin(5 * time.Second); err == nil || !strings.Contains(err.Error(), `"acme"`) || time.Since(began) != 5*time.Second {
			t.Errorf("Close: %v after %v, want the account named after 5 s", err, time.Since(began))
		}
	})
}
