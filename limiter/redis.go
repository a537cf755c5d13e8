package limiter

import (
	"container/list"
	"context"
	_ "embed" // the scripts
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisConfig says how a Redis counts.
type RedisConfig struct {
	// Client must end its calls with their contexts (ContextTimeoutEnabled) and send nothing twice by itself
	// (MaxRetries: -1): a decision that is sent twice is counted twice. It stays the caller's to close.
	Client redis.UniversalClient
	// Guard is as in Config. A quarter of it is used up by what is not told to Redis: a permit is counted when it is
	// taken, and again when its request leaves if that is later by more than this. With less than 20 ms it is 5 ms all the same,
	// so that not every request is told twice: a window may then hold what left up to 5 ms before it was to.
	Guard time.Duration
	// Replicas is how many processes share the Redis: each has that part of every budget while it is away. 0: as many
	// as were last seen alive in it.
	Replicas int
	// Observe, if set, is told of events. It must not block, nor call Close.
	Observe func(Event)
}

// Redis counts together with all processes that share a Redis (or Valkey): Redis decides, by one script, by its own clock.
//
// This process keeps a mirror of what Redis has counted, which tells it when to ask and how long a wait will be, and lets
// it go on when Redis is away. What makes that safe in both directions:
//   - Away, it has its share of each budget, one in so many replicas, of what the mirror says is left: the past of all
//     replicas weighs on each of them, a share of it each. So the shares together are never more than the budget.
//   - Back, each replica first gives Redis what it knows and Redis does not: everything, if it was started empty. Until the
//     others have done so as well it stays within its share, and everything it takes is counted in Redis, too. Away again before
//     that, it has what is left of that share: of what it took itself the others may not have heard.
//
// A replica that is cut off while the others are not has its share as well, so the others leave it that (alive.lua tells how
// they know that it has not died):
//   - Who has not been heard of for 0.6 s, and whose connections are still there, may count alone: the others use so much less
//     of each budget until it is back. Who was killed has no connections, and costs nothing; who says goodbye neither. If Redis
//     loses that, it gets it back from whoever saw it there.
//   - Who loses Redis without being told that it is gone takes nothing before the others have had time to notice, 1.9 s. For what
//     they may have used meanwhile it takes all that was free, except, of what nobody had wanted for a second, one in so many.
//
// So the sum stays within the budget in whatever order things happen, with three exceptions: what all could have for long and nobody
// had is used up by the others in just those 1.9 s, which may be too much by one in so many of one in so many of it; the connections of
// one replica alone are closed, by something in between, and it cannot open others; half or more of the replicas are cut off, as nobody
// leaves more than three quarters.
type Redis struct {
	*Local
	client   redis.UniversalClient
	cluster  bool
	name     string // of this process among the replicas
	replicas int    // configured; 0: as many as are seen
	late     time.Duration

	shared atomic.Pointer[deadline] // of the latest questions

	skew    atomic.Int64 // of Redis's clock, in nanoseconds: what now adds to ours
	refused atomic.Int64 // when Redis last refused a connection, in our time
	moved   atomic.Bool  // a connection goes where none went before, and it is not known yet whether it is the same server
	address atomic.Value // string: where the last one went
	epoch   atomic.Int64 // Redis's time, in µs, when ours was zero; set once, before anything is counted

	// All below is guarded by Local.mu.
	state       state
	link        int           // changes of state: a decision holds in the one in which it was made
	cuts        int           // times that Redis was lost
	seen        int           // replicas, with those that may be alive
	said        int           // one in how many of each budget the others were told to leave to us
	wrote       int64         // when we last told that we are, as Redis has it; 0: we have not
	others      string        // who else there was then or later, as Redis had it: if it loses that it gets it back; see alive.lua
	silent      []int         // one in how many is to be left to each that may be alive, as Redis told last
	held        []int         // the same when all others were last there, less those that are back: what our share is reckoned from
	checked     time.Duration // when we last looked who is alive
	changed     time.Duration // when we came back to Redis, or it was last seen that another one came or went
	beaten      time.Duration // when we last told that we are
	muted       bool          // the others have not had time yet to leave us our share
	doubt       time.Duration // when it was last known what the others did, if they may have done more; 0: they have not
	shift       int64         // what is added to Redis's clock, in µs; see alive.lua
	slot        int64         // a number that no other replica has; -1: none yet
	shiftMost   int64         // the most that it was since we gave Redis what we know; see outlived
	run, ranAs  int64         // runs of the server: that to which we gave it, and that which answered last
	told        int64         // what the server that has the replicas said last that the time is, and when that was
	toldAt      time.Time
	behind      bool      // Redis has forgotten what we may not have heard of yet
	silenced    bool      // Redis was lost in silence: what was counted there after that we did not hear
	fresh       bool      // nothing is known yet of what others did
	given       bool      // Redis has what was counted here while it was away
	outstanding list.List // of *Permit: in Redis, and not settled
	here        list.List // of *Permit: taken while Redis is away, and not settled
	changesDue  []amendment
	gaps        map[*budget]gap
	bestTrip    time.Duration // of the calls that told Redis's time

	due                  chan struct{} // something to amend
	kick                 chan struct{} // something to look at: the state, or the replicas
	listenAnew, showAnew chan struct{} // the subscriptions are to be made anew

	echoed  chan int // our own echo was heard, of that link; see redis_echo.go
	echo    string   // what it begins with; the link follows
	stop    context.CancelFunc
	running sync.WaitGroup
}

// state is where permits are counted.
type state int

const (
	unseen    state = iota // nowhere: Redis was never seen, and what others count is not known
	linked                 // in Redis
	cut                    // here alone: Redis is away
	returning              // in Redis, but only our share, until the others are back
)

// String is fit for a log.
func (s state) String() string { return [...]string{"unseen", "linked", "alone", "returning"}[s] }

// patience is the longest that a decision waits for Redis.
const patience = 250 * time.Millisecond

// channel is where replicas hear of what the others did.
const channel = "fap:v1:limits"

var (
	//go:embed admit.lua
	admitText string
	//go:embed amend.lua
	amendText string
	//go:embed alive.lua
	aliveText string

	admit = redis.NewScript(admitText)
	amend = redis.NewScript(amendText)
	alive = redis.NewScript(aliveText)
)

// NewRedis returns a limiter that counts in Redis as soon as that can be reached. It does not wait for it.
func NewRedis(cfg RedisConfig) (*Redis, error) {
	local, err := NewLocal(Config{Guard: cfg.Guard, Observe: cfg.Observe})
	if err != nil {
		return nil, err
	}
	_, cluster := cfg.Client.(*redis.ClusterClient)
	s := &Redis{
		Local:      local,
		client:     cfg.Client,
		cluster:    cluster,
		name:       newName(),
		replicas:   cfg.Replicas,
		fresh:      true,
		slot:       -1,
		late:       max(cfg.Guard/4, 5*time.Millisecond),
		gaps:       make(map[*budget]gap),
		due:        make(chan struct{}, 1),
		kick:       make(chan struct{}, 1),
		echoed:     make(chan int, 1),
		listenAnew: make(chan struct{}, 1),
		showAnew:   make(chan struct{}, 1),
	}
	s.echo = "echo " + s.name + " "
	local.redis = s
	cfg.Client.AddHook(dials{s})
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	s.running.Go(func() { s.watch(ctx) })
	s.running.Go(func() { s.listen(ctx) })
	s.running.Go(func() { s.show(ctx) })
	s.running.Go(func() { s.amendAll(ctx) })
	s.running.Go(func() { s.tend(ctx) })
	s.running.Go(func() { s.complete(ctx) })
	return s, nil
}

// State says where permits are counted: "linked" (in Redis), "alone", "returning" or "unseen".
func (s *Redis) State() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.String()
}

// Begun reports whether permits are given at all. They are not until this process has once seen in Redis what the others have used,
// which takes some seconds: if Redis itself has just come back, others put back what they know first.
func (s *Redis) Begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state != unseen && (!s.fresh || s.replicas == 1)
}

// Fleet is how many processes were last seen alive in Redis, this one included, and how many beside them are silent but
// may count alone. Both are 0 as long as Redis was never seen.
func (s *Redis) Fleet() (alive, silent int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.seen-len(s.held), min(s.seen, 1)), len(s.held)
}

// Close lets all who wait go with ErrClosed, tells Redis what it does not know yet, and takes this process out of the
// replicas. Permits that are open stay good.
func (s *Redis) Close() error {
	err := s.Local.Close()
	s.stop()
	s.running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	s.mu.Lock()
	open := s.state == linked || s.state == returning
	s.mu.Unlock()
	if open {
		s.amendDue(ctx)
		_ = s.client.HDel(ctx, replicasKey, s.name).Err()
	}
	return err
}

// confirm asks Redis for a permit that there is room for as far as the mirror knows. If there is none after all the request
// goes back to its place in the queue, which it has as w if it waited.
func (s *Redis) confirm(ctx context.Context, p *Permit, r *Request, w *waiter, began time.Time) (*Permit, error) {
	for {
		ok, room := s.ask(p, r)
		if ok && ctx.Err() == nil {
			return p, nil
		}
		if ok {
			p.Release()
			return nil, context.Cause(ctx)
		}
		var err error
		if w, err = s.again(p, r, w, began, room); err != nil {
			return nil, err
		}
		if p, err = s.wait(ctx, w); err != nil {
			return nil, err
		}
	}
}

// ask counts the permit where permits are counted. If there is no room for it, it tells since when each budget has some,
// or nothing if that is to be decided anew.
func (s *Redis) ask(p *Permit, r *Request) (ok bool, room []time.Duration) {
	ctx := s.timely()
	s.lookAgain(ctx)
	s.mu.Lock()
	state, link := s.state, s.link
	if s.outlived() || s.elsewhere() {
		s.mu.Unlock()
		s.lost(link, errForgotten)
		return false, nil
	}
	questions := s.questions(p, r)
	if state == cut && p.link == link {
		p.alone = s.here.PushBack(p)
		p.begin()
	}
	s.mu.Unlock()
	switch {
	case len(p.budgets) == 0:
		return true, nil
	case p.link != link:
		return false, nil
	case state == cut:
		return true, nil
	}
	c := standing(len(p.budgets))
	for i := range questions {
		v, err := s.decide(ctx, &questions[i])
		if err == nil && s.moved.Load() {
			err = s.reset(ctx) // which looks whose answer that was
		}
		if err == nil && v.ok {
			s.learn(p, c, v)
			continue
		}
		s.takeBack(p, c.stamps)
		if err != nil {
			s.lost(link, err)
			return false, nil
		}
		room = slices.Repeat([]time.Duration{longAgo}, len(p.budgets))
		for i := range v.times() {
			room[len(c.stamps)+i] = s.local(v.time(i))
		}
		return false, room
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(p, c)
	return true, nil
}

// count notes where a permit that was open stands in Redis. s.mu is held.
func (s *Redis) count(p *Permit, c *counted) {
	for i, b := range p.budgets {
		b.drop(p.owner)
		s.counts(b, c.stamps[i], p.owner)
	}
	p.begin()
	c.moved = s.now()
	c.place = s.outstanding.PushBack(p)
	p.counted = c
}

// takeBack gives up what part of a request's budgets had counted when another refused it.
func (s *Redis) takeBack(p *Permit, stamps []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, stamp := range stamps {
		s.amendLater(amendment{budget: p.budgets[i], verb: "drop", stamp: stamp})
	}
}

// again puts a request that Redis has refused back where it was, unless it would wait in vain.
func (s *Redis) again(p *Permit, r *Request, w *waiter, began time.Time, room []time.Duration) (*waiter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for i, b := range p.budgets {
		b.drop(p.owner)
		if room != nil {
			b.mirror.refused(room[i], r.Budgets[i].Headroom, now)
		}
	}
	s.changes++
	if s.closed {
		return nil, ErrClosed
	}
	if w == nil {
		w = &waiter{request: *r, permit: p, arrived: now, number: p.number}
	}
	w.waited = time.Since(began) // Redis's time, which now is, may be set
	return w, s.requeue(w, now)
}

// settle notes what became of a permit that Redis has counted. s.mu is held.
func (s *Redis) settle(p *Permit, sent bool) {
	c := p.counted
	s.outstanding.Remove(c.place)
	now := s.now()
	for i, b := range p.budgets {
		switch {
		case !sent:
			b.remove(c.stamps[i])
			b.full = longAgo
			s.amendLater(amendment{budget: b, verb: "drop", permit: p, index: i})
		case now-c.stamps[i] > s.late:
			s.amendLater(amendment{budget: b, verb: "move", permit: p, index: i})
		}
	}
	s.changes++
	s.pump(now)
}

// Pause pauses a budget on every replica.
func (s *Redis) Pause(key string, d time.Duration) {
	s.Local.Pause(key, d)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.amendLater(amendment{budget: s.budget(key, nil, s.now()), verb: "pause"})
}

// Exceeded is as in Local, on every replica.
func (s *Redis) Exceeded(b Budget, retryAfter time.Duration) {
	s.shrink(b, retryAfter)
	s.Pause(b.Key, retryAfter)
}
