package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/tokens"
)

func TestMemory(t *testing.T) {
	testStore(t, func(t *testing.T) tokens.Store { return newMemory() })
}

func TestFile(t *testing.T) {
	testStore(t, func(t *testing.T) tokens.Store { return openFile(t, tokens.FileConfig{Dir: t.TempDir()}) })
}

// testStore is what every Store must do. open returns an empty one, which is closed by the test's cleanup.
func testStore(t *testing.T, open func(t *testing.T) tokens.Store) {
	ctx := context.Background()
	at := time.Date(2026, 3, 1, 12, 30, 0, 123456789, time.UTC)
	full := tokens.Grant{
		Account: account, AccessToken: "access=", RefreshToken: "refresh/+=", PreviousRefresh: "previous",
		ObtainedAt: at, ExpiresAt: at.Add(time.Hour), RefreshObtained: at, RefreshExpiresAt: at.AddDate(20, 0, 0),
		Version: 5, Seeds: []string{"one", "two"},
	}
	save := func(t *testing.T, s tokens.Store, g tokens.Grant, previous int64) {
		t.Helper()
		if err := s.Save(ctx, g, previous); err != nil {
			t.Fatalf("Save: %v", err)
		}
	}

	t.Run("a grant comes back as it was", func(t *testing.T) {
		s := open(t)
		save(t, s, full, 0)
		got, err := s.Load(ctx, account)
		want := full
		if moved := got.ObtainedAt.Sub(at); moved.Abs() < 10*time.Second { // by as much as the way to Redis took, if that was more than a second
			for _, t := range []*time.Time{&want.ObtainedAt, &want.ExpiresAt, &want.RefreshObtained, &want.RefreshExpiresAt} {
				*t = t.Add(moved)
			}
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Load = %v, %v; want what was saved", got, err)
		}
		bare := tokens.Grant{Account: "bare", RefreshToken: "r", Version: 1}
		save(t, s, bare, 0)
		if got, err := s.Load(ctx, "bare"); err != nil || !got.RefreshExpiresAt.IsZero() || got.RefreshToken != "r" {
			t.Errorf("Load = %v, %v; want what was saved", got, err)
		}
	})
	t.Run("no grant", func(t *testing.T) {
		s := open(t)
		if _, err := s.Load(ctx, account); !errors.Is(err, tokens.ErrNoGrant) {
			t.Errorf("Load: %v, want ErrNoGrant", err)
		}
		if err := s.Remove(ctx, account); !errors.Is(err, tokens.ErrNoGrant) {
			t.Errorf("Remove: %v, want ErrNoGrant", err)
		}
		if got, err := s.Accounts(ctx); err != nil || len(got) != 0 {
			t.Errorf("Accounts = %v, %v; want none", got, err)
		}
	})
	t.Run("compare and set", func(t *testing.T) {
		s := open(t)
		if err := s.Save(ctx, full, 4); !errors.Is(err, tokens.ErrConflict) {
			t.Errorf("Save over a version that is not there: %v, want ErrConflict", err)
		}
		save(t, s, full, 0)
		next := full
		next.Version, next.AccessToken = 6, "newer"
		for _, previous := range []int64{0, 4, 6} {
			if err := s.Save(ctx, next, previous); !errors.Is(err, tokens.ErrConflict) {
				t.Errorf("Save over version %d: %v, want ErrConflict", previous, err)
			}
		}
		if got, _ := s.Load(ctx, account); got.AccessToken != full.AccessToken {
			t.Error("a conflict wrote something")
		}
		save(t, s, next, 5)
		if got, _ := s.Load(ctx, account); got.AccessToken != "newer" {
			t.Error("the next version was not written")
		}
	})
	t.Run("after Remove", func(t *testing.T) {
		s := open(t)
		save(t, s, full, 0)
		if err := s.Remove(ctx, account); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(ctx, account); !errors.Is(err, tokens.ErrNoGrant) {
			t.Errorf("Load: %v, want ErrNoGrant", err)
		}
		next := full
		next.Version = time.Now().Add(time.Hour).UnixMilli() // a removal is no older than now
		if err := s.Save(ctx, next, full.Version); !errors.Is(err, tokens.ErrConflict) {
			t.Errorf("Save over what was removed: %v, want ErrConflict", err)
		}
		save(t, s, next, 0)
	})
	t.Run("accounts of all names", func(t *testing.T) {
		s := open(t)
		names := []string{"", "..", "../up", "/etc/passwd", "a b", "acme", "acme.grant", "acme%20", "ACME", "ünïcødé", "new\nline", "{tag}", "\xff"}
		for i, name := range names {
			save(t, s, tokens.Grant{Account: name, RefreshToken: fmt.Sprint(i), Version: 1}, 0)
		}
		for i, name := range names {
			if got, err := s.Load(ctx, name); err != nil || got.RefreshToken != fmt.Sprint(i) {
				t.Errorf("Load(%q) = %v, %v", name, got, err)
			}
		}
		slices.Sort(names)
		if got, err := s.Accounts(ctx); err != nil || !slices.Equal(got, names) {
			t.Errorf("Accounts = %q, %v; want %q", got, err, names)
		}
	})
	t.Run("one writer of many wins", func(t *testing.T) {
		s := open(t)
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				g := tokens.Grant{Account: account, RefreshToken: fmt.Sprint(i), Version: int64(i + 1)}
				switch err := s.Save(ctx, g, 0); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, tokens.ErrConflict):
					t.Errorf("Save: %v", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d writers won, want 1", won.Load())
		}
	})
	t.Run("lock", func(t *testing.T) {
		s := open(t)
		lease, err := s.Lock(ctx, account)
		if err != nil {
			t.Fatal(err)
		}
		other, err := s.Lock(ctx, "other")
		if err != nil {
			t.Fatalf("Lock of another account: %v", err)
		}
		other.Release()
		impatient, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		if _, err := s.Lock(impatient, account); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock of what is locked: %v, want DeadlineExceeded", err)
		}
		next := make(chan error)
		go func() {
			lease, err := s.Lock(ctx, account)
			if err == nil {
				lease.Release()
			}
			next <- err
		}()
		lease.Release()
		if err := <-next; err != nil {
			t.Errorf("Lock of what was unlocked: %v", err)
		}
		lease.Release() // once more does nothing
	})
	t.Run("leave to spend", func(t *testing.T) {
		s := open(t)
		save(t, s, full, 0)
		lease, err := s.Lock(ctx, account)
		if err != nil {
			t.Fatal(err)
		}
		defer lease.Release()
		for _, version := range []int64{full.Version, full.Version, 0} { // again, as for the token before
			if until, err := lease.Spend(ctx, version); err != nil || !until.IsZero() && until.Before(time.Now()) {
				t.Errorf("Spend(%d) = %v, %v", version, until, err)
			}
		}
	})
	t.Run("lock is exclusive", func(t *testing.T) {
		s := open(t)
		var inside atomic.Int64
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				lease, err := s.Lock(ctx, account)
				if err != nil {
					t.Errorf("Lock: %v", err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d have the lock at once", n)
				}
				inside.Add(-1)
				lease.Release()
			})
		}
		wg.Wait()
	})
}
