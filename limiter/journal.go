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
// and the stamps that it got since its last record. It is appended to at once
// after a change, and while they go on ten times a second. It is written anew, with
// the whole state, when it has grown, when a write failed, when the wall clock was
// set, at the start and at Close. Only then is it synced: what was appended
// survives the end of this process, not a power cut.
const (
	saveEvery  = 100 * time.Millisecond // while there are changes; what a SIGKILL may lose
	retryAfter = time.Second            // a failed write
	lookEvery  = time.Second            // whether the wall clock was set
	// growth is how much is appended, beyond the size of the state itself,
	// before the file is written anew: about an hour of one busy account.
	growth = 1 << 20
	// clockStep is how much the wall clock, by which the stamps are written,
	// may gain or lose before they are written anew.
	clockStep = 100 * time.Millisecond
)

// journal is the file. It belongs to the goroutine of keepJournal, before that to
// NewLocal and then to Close.
type journal struct {
	path     string
	file     appended // no File: it could not be written
	capacity int      // the size above which it is to be written anew
	stale    bool     // it is to be written anew
	clock    int64    // Unix nanoseconds of the limiter's base, by the wall clock that the file goes by
	saved    time.Time
	failing  bool

	// next is the new file, until it is synced and takes the place of the old one.
	// News go into both meanwhile.
	next    appended
	synced  chan error // tells when it is; nil: there is none
	spoiled error      // what made it useless

	wall func(now time.Time) int64 // Unix nanoseconds; tests set it,
	sync func(*os.File) error      // and fail or delay this

	changed chan struct{} // holds one if there is something to save
	stop    chan struct{}
	done    chan struct{}
}

// appended is a file that grows.
type appended struct {
	*os.File
	size int
}

func (f *appended) append(data []byte) error {
	if f.File == nil {
		return nil
	}
	n, err := f.Write(data)
	f.size += n
	return err
}

func (f *appended) close() {
	if f.File != nil {
		f.Close() // nothing is buffered
		f.File = nil
	}
}

func newJournal(path string) *journal {
	return &journal{
		path:    path,
		wall:    time.Time.UnixNano,
		sync:    (*os.File).Sync,
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
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for changed := false; ; {
		var due <-chan time.Time
		if changed {
			due = time.After(j.pause() - time.Since(j.saved))
		}
		select {
		case <-j.changed:
			changed = true
		case <-look.C:
			changed = changed || j.stepped(l.wallClock())
		case err := <-j.synced:
			l.note(j.replace(err))
		case <-due:
			changed = false
			l.save()
		case <-j.stop:
			return
		}
	}
}

// pause is the least between two writes.
func (j *journal) pause() time.Duration {
	if j.failing {
		return retryAfter
	}
	return saveEvery
}

// save saves what is new. If all depends on a new file, its sync tells how that went.
func (l *Local) save() {
	j := l.journal
	err := l.write()
	j.saved = time.Now()
	if err != nil || j.file.File != nil {
		l.note(err)
	}
}

// note reports when saving begins or ceases to fail, and sees to it that it is tried again.
func (l *Local) note(err error) {
	j := l.journal
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

// wallClock is what the wall clock says of the limiter's base, in Unix nanoseconds.
func (l *Local) wallClock() int64 {
	now := time.Now()
	return l.journal.wall(now) - int64(now.Sub(l.base))
}

// stepped reports whether the wall clock was set.
func (j *journal) stepped(clock int64) bool {
	return time.Duration(clock-j.clock).Abs() > clockStep
}

// write appends what is new, and begins to write the file anew if need be.
func (l *Local) write() error {
	j, clock := l.journal, l.wallClock()
	if j.file.File == nil || j.file.size > j.capacity || j.stepped(clock) {
		j.stale = true
	}
	err := j.append(l.news())
	if j.stale && j.synced == nil {
		j.clock = clock
		err = errors.Join(err, j.begin(l.state()))
	}
	return err
}

// rewrite writes the file anew, and waits until that is done.
func (l *Local) rewrite() error {
	j := l.journal
	if j.synced != nil {
		_ = j.replace(<-j.synced)
	}
	j.stale = true
	if err := l.write(); j.synced == nil {
		return err
	}
	return j.replace(<-j.synced)
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

// append adds to the file, and to the new one.
func (j *journal) append(data []byte) error {
	err := j.file.append(data)
	if err != nil {
		j.file.close() // it may end in half a record
	}
	if err := j.next.append(data); err != nil {
		j.spoiled = err
	}
	return err
}

// begin writes the file anew: another file of always the same name, so that
// nothing is left behind however often the process is killed. replace makes it the
// journal when it is synced, which may take long.
func (j *journal) begin(data []byte) error {
	name := j.path + ".new"
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := createOpen(name)
	if err != nil {
		return err
	}
	if _, err := file.Write(data); err != nil {
		return errors.Join(err, file.Close(), os.Remove(name))
	}
	j.next, j.spoiled = appended{file, len(data)}, nil
	j.capacity = 2*len(data) + growth
	synced := make(chan error, 1)
	j.synced = synced
	go func() { synced <- j.sync(file) }()
	return nil
}

// replace puts the new file, when its sync has ended so, in the place of the old one.
func (j *journal) replace(err error) error {
	name := j.path + ".new"
	if err = errors.Join(err, j.spoiled); err == nil {
		err = renameOpen(name, j.path)
	}
	next := j.next
	j.next, j.synced = appended{}, nil
	if err != nil {
		return errors.Join(err, next.Close(), os.Remove(name))
	}
	j.file.close()
	j.file, j.stale = next, false
	return nil
}

// closeJournal writes the file a last time.
func (l *Local) closeJournal() error {
	j := l.journal
	close(j.stop)
	<-j.done
	err := l.rewrite()
	j.file.close()
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
