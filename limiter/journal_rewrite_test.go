package limiter_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/limiter"
)

// When the wall clock is set the stamps are written anew, though nothing else happens.
func TestClockSetWhileQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		journal := filepath.Join(t.TempDir(), "journal")
		machine := &limiter.Machine{}
		l, err := limiter.NewLocal(machine.On(limiter.Config{Journal: journal}))
		if err != nil {
			t.Fatal(err)
		}
		send(t, l, request(0, acmeBudget()))
		time.Sleep(time.Minute)
		before := readFile(t, journal)
		time.Sleep(time.Minute)
		if !bytes.Equal(readFile(t, journal), before) {
			t.Error("written although nothing happened")
		}
		machine.Ahead.Store(int64(time.Hour))
		time.Sleep(1100 * time.Millisecond)
		after := readFile(t, journal)
		if bytes.Equal(after, before) {
			t.Error("not written although the wall clock was set")
		}
		time.Sleep(time.Minute)
		if !bytes.Equal(readFile(t, journal), after) {
			t.Error("written again and again")
		}
		closed(t, l)
	})
}

// While the file is written anew, which may take long, news still go into the old one; and then into the new one,
// unless that fails.
func TestKilledWhileTheJournalIsWrittenAnew(t *testing.T) {
	for name, failure := range map[string]error{"synced": nil, "failed": errors.New("disk")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				journal := filepath.Join(dir, "journal")
				machine, e, acme := &limiter.Machine{}, &events{}, acmeBudget()
				l, err := limiter.NewLocal(machine.On(limiter.Config{Guard: time.Second, Journal: journal, Observe: e.observe}))
				if err != nil {
					t.Fatal(err)
				}
				send(t, l, request(0, acme))
				release := make(chan struct{})
				slow := func() error { <-release; return failure }
				machine.Disk.Store(&slow)
				machine.Ahead.Store(int64(time.Second))
				time.Sleep(2 * time.Second)
				for range 2 {
					send(t, l, request(0, acme))
					time.Sleep(flushed)
				}
				left := []string{filepath.Join(dir, "before"), filepath.Join(dir, "after")}
				writeFile(t, left[0], readFile(t, journal)) // as a SIGKILL leaves it
				machine.Disk.Store(nil)
				close(release)
				time.Sleep(2 * time.Second)
				writeFile(t, left[1], readFile(t, journal))
				closed(t, l)
				if failure == nil {
					e.expect(t, "all the time")
				} else {
					e.expect(t, "all the time", limiter.JournalFailed, limiter.JournalRecovered)
				}
				for _, name := range left {
					l := open(t, name, e)
					if got := remaining(l, acme); !slices.Equal(got, []int{2, 47}) {
						t.Errorf("%s: %v left, want [2 47]", filepath.Base(name), got)
					}
					closed(t, l)
				}
			})
		})
	}
}

// A journal that is in use for long does not grow without end, and leaves no other file behind.
func TestJournalIsWrittenAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		journal := filepath.Join(dir, "journal")
		b := budget("acme", 100, 10*time.Second)
		e := &events{}
		l := open(t, journal, e)
		largest := int64(0)
		for i := range 30_000 {
			send(t, l, request(time.Minute, b))
			time.Sleep(flushed)
			if i%100 == 0 {
				info, err := os.Stat(journal)
				if err != nil {
					t.Fatal(err)
				}
				largest = max(largest, info.Size())
			}
		}
		if largest < 1<<20-1<<14 || largest > 1<<20+1<<16 {
			t.Errorf("the journal grew to %d bytes, want about 1 MB", largest)
		}
		before := l.Usage(b)
		closed(t, l)
		files, err := os.ReadDir(dir)
		if err != nil || len(files) != 1 || readFile(t, journal) == nil {
			t.Errorf("files %v (%v), want the journal alone", files, err)
		}
		l = open(t, journal, e)
		if got := l.Usage(b); !slices.Equal(got, before) {
			t.Errorf("usage %v, want %v", got, before)
		}
		closed(t, l)
		e.expect(t, "all the time")
	})
}
