package limiter

import (
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
