package limiter

import (
	"encoding/binary"
	"os"
	"sync/atomic"
	"time"
)

// Machine is what tests change about the machine that a journal is kept on.
type Machine struct {
	Ahead atomic.Int64                 // how far the wall clock was set, in nanoseconds
	Disk  atomic.Pointer[func() error] // what it says, when it does, instead of syncing
}

// On makes cfg's journal be kept on m.
func (m *Machine) On(cfg Config) Config {
	cfg.adapt = func(j *journal) {
		j.wall = func(now time.Time) int64 { return now.UnixNano() + m.Ahead.Load() }
		j.sync = func(f *os.File) error {
			if disk := m.Disk.Load(); disk != nil {
				return (*disk)()
			}
			return f.Sync()
		}
	}
	return cfg
}

// What tests look at.
var (
	RedisKey  = redisKey
	BudgetKey = budgetKey
	Admit     = admit
	Amend     = amend
	Alive     = alive
)

// Ring is a ring of at most keep stamps.
type Ring struct {
	ring
	keep int
}

// NewRing returns an empty ring.
func NewRing(keep int) *Ring { return &Ring{keep: keep} }

func (r *Ring) Insert(stamp time.Duration)              { r.insert(stamp, r.keep, longAgo) }
func (r *Ring) Remove(stamp time.Duration)              { r.remove(stamp) }
func (r *Ring) Has(stamp time.Duration) bool            { return r.has(stamp) }
func (r *Ring) All(after time.Duration) []time.Duration { return r.all(after) }

// Replicas is how many share the Redis, as far as s knows.
func (s *Redis) Replicas() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

func (r *Ring) Most(limit int, length, from, to time.Duration) int {
	return r.most(limit, length, from, to)
}

// HearTaken lets s hear of a permit of another process, which was counted so long ago.
func (s *Redis) HearTaken(client string, weight int, b Budget, ago time.Duration) {
	other := Redis{name: newName(), seen: 2, Local: &Local{}}
	taken := &Permit{line: &line{client: client, weight: float64(weight)}}
	s.mu.Lock()
	stamp := s.foreign(s.now() - ago)
	s.mu.Unlock()
	message := binary.BigEndian.AppendUint64([]byte{'+'}, uint64(stamp))
	message = append(message, other.taker(taken, 0)...)
	message = binary.BigEndian.AppendUint64(message, 0) // the first
	message = binary.BigEndian.AppendUint64(message, uint64(micros(b.Windows[0].Per)))
	message = binary.BigEndian.AppendUint32(message, uint32(b.Windows[0].Requests))
	key := redisKey(b.Key)
	message = binary.BigEndian.AppendUint16(message, uint16(len(key)))
	s.hear(string(append(message, key...)))
}

// Counted reports whether the permit was counted in Redis.
func (p *Permit) Counted() bool {
	p.limiter.mu.Lock()
	defer p.limiter.mu.Unlock()
	return p.counted != nil
}

// Losses is how often s lost Redis.
func (s *Redis) Losses() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cuts
}
