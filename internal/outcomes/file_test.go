package outcomes_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/outcomes"
)

func keepOne(t *testing.T, b *outcomes.Book) {
	t.Helper()
	c := claims(t, b, invoice)
	leaves(t, c)
	c.Keep(created)
}

// A file is forgotten a day after it was written, and removed when the folder is swept.
func TestFilesExpire(t *testing.T) {
	t.Parallel()
	s := newShelf(t, false)
	b := s.open()
	keepOne(t, b)
	path := filepath.Join(s.dir, outcomes.Path(invoice))
	day := time.Now().Add(-outcomes.Life)
	leftover := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"123")
	if err := os.WriteFile(leftover, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chtimes(path, day, day.Add(time.Minute)), os.Chtimes(leftover, day, day.Add(time.Minute))); err != nil {
		t.Fatal(err)
	}
	b.Sweep()
	answers(t, b, created)
	if _, err := os.Stat(leftover); err == nil {
		t.Error("what a crash left is still there")
	}
	if err := os.Chtimes(path, day, day.Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	keepOne(t, b) // free again, though the file is there
	if err := os.Chtimes(path, day, day.Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	b.Sweep()
	if _, err := os.Stat(path); err == nil {
		t.Error("an expired file is still there")
	}
}

// A machine whose clock was more than a day behind sets it while the proxy runs: what was written before is not forgotten for
// that. What a run before had written when the clock was right is left alone.
func TestFilesFollowTheClock(t *testing.T) {
	t.Parallel()
	s := newShelf(t, false)
	keepOne(t, s.open())
	path := filepath.Join(s.dir, outcomes.Path(invoice))
	b := s.open()
	const behind = 30 * time.Hour
	b.SetClock(-behind)
	c := claims(t, b, named("behind")) // it follows, backwards
	leaves(t, c)
	c.Keep(created)
	early := filepath.Join(s.dir, outcomes.Path(named("behind")))
	wrong := time.Now().Add(-behind)
	if err := os.Chtimes(early, wrong, wrong); err != nil { // as it would have been
		t.Fatal(err)
	}
	b.SetClock(0)
	b.Sweep()
	for name, file := range map[string]string{"of a run before": path, "from when the clock was behind": early} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(info.ModTime()); age.Abs() > time.Minute {
			t.Errorf("the record %s is %s old, want next to nothing", name, age)
		}
	}
	answers(t, b, created)
	if _, answer, err := begin(b, named("behind"), first); err != nil || answer == nil {
		t.Errorf("Begin: %v, %v; want the answer that was kept", answer, err)
	}
}

// What cannot be opened is an outcome that is not known, and stays.
func TestDamagedFile(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "garbage", "freeagent-proxy grant 1 key=tests\ngarbage"} {
		s := newShelf(t, false)
		b := s.open()
		keepOne(t, b)
		if err := os.WriteFile(filepath.Join(s.dir, outcomes.Path(invoice)), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := begin(s.open(), invoice, first); !errors.Is(err, outcomes.ErrUnknown) {
			t.Errorf("%q: %v, want %v", content, err, outcomes.ErrUnknown)
		}
	}
}

// A disk that takes nothing lets nothing leave, and an outcome waits for it.
func TestDiskFails(t *testing.T) {
	t.Parallel()
	s := newShelf(t, false)
	b := s.open()
	c := claims(t, b, invoice)
	leaves(t, c)
	folder := filepath.Dir(filepath.Join(s.dir, outcomes.Path(invoice)))
	away := folder + "-away"
	if err := errors.Join(os.Rename(folder, away), os.WriteFile(folder, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	c.Keep(created)
	answers(t, b, created)
	if _, _, err := begin(b, named("new"), first); !errors.Is(err, outcomes.ErrUnavailable) {
		t.Errorf("Begin: %v, want %v", err, outcomes.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.Close(ctx); err == nil {
		t.Error("Close said nothing of an outcome that is not stored")
	}
	if err := errors.Join(os.Remove(folder), os.Rename(away, folder)); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	answers(t, s.open(), created)
}

// A folder that takes nothing is told of once, not with each request, and so is that it is back, though nobody asks for anything.
func TestFolderIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	s := newShelf(t, false)
	told := make(chan error, 100)
	b, err := outcomes.OpenFile(s.dir, outcomes.Config{Sealer: s.sealer, Degraded: func(err error) { told <- err }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Halt)
	keepOne(t, b)
	unsent := claims(t, b, named("unsent"))
	away := s.dir + "-away"
	if err := os.Rename(s.dir, away); err != nil {
		t.Fatal(err)
	}
	if err := unsent.Leave(); !errors.Is(err, outcomes.ErrUnavailable) {
		t.Errorf("Leave: %v, want %v", err, outcomes.ErrUnavailable)
	}
	unsent.Drop()
	for range 3 {
		if _, _, err := begin(b, named("new"), first); !errors.Is(err, outcomes.ErrUnavailable) {
			t.Errorf("Begin: %v, want %v", err, outcomes.ErrUnavailable)
		}
	}
	if _, err := os.Stat(s.dir); err == nil {
		t.Error("the folder was made anew, without what is known")
	}
	if err := <-told; err == nil || len(told) > 0 {
		t.Errorf("told %v, and %d times more", err, len(told))
	}
	if err := os.Rename(away, s.dir); err != nil {
		t.Fatal(err)
	}
	if err := <-told; err != nil {
		t.Errorf("told %v, want that the store is well", err)
	}
	answers(t, b, created)
	c := claims(t, b, named("new"))
	leaves(t, c)
	c.Drop()
}

// Whoever removes what is kept of a client lets its next writes begin anew.
func TestScopeIsRemoved(t *testing.T) {
	t.Parallel()
	s := newShelf(t, false)
	b := s.open()
	keepOne(t, b)
	if err := os.RemoveAll(filepath.Dir(filepath.Join(s.dir, outcomes.Path(invoice)))); err != nil {
		t.Fatal(err)
	}
	keepOne(t, b)
	answers(t, b, created)
}

// What is kept is counted anew at the start.
func TestFilesAreCounted(t *testing.T) {
	t.Parallel()
	s := newShelf(t, false)
	keepOne(t, s.open())
	b := s.open()
	b.Fill(invoice, outcomes.MaxUnits)
	if _, _, err := begin(b, named("new"), first); !errors.Is(err, outcomes.ErrFull) {
		t.Errorf("Begin: %v, want %v", err, outcomes.ErrFull)
	}
	b.Sweep()
	claims(t, b, named("new")).Drop()
}

// A record that has come in the place of an expired one, after the sweep had seen that, is not taken for it.
func TestSweepMeetsWrite(t *testing.T) {
	t.Parallel()
	s := newShelf(t, false)
	b := s.open()
	keepOne(t, b)
	path := filepath.Join(s.dir, outcomes.Path(invoice))
	old := time.Now().Add(-outcomes.Life - time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	keepOne(t, b) // the sweep has found the old one, and
	b.Expire(invoice)
	answers(t, b, created)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	b.Expire(invoice)
	keepOne(t, b)
}

// What FreeAgent usually answers takes one unit, as it is written and as it is counted anew; only more than that counts for more.
func TestUnits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ header, body, units int }{{6 << 10, 4 << 10, 1}, {5 << 10, 200 << 10, 50}, {200 << 10, 1, 48}} {
		s := newShelf(t, false)
		b := s.open()
		claim := claims(t, b, invoice)
		leaves(t, claim)
		claim.Keep(outcomes.Answer{Status: 201, Header: http.Header{"X": {strings.Repeat("x", c.header)}}, Body: make([]byte, c.body)})
		for _, when := range []string{"written", "counted"} {
			if got := b.Units(invoice); got < c.units || got > c.units+1 {
				t.Errorf("header of %d bytes, body of %d: %d units when %s, want %d", c.header, c.body, got, when, c.units)
			}
			b.Sweep()
		}
	}
}
