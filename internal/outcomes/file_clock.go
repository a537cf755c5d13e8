package outcomes

import (
	"os"
	"path/filepath"
	"sync"
	"time"
)

// clockStep is how much the machine's clock must be set for the folder to follow.
const clockStep = time.Minute

// fileClock is the machine's clock, by which files have their times. A machine may start with a clock that is a day behind,
// and set it when it has found a time server: what was written before would then seem to have expired.
type fileClock struct {
	wall   func(now time.Time) int64 // Unix nanoseconds; tests set it
	opened time.Time

	following sync.Mutex
	began     int64 // Unix nanoseconds of opened, by the clock that the files' times go by
}

func newFileClock() *fileClock {
	now := time.Now()
	return &fileClock{wall: time.Time.UnixNano, opened: now, began: now.UnixNano()}
}

// follow brings the times of what this process wrote forward if the clock was set forward since. (Set back, it makes
// records live longer, which does no harm.) Whatever looks at times calls it first.
func (f *file) follow() {
	c := f.clock
	c.following.Lock()
	defer c.following.Unlock()
	now := time.Now()
	ran := int64(now.Sub(c.opened))
	began := c.wall(now) - ran
	step := time.Duration(began - c.began)
	if step.Abs() < clockStep {
		return
	}
	from, until := c.began, c.began+ran
	c.began = began
	if step < 0 {
		return
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	for _, name := range f.scopeNames() {
		dir := filepath.Join(f.dir, name)
		entries, _ := os.ReadDir(dir) // one that cannot be read is none
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				continue // removed meanwhile
			}
			if at := info.ModTime(); from <= at.UnixNano() && at.UnixNano() <= until {
				_ = os.Chtimes(filepath.Join(dir, e.Name()), time.Time{}, at.Add(step)) // what cannot be changed expires early
			}
		}
	}
}
