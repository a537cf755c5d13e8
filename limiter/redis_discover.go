package limiter

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// discover fetches the rings of all budgets that Redis has: a process that has just started knows of none, and Redis may
// die before it uses them.
func (s *Redis) discover(ctx context.Context) error {
	if all, ok := s.client.(*redis.ClusterClient); ok {
		return all.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error { return s.discoverAt(ctx, master) })
	}
	return s.discoverAt(ctx, s.client)
}

// scanned is how many keys are looked at in one step.
const scanned = 500

func (s *Redis) discoverAt(ctx context.Context, server redis.Cmdable) error {
	for cursor := uint64(0); ; {
		keys, next, err := server.Scan(ctx, cursor, "fap:v1:{*", scanned).Result()
		if err != nil {
			return err
		}
		pipe := server.Pipeline()
		rings, lives := make(map[string]*redis.StringCmd), make(map[string]*redis.DurationCmd)
		for _, key := range keys {
			if isRing(key) {
				rings[key], lives[key] = pipe.Get(ctx, key), pipe.PTTL(ctx, key)
			}
		}
		if len(rings) > 0 {
			if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
				return err
			}
		}
		for key, ring := range rings {
			s.found(key, ring.Val(), lives[key].Val())
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// isRing tells a budget's key from what package tokens keeps, and from the replicas'.
func isRing(key string) bool {
	if key == replicasKey {
		return false
	}
	_, kind, _ := strings.Cut(key, "}:")
	return kind != "grant" && kind != "lock" && kind != "spend"
}

// found takes in a ring of which nothing else is known yet than how long its key lives.
func (s *Redis) found(key, whole string, life time.Duration) {
	if len(whole) < header {
		return
	}
	data := []byte(whole)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	span := time.Hour // FreeAgent's longest
	if set := int64(binary.BigEndian.Uint64(data[24:])); set > 0 && life > 0 {
		span = life - ringLife + time.Duration(s.foreign(now)-s.shift-set)*time.Microsecond // as admit.lua has set it
	}
	b := s.budget(budgetKey(key), nil, now)
	b.keep = max(b.keep, int(binary.BigEndian.Uint32(data[20:])))
	b.span = max(b.span, span)
	s.restore(b, whole)
}
