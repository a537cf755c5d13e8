package turns

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Local is the turns of one process.
type Local struct {
	closing chan struct{} // closed by Close
	idle    chan struct{} // closed when nobody has a turn after that

	mu     sync.Mutex
	lines  map[Key]*line // those whose turn somebody has
	closed bool
}

// line is one turn: its holder, and who waits for it.
type line struct {
	since   time.Time
	waiting []*waiter
	took    [remembered]time.Duration // how long the last turns took, in any order
	turns   int                       // that have ended
}

// remembered is how many turns tell how long the next ones will take.
const remembered = 8

// waiter is one who waits. ready is closed when it has the turn, or never will (err).
type waiter struct {
	ready chan struct{}
	err   error
}

// NewLocal makes the turns of one process.
func NewLocal() *Local {
	return &Local{lines: make(map[Key]*line), closing: make(chan struct{}), idle: make(chan struct{})}
}

// Take takes a turn, which end gives back: once, however often it is called. It waits for it for so long, and until ctx ends;
// a turn that is free is taken whatever ctx says. Errors are *BusyError (at once if the turn would come too late even if all before it
// were as quick as the quickest of the last eight), ErrClosed and ctx's cause.
func (l *Local) Take(ctx context.Context, key Key, wait time.Duration) (end func(), err error) {
	w, err := l.join(ctx, key, wait)
	if err != nil {
		return nil, err
	}
	if w != nil {
		if err := l.await(ctx, key, w, wait); err != nil {
			return nil, err
		}
	}
	return sync.OnceFunc(func() { l.pass(key) }), nil
}

// Insist is Take: this process is all there is.
func (l *Local) Insist(ctx context.Context, key Key, wait time.Duration) (end func(), err error) {
	return l.Take(ctx, key, wait)
}

// join takes the turn if it is free (nil), else a place in its line.
func (l *Local) join(ctx context.Context, key Key, wait time.Duration) (*waiter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	held := l.lines[key]
	if held == nil {
		l.lines[key] = &line{since: time.Now()}
		return nil, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if held.quickest()*time.Duration(len(held.waiting)) >= wait {
		return nil, held.busy()
	}
	w := &waiter{ready: make(chan struct{})}
	held.waiting = append(held.waiting, w)
	return w, nil
}

// await waits until the turn comes, or is no longer wanted.
func (l *Local) await(ctx context.Context, key Key, w *waiter, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-w.ready:
		return w.err
	case <-ctx.Done():
		if l.leave(key, w) != nil {
			return context.Cause(ctx)
		}
	case <-timer.C:
		if busy := l.leave(key, w); busy != nil {
			return busy
		}
	}
	if w.err == nil && ctx.Err() != nil { // it came just now, for nobody
		l.pass(key)
		return context.Cause(ctx)
	}
	return w.err
}

// leave takes a waiter out of its line, and says why it may have left. nil: it is in none any more, since ready is closed.
func (l *Local) leave(key Key, w *waiter) *BusyError {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.lines[key]
	if held == nil {
		return nil
	}
	i := slices.Index(held.waiting, w)
	if i < 0 {
		return nil
	}
	held.waiting = slices.Delete(held.waiting, i, i+1)
	return held.busy()
}

// pass gives the turn to the next.
func (l *Local) pass(key Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, now := l.lines[key], time.Now()
	held.took[held.turns%remembered] = now.Sub(held.since)
	held.turns++
	if len(held.waiting) > 0 {
		next := held.waiting[0]
		held.waiting = slices.Delete(held.waiting, 0, 1)
		held.since = now
		close(next.ready)
		return
	}
	delete(l.lines, key)
	l.settle()
}

// settle tells Close that nobody has a turn. l.mu is held.
func (l *Local) settle() {
	if l.closed && len(l.lines) == 0 {
		close(l.idle)
	}
}

// Close sends away who waits, with ErrClosed, and waits until those who have a turn have ended it, or ctx ends.
func (l *Local) Close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.closing)
		for _, held := range l.lines {
			for _, w := range held.waiting {
				w.err = ErrClosed
				close(w.ready)
			}
			held.waiting = nil
		}
		l.settle()
	}
	l.mu.Unlock()
	select {
	case <-l.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("turns: some have not ended: %w", context.Cause(ctx))
	}
}

// known is how long the last turns took.
func (h *line) known() []time.Duration { return h.took[:min(h.turns, remembered)] }

// quickest is the least that a turn took of late; 0 while few have ended, since the first of a crowd are slow.
func (h *line) quickest() time.Duration {
	if h.turns < remembered {
		return 0
	}
	return slices.Min(h.known())
}

// busy is the error of one who has the turn here but not elsewhere.
func (l *Local) busy(key Key) *BusyError {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[key].busy()
}

// awaited reports whether somebody waits for the turn.
func (l *Local) awaited(key Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines[key].waiting) > 0
}

// busy says when one who comes now may have the turn, if the next ones take as long as the last.
func (h *line) busy() *BusyError {
	var sum time.Duration
	for _, took := range h.known() {
		sum += took
	}
	mean := sum / time.Duration(max(1, len(h.known())))
	return &BusyError{max(time.Second, mean*time.Duration(len(h.waiting)+1))}
}
