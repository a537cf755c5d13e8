package limiter_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/limiter"
)

// flushed is when a change has surely been written.
const flushed = 150 * time.Millisecond

// events collects what a limiter reports.
type events struct {
	mu  sync.Mutex
	all []limiter.Event
}

func (e *events) observe(event limiter.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

func (e *events) expect(t *testing.T, when string, want ...limiter.EventKind) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	same := func(event limiter.Event, kind limiter.EventKind) bool { return event.Kind == kind }
	if !slices.EqualFunc(e.all, want, same) {
		t.Errorf("%s: events %v, want %v", when, e.all, want)
	}
}

func open(t *testing.T, journal string, e *events) *limiter.Local {
	t.Helper()
	l, err := limiter.NewLocal(limiter.Config{Guard: time.Second, Journal: journal, Observe: e.observe})
	if err != nil {
		t.Fatalf("NewLocal: %v", err)
	}
	return l
}

func closed(t *testing.T, l *limiter.Local) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func acmeBudget() limiter.Budget {
	return limiter.Budget{Key: "acme", Windows: []limiter.Window{
		{Requests: 5, Per: time.Minute}, {Requests: 50, Per: time.Hour},
	}}
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := filepath.Join(t.TempDir(), "limiter.journal")
		acme := acmeBudget()
		e := &events{}
		l := open(t, journal, e)
		for range 3 {
			send(t, l, request(0, acme))
			time.Sleep(20 * time.Second)
		}
		send(t, l, request(0, budget("egress", 9, time.Minute)))
		take(t, l, request(0, acme)).Release()
		closed(t, l)
		if info, err := os.Stat(journal); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("journal has mode %v (%v), want 0600", info.Mode(), err)
		}

		time.Sleep(10 * time.Second) // and again
		l = open(t, journal, e)
		want := []limiter.Usage{ // the first stamp is 70 s old
			{Window: acme.Windows[0], Remaining: 3, Reset: 11 * time.Second},
			{Window: acme.Windows[1], Remaining: 47, Reset: 3531 * time.Second},
		}
		if got := l.Usage(acme); !slices.Equal(got, want) {
			t.Errorf("usage after a restart %v, want %v", got, want)
		}
		for range 3 {
			send(t, l, request(0, acme))
		}
		if got, want := refused(t, l, request(0, acme)).RetryAfter, 11*time.Second; got != want {
			t.Errorf("retry after %v, want %v", got, want)
		}
		closed(t, l)

		time.Sleep(2 * time.Hour)
		l = open(t, journal, e)
		if got := remaining(l, acme); !slices.Equal(got, []int{5, 50}) {
			t.Errorf("%v left after two hours, want all", got)
		}
		closed(t, l)
		e.expect(t, "all the time")
	})
}

func TestOpenPermitsAndPausesSurvive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := filepath.Join(t.TempDir(), "limiter.journal")
		acme := acmeBudget()
		e := &events{}
		l := open(t, journal, e)
		for range 5 {
			take(t, l, request(0, acme))
		}
		l.Pause("practice", time.Hour)
		closed(t, l)

		time.Sleep(40 * time.Minute)
		l = open(t, journal, e)
		if got, want := refused(t, l, request(0, acme)).RetryAfter, 61*time.Second; got != want {
			t.Errorf("retry after %v, want %v: they may have been sent until now", got, want)
		}
		if got, want := l.PausedUntil("practice"), time.Now().Add(20*time.Minute); !got.Equal(want) {
			t.Errorf("paused until %v, want %v", got, want)
		}
		closed(t, l)
		e.expect(t, "all the time", limiter.BudgetPaused)
	})
}

// What a process that is killed leaves behind is all but the last moment.
func TestUncleanEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		journal, left := filepath.Join(dir, "journal"), filepath.Join(dir, "left")
		acme := acmeBudget()
		e := &events{}
		l := open(t, journal, e)
		send(t, l, request(0, acme))
		pending := take(t, l, request(0, acme))
		time.Sleep(flushed)
		send(t, l, request(0, acme))
		pending.Release()
		time.Sleep(flushed)
		take(t, l, request(0, acme))
		time.Sleep(flushed)
		send(t, l, request(0, acme)) // after a pause: at once
		synctest.Wait()
		send(t, l, request(0, acme)) // the last moment
		synctest.Wait()
		writeFile(t, left, readFile(t, journal))
		closed(t, l)

		l = open(t, left, e)
		if got := remaining(l, acme); !slices.Equal(got, []int{1, 46}) {
			t.Errorf("%v left, want [1 46]", got)
		}
		closed(t, l)
		e.expect(t, "all the time")
	})
}

// recorded returns a journal of n permits of key acme, with two records of each, and how long it was after each record. (Sent at once
// a permit may have one record or two, as the goroutine that saves comes between or does not.)
func recorded(t *testing.T, n int) (data []byte, sizes []int) {
	journal := filepath.Join(t.TempDir(), "journal")
	e := &events{}
	l := open(t, journal, e)
	time.Sleep(flushed)
	for range n {
		p := take(t, l, request(0, acmeBudget()))
		time.Sleep(flushed)
		sizes = append(sizes, len(readFile(t, journal)))
		p.Sent()
		time.Sleep(flushed)
		sizes = append(sizes, len(readFile(t, journal)))
	}
	data = readFile(t, journal)
	closed(t, l)
	e.expect(t, "recording")
	return data, sizes
}

func TestTornTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, sizes := recorded(t, 4)
		journal := filepath.Join(t.TempDir(), "torn")
		for cut := range len(data) + 1 {
			writeFile(t, journal, data[:cut])
			e := &events{}
			l := open(t, journal, e)
			records := 0
			for records < len(sizes) && sizes[records] <= cut {
				records++
			}
			whole := (records + 1) / 2
			got := 50 - remaining(l, acmeBudget())[1]
			if cut == 0 || slices.Contains(sizes, cut) {
				e.expect(t, fmt.Sprintf("cut at %d", cut))
				if got != whole {
					t.Errorf("cut at %d: %d known, want %d", cut, got, whole)
				}
			} else {
				e.expect(t, fmt.Sprintf("cut at %d", cut), limiter.JournalDamaged)
				if got < whole {
					t.Errorf("cut at %d: %d known, want at least %d", cut, got, whole)
				}
			}
			closed(t, l)
		}
	})
}

// Whatever byte is damaged, no budget has more left than it had, not even one that
// was in the damaged part alone.
func TestDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, _ := recorded(t, 4)
		journal := filepath.Join(t.TempDir(), "damaged")
		for i := range data {
			damaged := bytes.Clone(data)
			damaged[i] ^= 0x20
			writeFile(t, journal, damaged)
			e := &events{}
			l := open(t, journal, e)
			e.expect(t, fmt.Sprintf("byte %d", i), limiter.JournalDamaged)
			if got := 50 - remaining(l, acmeBudget())[1]; got < 4 {
				t.Errorf("byte %d: %d known, want at least 4", i, got)
			}
			other := acmeBudget()
			other.Key = "other"
			if p, err := l.Take(t.Context(), request(0, other)); err == nil {
				p.Sent()
			}
			if got := 50 - remaining(l, other)[1]; got < 5 {
				t.Errorf("byte %d: another budget has %d used, want at least those of one record", i, got)
			}
			closed(t, l)

			e = &events{}
			closed(t, open(t, journal, e))
			e.expect(t, "the next start")
		}
	})
}

func TestZerosAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, _ := recorded(t, 4)
		journal := filepath.Join(t.TempDir(), "zeros")
		writeFile(t, journal, append(data, make([]byte, 1<<20)...))
		e := &events{}
		l := open(t, journal, e)
		if got := remaining(l, acmeBudget())[1]; got != 46 {
			t.Errorf("%d left, want 46", got)
		}
		closed(t, l)
		e.expect(t, "zeros")
	})
}

// A bubble begins in the year 2000, so one after the other has a clock that was set back.
func TestClockSetBack(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	acme := acmeBudget()
	e := &events{}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(10 * time.Hour)
		l := open(t, journal, e)
		for range 5 {
			send(t, l, request(0, acme))
		}
		l.Pause("practice", time.Minute)
		closed(t, l)
	})
	synctest.Test(t, func(t *testing.T) {
		l := open(t, journal, e)
		if got, want := refused(t, l, request(0, acme)).RetryAfter, 61*time.Second; got != want {
			t.Errorf("retry after %v, want %v: what is in the future is taken for now", got, want)
		}
		if got, want := l.PausedUntil("practice"), time.Now().Add(time.Minute); !got.Equal(want) {
			t.Errorf("paused until %v, want %v: no longer than it was meant", got, want)
		}
		closed(t, l)
	})
	e.expect(t, "all the time", limiter.BudgetPaused)
}

func TestJournalCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "missing")
		journal := filepath.Join(dir, "journal")
		acme := acmeBudget()
		e := &events{}
		l := open(t, journal, e)
		send(t, l, request(0, acme))
		time.Sleep(10 * time.Second)
		e.expect(t, "no folder", limiter.JournalFailed)
		send(t, l, request(0, acme)) // goes on from memory
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		e.expect(t, "with a folder", limiter.JournalFailed, limiter.JournalRecovered)
		copied := filepath.Join(t.TempDir(), "copied")
		writeFile(t, copied, readFile(t, journal))
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err == nil || !strings.Contains(err.Error(), "limiter journal") {
			t.Errorf("Close without a folder: %v, want an error that says so", err)
		}

		l = open(t, copied, e)
		if got := remaining(l, acme)[1]; got != 48 {
			t.Errorf("%d left, want 48", got)
		}
		closed(t, l)
	})
}

func TestJournalCannotBeRead(t *testing.T) {
	if _, err := limiter.NewLocal(limiter.Config{Journal: t.TempDir()}); err == nil {
		t.Error("NewLocal starts from a folder")
	}
}
