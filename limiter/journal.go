package limiter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

// The journal is a file of records, each the news of one budget: what it is now,
// and the stamps that it got since its last record. It is appended to a moment
// after a change. It is written anew, with the whole state, when it has grown,
// when a write failed, when the wall clock was set, and at Close. Only then is it
// synced: what was appended survives the end of this process, not a power cut.
const (
	saveAfter  = 100 * time.Millisecond // a change; what a SIGKILL may lose
	retryAfter = time.Second            // a failed write
	// growth is how much is appended, beyond the size of the state itself,
	// before the file is written anew: about an hour of one busy account.
	growth = 1 << 20
	// clockStep is how much the wall clock, by which the stamps are written,
	// may gain or lose before they are written anew.
	clockStep = 100 * time.Millisecond
)

// journal is the file. It belongs to the goroutine of keepJournal, then to Close.
type journal struct {
	path     string
	file     *os.File // nil: to be written anew
	size     int
	capacity int   // the size above which it is to be written anew
	clock    int64 // Unix nanoseconds of the limiter's base, by the wall clock that the file goes by
	failing  bool

	changed chan struct{} // holds one if there is something to save
	stop    chan struct{}
	done    chan struct{}
}

func newJournal(path string) *journal {
	return &journal{
		path:    path,
		changed: make(chan struct{}, 1),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
	}
}

// change lets the journal be saved soon.
func (j *journal) change() {
	select {
	case j.changed <- struct{}{}:
	default:
	}
}

// touch lets the budget's state be saved soon.
func (l *Local) touch(b *budget) {
	if l.journal == nil || b.touched {
		return
	}
	b.touched = true
	if l.touched = append(l.touched, b); len(l.touched) == 1 {
		l.journal.change()
	}
}

// keepJournal saves what changes, until Close.
func (l *Local) keepJournal() {
	j := l.journal
	defer close(j.done)
	for {
		select {
		case <-j.changed:
		case <-j.stop:
			return
		}
		delay := saveAfter
		if j.failing {
			delay = retryAfter
		}
		select {
		case <-time.After(delay):
		case <-j.stop:
			return
		}
		l.save()
	}
}

// save saves, and reports when that begins or ceases to fail.
func (l *Local) save() {
	j := l.journal
	err := l.write()
	if failed := err != nil; failed != j.failing {
		j.failing = failed
		if failed {
			l.observe(Event{Kind: JournalFailed, Err: err})
		} else {
			l.observe(Event{Kind: JournalRecovered})
		}
	}
	if err != nil {
		j.change()
	}
}

// write brings the file up to date.
func (l *Local) write() error {
	j, now := l.journal, time.Now()
	clock := now.UnixNano() - int64(now.Sub(l.base))
	if j.file == nil || j.size > j.capacity || time.Duration(clock-j.clock).Abs() > clockStep {
		j.clock = clock
		return j.replace(l.state())
	}
	return j.append(l.news())
}

// news returns a record for each budget that was touched.
func (l *Local) news() []byte {
	var records []record
	l.mu.Lock()
	now := l.now()
	for _, b := range l.untouch() {
		records = append(records, b.record(b.unsaved, now, l.journal.clock))
	}
	l.mu.Unlock()
	var data []byte
	for i := range records {
		data = records[i].append(data)
	}
	return data
}

// state returns a record for each budget. It holds the mutex for one at a time.
func (l *Local) state() []byte {
	l.mu.Lock()
	l.untouch()
	all := slices.Clone(l.all)
	l.mu.Unlock()
	var data []byte
	for _, b := range all {
		l.mu.Lock()
		r := b.record(b.ring.count, l.now(), l.journal.clock)
		l.mu.Unlock()
		data = r.append(data)
	}
	return data
}

// untouch returns the budgets that were touched since it was last called.
func (l *Local) untouch() []*budget {
	touched := l.touched
	l.touched = nil
	for _, b := range touched {
		b.touched = false
	}
	return touched
}

// record returns the budget's news, with its latest stamps. They are taken for
// saved: if they cannot be, the file will be written anew.
func (b *budget) record(stamps int, now time.Duration, clock int64) record {
	b.unsaved = 0
	r := record{
		key:     b.key,
		keep:    b.keep,
		span:    b.span,
		open:    b.open,
		written: clock + int64(now),
		stamps:  make([]int64, stamps),
	}
	if b.paused > now {
		r.paused = clock + int64(b.paused)
	}
	for i := range r.stamps {
		r.stamps[i] = clock + int64(b.ring.last(stamps-i))
	}
	return r
}

// append adds to the file.
func (j *journal) append(data []byte) error {
	n, err := j.file.Write(data)
	j.size += n
	if err != nil {
		j.close() // it may end in half a record
	}
	return err
}

// replace writes the file anew: another file of always the same name, so that
// nothing is left behind however often the process is killed, becomes the journal
// when it is complete, and is then appended to.
func (j *journal) replace(data []byte) error {
	j.close()
	name := j.path + ".new"
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = file.Write(data); err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = os.Rename(name, j.path)
	}
	if err != nil {
		return errors.Join(err, file.Close(), os.Remove(name))
	}
	j.file, j.size, j.capacity = file, len(data), 2*len(data)+growth
	return nil
}

func (j *journal) close() {
	if j.file != nil {
		j.file.Close() // nothing is buffered
		j.file = nil
	}
}

// closeJournal writes the file a last time.
func (l *Local) closeJournal() error {
	j := l.journal
	close(j.stop)
	<-j.done
	j.close()
	err := l.write()
	j.close()
	if err != nil {
		return fmt.Errorf("write limiter journal: %w", err)
	}
	return nil
}

// load restores the state from the file.
func (l *Local) load() error {
	data, err := os.ReadFile(l.journal.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read limiter journal: %w", err)
	}
	records, skipped := readRecords(data)
	// No stamp takes less than 8 bytes.
	l.lost = (skipped + 7) / 8
	whole := make(map[string]*record)
	for i := range records {
		r := &records[i]
		if before := whole[r.key]; before != nil {
			r.stamps = append(before.stamps, r.stamps...)
		}
		whole[r.key] = r
	}
	for _, r := range whole {
		l.restore(r)
	}
	l.journal.change()
	if skipped > 0 {
		l.observe(Event{Kind: JournalDamaged, Err: fmt.Errorf(
			"%s: %d bytes of %d are unreadable; every budget starts with up to %d permits taken for them",
			l.journal.path, skipped, len(data), l.lost)})
	}
	return nil
}

// restore makes a budget as the record has it. What is later than now, because
// the wall clock was set back, is taken for now; so are permits that were open.
func (l *Local) restore(r *record) {
	b := &budget{key: r.key, keep: r.keep, span: r.span}
	wall := l.base.UnixNano()
	slices.Sort(r.stamps)
	for _, s := range r.stamps {
		if s > wall-int64(r.span) {
			b.ring.push(time.Duration(min(s-wall, 0)), b.keep, -b.span)
		}
	}
	b.lose(r.open + l.lost)
	if r.paused > wall {
		b.paused = min(time.Duration(r.paused-max(r.written, wall)), maxPause)
	}
	if !b.idle(0) {
		l.add(b)
	}
}
