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

// Clients wait through an outage within their patience; tries come after 1 s, then ever more
// rarely up to 10 s; the grant is kept.
func TestTroubleIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.ever(unavailable)
		patient := make(chan error)
		go func() {
			_, err := r.tokenWithin(5 * time.Minute)
			patient <- err
		}()
		_, err := r.tokenWithin(30 * time.Second)
		unavailable := new(tokens.UnavailableError)
		if !errors.As(err, &unavailable) || !errors.Is(err, tokens.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Token: %v, want an UnavailableError at the deadline", err)
		}
		if d := unavailable.RetryAfter(); d < time.Second || d > 10*time.Second {
			t.Errorf("RetryAfter = %v, want 1 s to 10 s", d)
		}
		if trouble := new(tokens.TroubleError); !errors.As(err, &trouble) || trouble.Status != http.StatusServiceUnavailable {
			t.Errorf("Token: %v, want the cause in it", err)
		}
		r.state(tokens.StateTrouble)
		sleep(time.Minute)
		r.agent.ever(nil)
		if err := <-patient; err != nil {
			t.Errorf("who was patient got %v", err)
		}
		synctest.Wait()
		r.state(tokens.StateOK)
		pauses := gaps(r.agent.times()[1:])
		for i, d := range pauses {
			least := min(time.Second<<i, 8*time.Second)
			longest := least * 5 / 4
			if d < least || d > longest {
				t.Errorf("pause %d was %v, want %v to %v", i, d, least, longest)
			}
		}
		if len(pauses) < 9 || len(pauses) > 15 {
			t.Errorf("%d tries in 90 s", len(pauses))
		}
		r.events.expect(t, tokens.EventTrouble, tokens.EventRefreshed)
	})
}

// When nobody waits nothing is tried, and who comes next keeps to the pause.
func TestNothingIsTriedForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.ever(unavailable)
		_, _ = r.tokenWithin(100 * time.Millisecond)
		for range 5 { // all within the first pause
			_, _ = r.tokenWithin(50 * time.Millisecond)
		}
		sleep(24 * time.Hour)
		r.refreshes(2)
		_, _ = r.tokenWithin(100 * time.Millisecond)
		r.refreshes(3)
	})
}

// The old token serves while its renewal ahead of time meets with trouble.
func TestGoodTokenServesThroughTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := r.inUse()
		r.agent.ever(unavailable)
		sleep(59 * time.Minute)
		began := time.Now()
		if got := r.token(); got != first || time.Since(began) != 0 {
			t.Errorf("Token = %v after %v, want the old one at once", got, time.Since(began))
		}
		if n := r.agent.count(); n < 10 {
			t.Errorf("%d refresh requests, want that it goes on being tried", n)
		}
		r.state(tokens.StateTrouble)
		r.agent.ever(nil)
		sleep(10 * time.Second)
		if got := r.token(); got == first {
			t.Error("the token was not renewed when the trouble was over")
		}
	})
}

// A 429's Retry-After is kept to; by who waits for no longer than the 10 s that are the most for any trouble.
func TestRetryAfterIsKept(t *testing.T) {
	for _, c := range []struct {
		header      string // and Date
		least, most time.Duration
	}{
		{"7", 7 * time.Second, 7 * time.Second},
		{"30", 8 * time.Second, 10 * time.Second},
		{"3600", 8 * time.Second, 10 * time.Second},
		{"Sat, 01 Jan 2000 01:00:40 GMT", 8 * time.Second, 10 * time.Second},
		{"Sat, 01 Jan 2000 00:00:40 GMT; Sat, 01 Jan 2000 00:00:33 GMT", 7 * time.Second, 7 * time.Second}, // by its Date
		{"0", time.Second, 1250 * time.Millisecond},
		{"soon", time.Second, 1250 * time.Millisecond},
		{"", time.Second, 1250 * time.Millisecond},
	} {
		t.Run(c.header, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.authorised()
				sleep(time.Hour)
				r.agent.then(func(w http.ResponseWriter, req *http.Request) {
					after, date, _ := strings.Cut(c.header, "; ")
					w.Header().Set("Retry-After", after)
					if date != "" {
						w.Header().Set("Date", date)
					}
					answer(http.StatusTooManyRequests, "text/plain", "You must not exceed 15 requests per 60 seconds")(w, req)
				})
				began := time.Now()
				if _, err := r.tokenWithin(5 * time.Minute); err != nil {
					t.Fatal(err)
				}
				if waited := time.Since(began); waited < c.least || waited > c.most {
					t.Errorf("tried again after %v, want %v to %v", waited, c.least, c.most)
				}
				r.refreshes(3)
			})
		})
	}
}

// While the old token serves nobody waits, and it is kept to whole, but for what is more likely a mistake.
func TestRetryAfterIsKeptWhileNobodyWaits(t *testing.T) {
	for header, want := range map[string]time.Duration{"30": 30 * time.Second, "60": time.Minute, "3600": time.Minute} {
		t.Run(header, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				first := r.inUse()
				r.agent.then(func(w http.ResponseWriter, req *http.Request) {
					w.Header().Set("Retry-After", header)
					answer(http.StatusTooManyRequests, "text/plain", "You must not exceed 15 requests per 60 seconds")(w, req)
				})
				for range 2 * 3600 {
					sleep(500 * time.Millisecond)
					if got := r.token(); got != first {
						break
					}
				}
				times := r.agent.times()
				if len(times) != 3 || times[2].Sub(times[1]) != want {
					t.Errorf("asked at %v, want %v between the last two", times, want)
				}
			})
		})
	}
}

// A token call that hangs has its own deadline, and the flight with it.
func TestHangingTokenCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		r.agent.then(late(10*time.Minute, unavailable))
		began := time.Now()
		r.token()
		if waited := time.Since(began); waited < 30*time.Second || waited > 32*time.Second {
			t.Errorf("waited %v, want 30 s for the call and a second for the pause", waited)
		}
		r.refreshes(3)
	})
}

// A store that cannot be written costs no refresh token.
func TestUnwritableStoreSpendsNothing(t *testing.T) {
	for _, step := range []string{"lock", "load"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.authorised()
				sleep(time.Hour)
				r.store.fail(step)
				_, err := r.tokenWithin(10 * time.Second)
				if !errors.Is(err, tokens.ErrUnavailable) || !errors.Is(err, tokens.ErrStore) {
					t.Errorf("Token: %v, want ErrUnavailable because of ErrStore", err)
				}
				r.refreshes(1)
				r.store.heal(step)
				sleep(10 * time.Second)
				r.token()
				r.refreshes(2)
			})
		})
	}
}

// A lock that never comes does not hold a flight for ever.
func TestLockThatNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		sleep(time.Hour)
		lease, err := r.store.Store.Lock(context.Background(), account)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.tokenWithin(3 * time.Minute)
		if !errors.Is(err, tokens.ErrUnavailable) || !errors.Is(err, tokens.ErrStore) {
			t.Errorf("Token: %v, want ErrUnavailable because of the lock", err)
		}
		lease.Release()
		r.token()
		r.refreshes(2)
	})
}

// A token that had expired when it came is no reason to ask for the next at once.
func TestTokenThatIsDeadOnArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.authorised()
		r.agent.lifetime = time.Second
		sleep(time.Hour)
		r.agent.trouble = func() { time.Sleep(2 * time.Second) }
		if _, err := r.tokenWithin(time.Minute); !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("Token: %v, want ErrUnavailable", err)
		}
		if n := r.agent.count(); n > 25 {
			t.Errorf("%d refreshes in a minute", n)
		}
		r.agent.trouble = nil
		r.token()
	})
}
