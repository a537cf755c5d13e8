package turns_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/turns"

	"github.com/redis/go-redis/v9"
)

// taker is what both implementations are.
type taker interface {
	Take(ctx context.Context, key turns.Key, wait time.Duration) (end func(), err error)
	Close(ctx context.Context) error
}

const patience = 30 * time.Second

var invoices = turns.Key{Account: "acme", Work: "POST /v2/invoices"}

// contract runs a test over both: in one process, in one that shares a Redis, and between two that do.
func contract(t *testing.T, test func(t *testing.T, one, other taker)) {
	t.Run("local", func(t *testing.T) {
		l := turns.NewLocal()
		closing(t, l)
		test(t, l, l)
	})
	t.Run("Redis, one process", func(t *testing.T) {
		r := shared(t, redistest.Start(t)).Patient().Lasting()
		test(t, r, r)
	})
	t.Run("Redis, two processes", func(t *testing.T) {
		server := redistest.Start(t)
		test(t, shared(t, server).Patient().Lasting(), shared(t, server).Patient().Lasting())
	})
}

// shared is the turns of one process that shares a Redis.
func shared(t *testing.T, server *redistest.Server, observe ...func(error)) *turns.Redis {
	t.Helper()
	o := server.Options()
	o.MaxRetries, o.ContextTimeoutEnabled, o.ReadTimeout = -1, true, patience // it is ours to say how long
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	c := turns.RedisConfig{Client: client}
	if len(observe) > 0 {
		c.Observe = observe[0]
	}
	r := turns.NewRedis(c)
	closing(t, r)
	return r
}

func closing(t *testing.T, l taker) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func take(t *testing.T, l taker, key turns.Key, wait time.Duration) (end func()) {
	t.Helper()
	end, err := l.Take(t.Context(), key, wait)
	if err != nil {
		t.Fatalf("Take: %v", err)
	}
	return end
}

// busy expects that a turn cannot be had within so long.
func busy(t *testing.T, l taker, key turns.Key, wait time.Duration) {
	t.Helper()
	began := time.Now()
	_, err := l.Take(t.Context(), key, wait)
	var e *turns.BusyError
	if !errors.As(err, &e) || e.RetryAfter < time.Second {
		t.Fatalf("Take: %v, want a BusyError of a second at least", err)
	}
	if took := time.Since(began); took < wait/2 || took > wait+5*time.Second {
		t.Errorf("it took %s to learn that, want %s", took, wait)
	}
}

// Nobody has a turn beside another one, and nobody waits for ever.
func TestOneAtATime(t *testing.T) {
	contract(t, func(t *testing.T, one, other taker) {
		var running sync.WaitGroup
		var inside atomic.Int32
		for n := range 100 {
			l := one
			if n%2 == 1 {
				l = other
			}
			running.Go(func() {
				end, err := l.Take(context.Background(), invoices, patience)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d have the turn at once", n)
				}
				time.Sleep(time.Millisecond)
				inside.Add(-1)
				end()
				end() // as often as one likes
			})
		}
		running.Wait()
	})
}

// Another account's turn is another one, and so is that of other work.
func TestKeysAreApart(t *testing.T) {
	contract(t, func(t *testing.T, one, other taker) {
		defer take(t, one, invoices, 0)()
		defer take(t, other, turns.Key{Account: "other", Work: invoices.Work}, 0)()
		defer take(t, other, turns.Key{Account: invoices.Account, Work: "POST /v2/estimates"}, 0)()
		busy(t, other, invoices, 0)
	})
}

// In a process it is first come, first served.
func TestOrder(t *testing.T) {
	contract(t, func(t *testing.T, one, _ taker) {
		end := take(t, one, invoices, 0)
		order := make(chan int, 20)
		var running sync.WaitGroup
		for n := range cap(order) {
			before := time.Now()
			running.Go(func() {
				end, err := one.Take(context.Background(), invoices, patience)
				if err != nil {
					t.Error(err)
					return
				}
				order <- n
				end()
			})
			waits(t, one, n+1, before)
		}
		end()
		running.Wait()
		close(order)
		n := 0
		for got := range order {
			if got != n {
				t.Errorf("%d came as number %d", got, n)
			}
			n++
		}
	})
}

// waits returns when so many wait in the line of a process.
func waits(t *testing.T, l taker, n int, since time.Time) {
	t.Helper()
	counted := l.(interface{ Waiting(key turns.Key) int })
	for counted.Waiting(invoices) < n {
		if time.Since(since) > patience {
			t.Fatalf("%d wait, want %d", counted.Waiting(invoices), n)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestWaitIsBounded(t *testing.T) {
	contract(t, func(t *testing.T, one, other taker) {
		end := take(t, one, invoices, 0)
		busy(t, one, invoices, 0)
		busy(t, other, invoices, 0)
		busy(t, one, invoices, 200*time.Millisecond)
		busy(t, other, invoices, 200*time.Millisecond)
		end()
		take(t, other, invoices, patience)()
	})
}

// Who leaves is gone, and keeps nobody waiting.
func TestLeaving(t *testing.T) {
	contract(t, func(t *testing.T, one, other taker) {
		end := take(t, one, invoices, 0)
		gone := errors.New("gone")
		var leaving sync.WaitGroup
		for range 10 {
			ctx, leave := context.WithCancelCause(t.Context())
			leaving.Go(func() {
				if _, err := other.Take(ctx, invoices, patience); !errors.Is(err, gone) {
					t.Errorf("Take: %v, want the context's cause", err)
				}
			})
			time.AfterFunc(100*time.Millisecond, func() { leave(gone) })
		}
		leaving.Wait()
		end()
		began := time.Now()
		take(t, one, invoices, patience)()
		if took := time.Since(began); took > patience/2 {
			t.Errorf("those who left kept the next one waiting for %s", took)
		}
	})
}

// Who does not need to wait has the turn, whatever its context says: a client may have closed but its half.
func TestFreeTurnIsTaken(t *testing.T) {
	contract(t, func(t *testing.T, one, other taker) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		end, err := one.Take(ctx, invoices, patience)
		if err != nil {
			t.Fatalf("Take: %v", err)
		}
		if _, err := other.Take(ctx, invoices, patience); !errors.Is(err, context.Canceled) {
			t.Errorf("Take of what another one has: %v, want that the context has ended", err)
		}
		end()
	})
}

// Close sends away who waits, and waits for who has a turn.
func TestClose(t *testing.T) {
	contract(t, func(t *testing.T, one, other taker) {
		end := take(t, one, invoices, 0)
		waited := make(chan error, 1)
		go func() {
			_, err := one.Take(context.Background(), invoices, patience)
			waited <- err
		}()
		waits(t, one, 1, time.Now())
		closed := make(chan error, 1)
		go func() { closed <- one.Close(context.Background()) }()
		if err := <-waited; !errors.Is(err, turns.ErrClosed) {
			t.Errorf("who waits got %v, want ErrClosed", err)
		}
		if _, err := one.Take(context.Background(), invoices, patience); !errors.Is(err, turns.ErrClosed) {
			t.Errorf("Take after Close: %v, want ErrClosed", err)
		}
		select {
		case err := <-closed:
			t.Errorf("Close: %v while a turn is held", err)
		default:
		}
		end()
		if err := <-closed; err != nil {
			t.Errorf("Close: %v", err)
		}
		if other != one {
			take(t, other, invoices, turns.LeaseFor-time.Second)() // at once: Close has given it back
		}
	})
}

// Close does not wait for ever.
func TestCloseGivesUp(t *testing.T) {
	contract(t, func(t *testing.T, one, _ taker) {
		end := take(t, one, invoices, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := one.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v, want that time was up", err)
		}
		end()
	})
}

// Where even the quickest of the last eight turns tells that it would come too late, that is said at once; and when to come back.
func TestTooLateIsSaidAtOnce(t *testing.T) { synctest.Test(t, tooLateIsSaidAtOnce) }

func tooLateIsSaidAtOnce(t *testing.T) {
	l := turns.NewLocal()
	closing(t, l)
	end := take(t, l, invoices, 0)
	got := make(chan func(), 4)
	wait := func() {
		end, err := l.Take(context.Background(), invoices, patience)
		if err != nil {
			t.Error(err)
		}
		got <- end
	}
	const long = 200 * time.Millisecond
	for range 8 {
		go wait()
		waits(t, l, 1, time.Now())
		time.Sleep(long) // how long a turn takes
		end()
		end = <-got
	}
	for range cap(got) {
		go wait()
	}
	waits(t, l, cap(got), time.Now())
	began := time.Now()
	var e *turns.BusyError
	if _, err := l.Take(t.Context(), invoices, 4*long); !errors.As(err, &e) || e.RetryAfter < 5*long {
		t.Errorf("Take: %v, want a BusyError of five turns of %s", err, long)
	}
	if took := time.Since(began); took != 0 {
		t.Errorf("said after %s", took)
	}
	end()
	for range cap(got) {
		(<-got)()
	}
}

// No turn costs memory when it is over.
func TestNothingIsKept(t *testing.T) {
	l := turns.NewLocal()
	closing(t, l)
	for n := range 1000 {
		take(t, l, turns.Key{Account: "acme", Work: fmt.Sprint(n)}, 0)()
	}
	if n := l.Lines(); n != 0 {
		t.Errorf("%d lines are left", n)
	}
}
