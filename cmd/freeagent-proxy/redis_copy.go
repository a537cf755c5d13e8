package main

import (
	"context"
	"fmt"
	"time"
)

const (
	// redisReplicas is where replicas say that they are alive, each several times a second; see limiter/alive.lua.
	redisReplicas = "fap:v1:{replicas}"
	// silence is how long they are listened for: one may be dead, another may just start.
	silence = 3 * time.Second
)

// unused makes sure that no proxy is alive that uses this Redis.
func (s *redisStore) unused(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, silence+2*redisTimeout)
	defer cancel()
	before, err := s.client.HGetAll(ctx, redisReplicas).Result()
	if err != nil {
		return fmt.Errorf("look for proxies that use that Redis: %w", err)
	}
	for began := time.Now(); time.Since(began) < silence; time.Sleep(100 * time.Millisecond) {
		now, err := s.client.HGetAll(ctx, redisReplicas).Result()
		if err != nil {
			return fmt.Errorf("look for proxies that use that Redis: %w", err)
		}
		for name, stamp := range now {
			if before[name] != stamp {
				return errStillRuns
			}
		}
	}
	return nil
}
