package limiter_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/limiter"

	"github.com/redis/go-redis/v9"
)

// fleet is some replicas under more load than the budget allows, and the upstream that counts what arrives.
type fleet struct {
	t        *testing.T
	open     func() redis.UniversalClient
	budget   limiter.Budget
	mu       sync.Mutex
	arrivals []time.Time
	refusals []happening
	losses   []happening  // of Redis, by a replica that lives
	inHand   int          // permits that Redis has counted for a replica that was killed before it used them
	silences atomic.Int64 // that replicas were told of
	running  sync.WaitGroup
	over     chan struct{}
	members  []*member
}

// member is one replica with its clients.
type member struct {
	*limiter.Redis
	client redis.UniversalClient
	dead   chan struct{}
	once   sync.Once

	arrivals []time.Time // of its requests; guarded by the fleet's mu
}

// happening is what happened to a member.
type happening struct {
	*member
	at time.Time
}

var fleetWindows = []limiter.Window{{Requests: 30, Per: 1500 * time.Millisecond}, {Requests: 120, Per: 8 * time.Second}}

func newFleet(t *testing.T, size int, open func() redis.UniversalClient) *fleet {
	f := &fleet{t: t, open: open, budget: limiter.Budget{Key: "api/acme", Windows: fleetWindows}, over: make(chan struct{})}
	for range size {
		f.join()
	}
	f.together()
	return f
}

// together waits until all count in Redis, and know of one another.
func (f *fleet) together() {
	f.t.Helper()
	until(f.t, "all count in Redis", f.areTogether)
}

func (f *fleet) areTogether() bool {
	return !slices.ContainsFunc(f.members, func(m *member) bool {
		alive, silent := m.Fleet()
		return m.State() != "linked" || alive != len(f.members) || silent > 0
	})
}

// steady waits, under load, until all count in Redis. If they have not all the time, because the machine was too busy, it waits until all is
// used: what nobody could have is taken for what nobody wants, of which one that is cut off may use a bit too much (see limiter.Redis).
func (f *fleet) steady() {
	f.t.Helper()
	until(f.t, "all count in Redis, and use all", func() bool {
		return f.areTogether() && (f.lost(time.Time{}, nil) == 0 || f.members[0].Usage(f.budget)[1].Remaining == 0)
	})
}

// linked waits until some of them count in Redis.
func (f *fleet) linked(members ...*member) {
	f.t.Helper()
	until(f.t, "count in Redis", func() bool {
		return !slices.ContainsFunc(members, func(m *member) bool { return m.State() != "linked" })
	})
}

// join starts a replica.
func (f *fleet) join() *member {
	client := f.open()
	m := &member{client: client, dead: make(chan struct{})}
	s, err := limiter.NewRedis(limiter.RedisConfig{Client: client, Guard: guard, Observe: func(e limiter.Event) {
		f.t.Logf("%s: %+v", time.Now().Format("05.000"), e)
		if e.Kind == limiter.ReplicaSilent {
			f.silences.Add(1)
		}
		if e.Kind == limiter.RedisLost && !errors.Is(e.Err, redis.ErrClosed) {
			f.mu.Lock()
			f.losses = append(f.losses, happening{m, time.Now()})
			f.mu.Unlock()
		}
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	m.Redis = s
	f.members = append(f.members, m)
	return m
}

// fleetPatience is how long a client waits for its turn.
const fleetPatience = 20 * time.Second

// load lets so many clients of a replica ask all the time.
func (f *fleet) load(m *member, clients int) {
	for range clients {
		f.running.Go(func() {
			for f.goesOn(m) {
				p, err := m.Take(context.Background(), limiter.Request{Budgets: []limiter.Budget{f.budget}, MaxWait: fleetPatience})
				select {
				case <-m.dead: // with what it had in hand
					if err == nil && p.Counted() {
						f.mu.Lock()
						f.inHand++
						f.mu.Unlock()
					}
					return
				default:
				}
				if err != nil {
					if f.goesOn(m) {
						f.mu.Lock()
						f.refusals = append(f.refusals, happening{m, time.Now()})
						f.mu.Unlock()
					}
					continue
				}
				time.Sleep(rand.N(15 * time.Millisecond)) // on its way
				f.mu.Lock()
				now := time.Now()
				f.arrivals, m.arrivals = append(f.arrivals, now), append(m.arrivals, now)
				f.mu.Unlock()
				p.Sent()
			}
		})
	}
}

func (f *fleet) goesOn(m *member) bool {
	select {
	case <-f.over:
		return false
	case <-m.dead:
		return false
	default:
		return true
	}
}

// kill ends a replica as SIGKILL would: it says nothing to anybody any more.
func (m *member) kill() {
	m.once.Do(func() {
		close(m.dead)
		_ = m.client.Close()
	})
}

// end ends all.
func (f *fleet) end() {
	close(f.over)
	for _, m := range f.members {
		_ = m.Close()
		m.kill()
	}
	f.running.Wait()
}

// lost is how often Redis was lost since a time, by all but one: if that was not meant to be, the machine was too busy for it to
// answer in time, and what was used tells of the machine.
func (f *fleet) lost(since time.Time, but *member) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, l := range f.losses {
		if l.member != but && l.at.After(since) {
			n++
		}
	}
	return n
}

// busiest is the most arrivals, which are sorted, in any window of that length.
func busiest(arrivals []time.Time, per time.Duration) (most int) {
	for i, from := 0, 0; i < len(arrivals); i++ {
		for arrivals[i].Sub(arrivals[from]) >= per {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// check looks for a window that held too much, and for who was refused, though his replica had not lost Redis again and again while he
// waited.
func (f *fleet) check() {
	f.t.Helper()
	slices.SortFunc(f.arrivals, time.Time.Compare)
	for _, w := range f.budget.Windows {
		most := busiest(f.arrivals, w.Per)
		if most > w.Requests {
			f.t.Errorf("%d arrived in a window of %d per %v", most, w.Requests, w.Per)
		}
		f.t.Logf("most in %v: %d of %d", w.Per, most, w.Requests)
	}
	for _, r := range f.refusals {
		lost := 0
		for _, l := range f.losses {
			if l.member == r.member && l.at.After(r.at.Add(-fleetPatience)) && l.at.Before(r.at) {
				lost++
			}
		}
		if lost < 2 {
			f.t.Errorf("one was refused at %s, when Redis had been lost %d times", r.at.Format("05.000"), lost)
		}
	}
}

// between counts what arrived.
func (f *fleet) between(from, to time.Time) int {
	n := 0
	for _, at := range f.arrivals {
		if !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// taken counts what arrived from one member.
func (f *fleet) taken(m *member, from, to time.Time) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, at := range m.arrivals {
		if !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// used is what share of the budget was used, of what the guard leaves.
func (f *fleet) used(from, to time.Time) float64 {
	w := f.budget.Windows[1]
	most := float64(w.Requests) * float64(to.Sub(from)) / float64(w.Per+guard)
	return float64(f.between(from, to)) / most
}

// possible is how many could have arrived between the two, after what had arrived before: where that lies close together, what follows
// cannot be spread as well.
func (f *fleet) possible(from, to time.Time) int {
	stamps := slices.Clone(f.arrivals[:f.between(time.Time{}, from)])
	past := len(stamps)
	for at := from; ; {
		for _, w := range f.budget.Windows {
			if i := len(stamps) - w.Requests; i >= 0 {
				if free := stamps[i].Add(w.Per + guard); free.After(at) {
					at = free
				}
			}
		}
		if !at.Before(to) {
			return len(stamps) - past
		}
		stamps = append(stamps, at)
	}
}

func single(t *testing.T) (*redistest.Server, func() redis.UniversalClient) {
	server := redistest.Start(t)
	return server, func() redis.UniversalClient {
		options := server.Options()
		options.ContextTimeoutEnabled, options.MaxRetries = true, -1
		return redis.NewClient(options)
	}
}

// Replicas come and go, and the budget is used up all the same.
func TestFleetSaturates(t *testing.T) {
	t.Parallel()
	_, open := single(t)
	f := newFleet(t, 3, open)
	for _, m := range f.members {
		f.load(m, 15)
	}
	began := time.Now()
	time.Sleep(3 * time.Second)
	f.members[0].kill()
	time.Sleep(2 * time.Second)
	f.load(f.join(), 15)
	time.Sleep(3 * time.Second)
	f.members[1].kill()
	f.load(f.join(), 15)
	ended := began.Add(2 * (fleetWindows[1].Per + guard))
	time.Sleep(time.Until(ended))
	f.end()
	f.check()
	used := f.used(began, ended) + float64(f.inHand)/float64(2*fleetWindows[1].Requests) // what those who were killed could not use any more
	if used < 0.97 && f.lost(began, nil) == 0 {
		t.Errorf("%.1f %% of the budget were used", 100*used)
	}
	t.Logf("%.1f %% were used, %d of which by nobody; %d losses", 100*used, f.inHand, f.lost(began, nil))
}

// While Redis is away each replica goes on within its share, and when it is back nothing is too much, whatever
// it has forgotten.
func TestFleetWithoutRedis(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]func(*redistest.Server){
		"started empty": func(r *redistest.Server) { r.Kill(); time.Sleep(4 * time.Second); r.RestartEmpty() },
		"empty at once": func(r *redistest.Server) { r.Kill(); r.RestartEmpty(); time.Sleep(4 * time.Second) },
		// In the first 2 s nobody takes anything, nor then what others may have taken: that is over with the longest window.
		"hangs": func(r *redistest.Server) { r.Stop(); time.Sleep(fleetWindows[1].Per + guard); r.Cont() },
		"hangs briefly": func(r *redistest.Server) {
			for range 8 {
				r.Stop()
				time.Sleep(500 * time.Millisecond)
				r.Cont()
				time.Sleep(500 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, open := single(t)
			f := newFleet(t, 3, open)
			f.load(f.members[0], 40) // not alike
			f.load(f.members[1], 5)
			time.Sleep(2500 * time.Millisecond)
			f.load(f.members[2], 15)
			f.linked(f.members...)
			began := time.Now()
			outage(server)
			ended := time.Now()
			f.linked(f.members...)
			back, late := time.Now(), newLate(t, server)
			over := back.Add(fleetWindows[1].Per + guard)
			time.Sleep(time.Until(over))
			tail := 300*time.Millisecond + late.most() // what has room then is on its way
			f.end()
			f.check()
			if used := f.used(began, ended); used < 0.3 {
				t.Errorf("%.1f %% of the budget were used while Redis was away", 100*used)
			}
			taken, possible := f.between(back, over), f.possible(back, over.Add(-tail))
			if float64(taken) < 0.9*float64(possible) && f.lost(back, nil) == 0 {
				t.Errorf("%d of %d that were possible were taken when it was back", taken, possible)
			}
			t.Logf("away %v, back after %v more, used %.2f, then %d of %d; %v on the way, %d losses", ended.Sub(began), back.Sub(ended), f.used(began, ended),
				taken, possible, tail, f.lost(back, nil))
		})
	}
}
