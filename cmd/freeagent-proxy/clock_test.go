package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// clockVariable names the file that says by how much a process's wall clock is wrong, see wrongClock.
const clockVariable = "FREEAGENT_PROXY_TEST_CLOCK"

// clockBytes is the length of such a file: seconds, as the machine stores an int64, and room for a page.
const clockBytes = 4096

// clock is the wall clock of a process. It goes on as fast as the machine's, and can be set while the process runs.
type clock struct {
	t    testing.TB
	file *os.File
}

func newClock(t testing.TB, ahead time.Duration) *clock {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "clock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if err := file.Truncate(clockBytes); err != nil {
		t.Fatal(err)
	}
	c := &clock{t, file}
	c.set(ahead)
	return c
}

// set sets the clock so far ahead of the machine's, or behind it.
func (c *clock) set(ahead time.Duration) {
	c.t.Helper()
	seconds := binary.NativeEndian.AppendUint64(nil, uint64(int64(ahead/time.Second)))
	if _, err := c.file.WriteAt(seconds, 0); err != nil {
		c.t.Fatal(err)
	}
}

func (c *clock) env() string { return clockVariable + "=" + c.file.Name() }

// wrongClocks are those of processes that share a Redis, one after another.
var wrongClocks = []time.Duration{7 * time.Minute, -11 * time.Minute, 3 * time.Hour, 0, -24 * time.Hour, 25 * time.Hour}

// skew gives the proxies that are started from now on wrong clocks, in turn; none: the machine's.
func (w *world) skew(ahead ...time.Duration) {
	w.clocks = nil
	for _, d := range ahead {
		w.clocks = append(w.clocks, newClock(w.t, d))
	}
}

// clock returns the clock of the next process; nil: the machine's.
func (w *world) clock() *clock {
	if len(w.clocks) == 0 {
		return nil
	}
	c := w.clocks[w.started%len(w.clocks)]
	w.started++
	return c
}
