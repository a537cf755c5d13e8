package limiter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// fleet is what a beat tells of the replicas.
type fleet struct {
	alive int    // with us, if we said that we are
	held  []int  // one in so many of each budget is to be left to each of those who may be alive without us
	isNew bool   // Redis did not know of us
	known string // the others as they stand in Redis

	trip time.Duration // how long the question took
}

// size is how many replicas there may be.
func (f fleet) size() int { return f.alive + len(f.held) }

// ownChannel is where a replica listens so that Redis can tell that its connections are there; in a Cluster at the
// server that has the replicas.
func (s *Redis) ownChannel() string { return replicasKey + ":" + s.name }

// beat says that we are alive, if it is to, and tells who else is. If Redis's clock was set that is set right before.
func (s *Redis) beat(ctx context.Context, say bool) (fleet, error) {
	ctx, cancel := context.WithTimeout(ctx, beatPatience)
	defer cancel()
	moved := s.moved.Swap(false)
	others, set, err := s.askFleet(ctx, say, 0)
	if errors.Is(err, errStepped) { // a node's clock, which is believed from now on
		others, set, err = s.askFleet(ctx, say, 0)
	}
	if err == nil && set != 0 {
		if err = s.setRight(ctx, set, others.trip); err == nil {
			others, set, err = s.askFleet(ctx, say, 0)
		}
	}
	if err == nil && set != 0 {
		err = errStepped
	}
	if err != nil {
		if moved { // it is still not known
			s.moved.Store(true)
		}
		return fleet{}, err
	}
	if all, ok := s.client.(*redis.ClusterClient); ok { // a part of it that is away is seen by all replicas
		err = all.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error { return master.Ping(ctx).Err() })
	}
	return others, err
}

// askFleet runs alive.lua once. set is by how much the clock is not where we take it to be; if that is not 0 nothing else counts.
func (s *Redis) askFleet(ctx context.Context, say bool, correction int64) (others fleet, set int64, err error) {
	s.mu.Lock()
	began := time.Now()
	earliest, latest := s.bounds(beatPatience - clockSlack)
	if s.cluster && s.told != 0 { // what was held back on its way, and comes now, does not count
		latest = s.told + int64((time.Since(s.toldAt)+beatPatience+clockSlack)/time.Microsecond)
	}
	part := s.part()
	words := []any{channel, s.name, "", earliest, latest, correction, s.shift, s.slot, s.run, s.wrote, s.others}
	if say = say && (s.state == linked || s.state == returning); say {
		words[2] = part
		s.beaten, s.said = s.now(), max(s.said, part) // it may not arrive
	}
	s.mu.Unlock()
	known, answer, err := texts(alive.Run(ctx, s.client, []string{replicasKey}, words...))
	if err == nil && len(answer) < 7 {
		err = errGarbled
	}
	if err != nil {
		return fleet{}, 0, err
	}
	others = fleet{alive: int(answer[2]), isNew: answer[3] == 1, known: known}
	for _, held := range answer[7:] {
		others.held = append(others.held, max(2, int(held)))
	}
	slices.Sort(others.held)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shift, s.slot = answer[1], answer[5]
	s.told, s.toldAt = answer[0], time.Now()
	switch set = s.deviation(answer[0], began); {
	case s.cluster && answer[0] > latest:
		return fleet{}, 0, errStepped
	case set != 0 && answer[4] == 1: // it is ours that stood still, so that what we said did not count
		s.bestTrip, set, say = 0, 0, false
		s.suspectRings()
	case set != 0:
		return fleet{trip: time.Since(began)}, set, nil
	}
	s.synchronise(answer[0], began)
	s.ranAs = answer[6]
	if s.shiftMost = max(s.shiftMost, s.shift); s.outlived() || s.elsewhere() {
		return fleet{}, 0, errForgotten
	}
	if say {
		s.said, s.wrote = part, answer[0]
	}
	s.sawReplicas(others, say)
	return others, 0, nil
}

// part is one in how many of each budget we take if Redis is lost now, and the others are to leave to us; 0: nothing, as there are
// no others. s.mu is held.
func (s *Redis) part() int {
	switch {
	case s.replicas == 1:
		return 0
	case s.replicas > 0:
		return s.replicas
	default:
		return max(1, s.seen)
	}
}

// sawReplicas notes who is alive, with us if we said that we are, and what is to be left to those who may be. s.mu is held.
func (s *Redis) sawReplicas(others fleet, counted bool) {
	share, silent, seen := s.share(), s.silent, s.seen
	switch {
	case s.state == linked:
		if counted {
			s.seen = others.size()
		}
		s.held = others.held
	case s.state == returning: // to more than there were, perhaps; who is not back yet has its share still
		if counted {
			s.seen = max(s.seen, others.size())
		}
	default:
		return
	}
	s.checked, s.silent, s.others = s.now(), others.held, others.known
	if s.seen != seen || !slices.Equal(s.silent, silent) {
		s.changed = s.checked
	}
	if s.share() == share && slices.Equal(s.silent, silent) {
		return
	}
	s.changes++
	s.divideAll()
}

const (
	// beatPatience is the longest that is waited for the answer to a beat; one that comes to Redis later does not count.
	beatPatience = 2 * patience
	// checkedFor is for how long it is known who is alive: who decides after that looks again before.
	checkedFor = 400 * time.Millisecond
	// noticed is how long the others may take to leave us what is ours, after we last told them that we are alive: until
	// that has come, they miss us, they look, and have asked for the last permit that they asked for before.
	noticed = beatPatience + silent + checkedFor + patience + 100*time.Millisecond
	// idleFor is how long what is left of a budget must have been left to pass for what nobody wants.
	idleFor = time.Second
	// steadyFor is for how long nobody must have come or gone before that counts: who comes back has no more than its share for
	// so long as missing says, which it and we see a beat later.
	steadyFor = missing + beatPatience + silent + idleFor
)

// silence is what is told of replicas that may count alone.
type silence struct {
	since time.Time // zero: there is none
	told  bool
}

// toldAfter keeps what heals at once from being told.
const toldAfter = 3 * time.Second

// tell reports that replicas are silent, or are not any more.
func (s *Redis) tell(of *silence, silent bool) {
	switch {
	case !silent && of.told:
		*of = silence{}
		s.observe(Event{Kind: ReplicasHeard})
	case !silent:
		*of = silence{}
	case of.since.IsZero():
		of.since = time.Now()
	case !of.told && time.Since(of.since) > toldAfter:
		of.told = true
		s.observe(Event{Kind: ReplicaSilent})
	}
}

// lookAgain looks who is alive if it is not known by now.
func (s *Redis) lookAgain(ctx context.Context) {
	s.mu.Lock()
	counts := s.state == linked || s.state == returning
	stale := counts && (s.moved.Load() || s.seen > 1 && s.now()-s.checked > checkedFor)
	s.mu.Unlock()
	if stale {
		_, _ = s.beat(ctx, false) // Redis is away: the question that follows finds that out
	}
}

// reset lets the shared clock be set right.
func (s *Redis) reset(ctx context.Context) error {
	_, err := s.beat(ctx, false)
	return err
}

// lost makes us count alone, since Redis cannot be reached, if that was found in the present state.
func (s *Redis) lost(link int, err error) {
	s.mu.Lock()
	if s.link != link || s.state == unseen || s.state == cut {
		s.mu.Unlock()
		return
	}
	s.muted, s.doubt = false, 0
	if s.replicas != 1 && s.seen > 1 && !sharedFate(err) && s.refused.Load() <= int64(s.checked) {
		s.muted, s.doubt = true, s.beaten-clockSlack
	}
	s.change(cut)
	for _, a := range s.changesDue {
		s.amendHere(a)
	}
	s.changesDue = nil
	s.cuts++
	s.behind, s.silenced = err == errForgotten, s.muted && !errors.Is(err, errForgotten)
	s.mu.Unlock()
	if err == errForgotten { // what another told is not told again
		s.tellForgotten()
	}
	s.nudge()
	s.observe(Event{Kind: RedisLost, Err: err})
}

// tellForgotten lets the others give Redis what they know before we do: what they counted last we may not have heard of yet, and
// once we count there again nothing shows them that it is missing.
func (s *Redis) tellForgotten() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = s.client.Publish(ctx, channel, forgotten).Err() // if it does not arrive, Redis is away for them, too, or we are alone
}

// forgotten is what is told then.
const forgotten = "forgotten"

// heardForgotten takes it in.
func (s *Redis) heardForgotten() {
	s.mu.Lock()
	state, link := s.state, s.link
	s.mu.Unlock()
	if state == linked {
		s.lost(link, fmt.Errorf("another replica found: %w", errForgotten))
	}
}

// sharedFate reports whether an error says that Redis itself is gone or does not serve, so that the others have lost it, too. Silence
// does not: it may be we who are cut off.
func sharedFate(err error) bool {
	var refused redis.Error
	var dial *net.OpError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, redis.ErrClosed), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return true
	case errors.As(err, &dial) && dial.Timeout():
		return false
	}
	return errors.As(err, &refused)
}

// dials notes when Redis refused a connection: the client tries again until the call's time is over, so that its error is that.
type dials struct{ s *Redis }

func (d dials) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if errors.Is(err, syscall.ECONNREFUSED) {
			d.s.refused.Store(int64(d.s.now()))
		}
		if err == nil {
			d.s.dialled(conn.RemoteAddr().String())
		}
		return conn, err
	}
}

func (dials) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (dials) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// unmute begins with our share when the others have had time to leave it to us.
func (s *Redis) unmute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if !s.muted || now < s.doubt+clockSlack+noticed {
		return
	}
	s.muted = false
	s.divideAll()
}

// doubtful reports whether others may have used what we have not heard of. s.mu is held.
func (s *Redis) doubtful() bool { return s.state == cut && s.doubt != 0 && !s.muted }

// met notes a budget's windows. If others may have used it since Redis was lost, it takes in what they may have.
func (s *Redis) met(b *budget, windows []Window, now time.Duration) {
	if len(windows) == 0 {
		return
	}
	b.windows = windows
	if b.doubted {
		b.doubted = false
		s.assume(b, now)
	}
}

// assume takes for used what the others may have used between the last that we know and the time from which they leave us our
// share: what was free for some time, and so wanted by nobody, but for one in so many of it; of the rest, all. As long as
// one may keep to its share, since it has just come back, what is free may be wanted.
func (s *Redis) assume(b *budget, now time.Duration) {
	if b.share <= 1 || b.share == nobody {
		return
	}
	unknown := now - s.doubt
	taken, idle := b.keep, b.keep
	for _, w := range b.windows {
		limit, length := b.shrunk.of(w.Requests, now), w.Per+s.guard
		free := max(0, limit-b.known.since(now-length))
		if length < unknown { // perhaps more than once
			free = b.known.most(limit, length, s.doubt, now)
		}
		taken = min(taken, free)
		idle = min(idle, max(0, limit-b.known.since(now-length-unknown-idleFor)))
	}
	if s.doubt-s.changed < steadyFor {
		idle = 0
	}
	used := max(0, taken-idle/b.share)
	at := now
	if b.ring.count > 0 {
		at = max(at, b.ring.last(1))
	}
	b.assumed = assumed{at, (used + b.share - 1) / b.share}
	for range b.assumed.count {
		b.ring.push(at, b.keep, longAgo)
	}
	b.divided = max(b.divided, at)
}

// assumed is what was taken for used, as stamps of our share.
type assumed struct {
	at    time.Duration
	count int
}

// believe gives back what was assumed, as it is known by now.
func (b *budget) believe() {
	for range b.assumed.count {
		b.ring.remove(b.assumed.at)
	}
	b.assumed = assumed{}
}

// insist counts what was assumed, as another server that we go over to will not know it. Each replica that goes there counts its share of
// it; that of the one that stays is what is left to it there. s.mu is held.
func (s *Redis) insist() {
	for _, b := range s.all {
		guess := b.assumed
		b.believe()
		for range guess.count {
			s.counts(b, s.unique(b, guess.at), unknown)
		}
	}
}

// dismissHopeless refuses those who wait for a budget of which there is nothing for us. s.mu is held.
func (s *Redis) dismissHopeless(now time.Duration) {
	s.plan(now, false)
	var hopeless []*waiter
	for e := s.waiting.Front(); e != nil; e = e.Next() {
		if w := e.Value.(*waiter); w.expected >= unforeseen {
			hopeless = append(hopeless, w)
		}
	}
	for _, w := range hopeless {
		s.dequeue(w, false)
		s.changes++
		s.refuse(w, now)
	}
}
