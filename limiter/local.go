package limiter

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// Config says how a Local counts.
type Config struct {
	// Guard makes each window longer, for what may delay one request more
	// than the next on its way to where it is counted.
	Guard time.Duration
	// Journal is the file that lets the state survive a restart, or "" for
	// none. One limiter at a time may use it.
	Journal string
	// Observe, if set, is told of events. It must not block, nor call Close.
	Observe func(Event)

	adapt func(*journal) // for tests
}

// Local counts in this process's memory.
type Local struct {
	guard   time.Duration
	observe func(Event)
	base    time.Time // all times are monotonic, since base
	journal *journal  // nil: none

	mu      sync.Mutex
	closed  bool
	budgets map[string]*budget
	all     []*budget // the same, for the sweep
	hand    int       // in all: which one the sweep looks at next
	touched []*budget // what the journal is to save
	lost    int       // permits that a damaged journal may have held, of any budget

	queues
	owners owners

	redis *Redis // where permits are counted; nil: in this process alone
}

// maxPause keeps sums of times from overflowing.
const maxPause = 365 * 24 * time.Hour

// NewLocal returns a limiter that goes on from where its journal ends. What
// the journal does not tell, because it is damaged, is taken for the worst and
// reported. The error is that the journal exists and cannot be read.
func NewLocal(cfg Config) (*Local, error) {
	if cfg.Guard < 0 {
		return nil, errors.New("limiter: guard is negative")
	}
	l := &Local{
		guard:   cfg.Guard,
		observe: cfg.Observe,
		base:    time.Now(),
		budgets: make(map[string]*budget),
	}
	if l.observe == nil {
		l.observe = func(Event) {}
	}
	l.alarm = time.AfterFunc(time.Hour, l.wake)
	l.arm(never, 0)
	if cfg.Journal == "" {
		return l, nil
	}
	l.journal = newJournal(cfg.Journal)
	if cfg.adapt != nil {
		cfg.adapt(l.journal)
	}
	if err := l.load(); err != nil {
		return nil, err
	}
	l.note(l.rewrite())
	go l.keepJournal()
	return l, nil
}

func (l *Local) now() time.Duration {
	now := time.Since(l.base)
	if l.redis != nil { // whose stamps are in microseconds
		now = (now + time.Duration(l.redis.skew.Load())).Truncate(time.Microsecond)
	}
	return now
}

// Permit is leave to send one attempt. Whoever has it calls Sent or Release:
// until then it counts as taken this moment, for ever if need be. The first call
// holds, later ones do nothing.
type Permit struct {
	limiter *Local
	budgets []*budget // parallel to the request's
	few     [3]*budget
	settled bool
	line    *line // whose turn it took; nil without budgets
	owner   owner
	cost    parts         // what was paid for it
	turn    float64       // when that was, in virtual time
	moved   time.Duration // how far the pace was moved on for it

	// Of a Redis:
	alone   *list.Element // among those that this process counts alone, since Redis is away
	number  uint64        // in order of arrival
	link    int           // the link in which it was charged
	counted *counted      // where it was counted; nil: in this process alone
}

// Take takes a permit out of all of the request's budgets. If there is none now,
// it waits for its turn up to MaxWait, unless that is known to be in vain.
// It returns *OverBudgetError, ErrClosed, or the context's cause.
func (l *Local) Take(ctx context.Context, r Request) (*Permit, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var began time.Time
	if l.redis != nil {
		began = time.Now()
	}
	p, w, err := l.take(&r)
	if w != nil {
		p, err = l.wait(ctx, w)
	}
	if l.redis != nil && err == nil {
		return l.redis.confirm(ctx, p, &r, w, began)
	}
	return p, err
}

// take returns a permit, or the place in the queue, or why there is neither.
func (l *Local) take(r *Request) (*Permit, *waiter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, ErrClosed
	}
	now := l.now()
	if now >= l.alarmAt {
		l.pump(now) // those who came before
	}
	p := l.permit(r, now)
	// Whoever waits has no room now, so who is not behind another of the same client may go if it has.
	if p.line != nil && p.line.turns.Len() > 0 || l.next(p, r, now) > now {
		w, err := l.enqueue(p, r, now)
		return nil, w, err
	}
	l.charge(p, r, now)
	return p, nil, nil
}

// permit returns a permit that is not charged yet.
func (l *Local) permit(r *Request, now time.Duration) *Permit {
	l.arrivals++
	p := &Permit{limiter: l, number: l.arrivals}
	p.budgets = p.few[:0]
	for range r.Budgets {
		l.sweep(now)
	}
	for i := range r.Budgets {
		p.budgets = append(p.budgets, l.budget(r.Budgets[i].Key, r.Budgets[i].Windows, now))
	}
	if len(p.budgets) > 0 {
		p.line = l.line(p.budgets[0], r, now)
		p.owner = p.line.owner
	}
	return p
}

// next is when the permit may be taken if nobody else takes any: budget.next over all budgets of the request, and at
// the pace that is fair to others.
func (l *Local) next(p *Permit, r *Request, now time.Duration) time.Duration {
	at := now
	for i, b := range p.budgets {
		at = max(at, b.next(&r.Budgets[i], now, l.guard))
	}
	if p.line != nil {
		at = max(at, l.paced(p.line, r, 0, 1, now))
	}
	return at
}

// charge takes the permit.
func (l *Local) charge(p *Permit, r *Request, now time.Duration) {
	l.changes++
	if p.line != nil {
		l.serve(p, r, now)
	}
	if l.redis != nil {
		p.link = l.redis.link
	}
	for _, b := range p.budgets {
		b.hold(p.owner)
		l.touch(b)
	}
}

// Sent says that the attempt has been written to the wire, or may have been:
// the permit is stamped now.
func (p *Permit) Sent() { p.settle(true) }

// Release says that the attempt certainly did not leave: nothing is charged.
func (p *Permit) Release() { p.settle(false) }

func (p *Permit) settle(sent bool) {
	l := p.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle(p, sent)
}

func (l *Local) settle(p *Permit, sent bool) {
	if p.settled {
		return
	}
	p.settled = true
	if !sent {
		p.refund()
	}
	if p.counted != nil {
		l.redis.settle(p, sent)
		return
	}
	if p.alone != nil {
		l.redis.here.Remove(p.alone)
	}
	l.changes++
	now := l.now()
	for _, b := range p.budgets {
		b.drop(p.owner)
		if sent {
			l.stamp(b, now, p.owner)
		}
		l.touch(b)
	}
	l.pump(now)
}

// stamp counts one permit as sent now.
func (l *Local) stamp(b *budget, now time.Duration, who owner) {
	if l.redis == nil {
		b.stamp(now, who)
		return
	}
	l.redis.counts(b, l.redis.unique(b, now), who)
}

// Exceeded takes in a 429 of the upstream: it pauses the budget as Pause does. If our own count was under the limit,
// another program must use the same budget; it then shrinks to what we had used, and grows back in ten minutes.
func (l *Local) Exceeded(b Budget, retryAfter time.Duration) {
	l.shrink(b, retryAfter)
	l.Pause(b.Key, retryAfter)
}

// Pause lets nobody have a permit of the budget until d from now, or longer if
// it is paused for longer already: for a 429 from upstream. Those who can no longer
// be served within their MaxWait are refused at once.
func (l *Local) Pause(key string, d time.Duration) {
	d = min(d, maxPause)
	if l.pause(key, d) {
		l.observe(Event{Kind: BudgetPaused, Key: key, For: d})
	}
}

// pause reports whether a pause began: one that is extended is no news.
func (l *Local) pause(key string, d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.sweep(now)
	b := l.budget(key, nil, now)
	before := max(b.paused, now)
	if now+d <= before {
		return false
	}
	b.paused = now + d
	l.touch(b)
	l.plan(now, true)
	l.pump(now)
	return before == now
}

// PausedUntil returns when the budget's pause ends, or the zero time if it is not paused.
func (l *Local) PausedUntil(key string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, now := l.budgets[key], l.now(); b != nil && b.paused > now {
		return time.Now().Add(b.paused - now)
	}
	return time.Time{}
}

// Usage returns what is left of the budget, one entry for each of its windows.
func (l *Local) Usage(b Budget) []Usage {
	return l.AppendUsage(make([]Usage, 0, len(b.Windows)), b)
}

// AppendUsage appends what is left of the budgets, one entry for each window of each, all at the same moment.
func (l *Local) AppendUsage(usage []Usage, budgets ...Budget) []Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for i := range budgets {
		b := &budgets[i]
		state := l.look(b.Key)
		for _, w := range b.Windows {
			usage = append(usage, state.usage(b, w, now, l.guard))
		}
	}
	return usage
}

// budget returns the state of a key, made anew if need be.
func (l *Local) budget(key string, windows []Window, now time.Duration) *budget {
	b := l.budgets[key]
	if b != nil {
		b.fit(windows, l.guard)
		if l.redis != nil {
			l.redis.met(b, windows, now)
		}
		return b
	}
	b = &budget{key: key}
	b.fit(windows, l.guard)
	if l.redis != nil {
		l.redis.adopt(b)
		l.redis.met(b, windows, now)
	}
	if l.lost > 0 && now < b.span {
		b.lose(l.lost)
	}
	l.add(b)
	return b
}

func (l *Local) add(b *budget) {
	l.budgets[b.key] = b
	l.all = append(l.all, b)
}

// sweep looks at one budget and forgets it if it is idle. Called once for each
// budget that may be made, it goes round faster than they grow in number.
func (l *Local) sweep(now time.Duration) {
	if len(l.all) == 0 {
		return
	}
	if l.hand >= len(l.all) {
		l.hand = 0
	}
	b, last := l.all[l.hand], len(l.all)-1
	if !b.idle(now) {
		l.hand++
		return
	}
	delete(l.budgets, b.key)
	l.all[l.hand], l.all[last] = l.all[last], nil
	l.all = l.all[:last]
}

// Close lets all who wait go with ErrClosed and writes the journal a last time.
// Permits that are open stay good; a journal takes them as sent when it is loaded.
func (l *Local) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	for l.waiting.Len() > 0 {
		l.dismiss(l.waiting.Front().Value.(*waiter), ErrClosed)
	}
	l.arm(never, 0)
	l.mu.Unlock()
	if l.journal == nil {
		return nil
	}
	return l.closeJournal()
}
