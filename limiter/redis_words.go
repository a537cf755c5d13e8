package limiter

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// What this process and Redis call the same: keys, times, numbers.

// redisKey is where a budget's ring is: `fap:v1:{acme}:api` for api/acme, all of an account in one slot.
func redisKey(key string) string {
	kind, rest, ok := strings.Cut(key, "/")
	if !ok {
		return "fap:v1:{" + key + "}"
	}
	account, more, ok := strings.Cut(rest, "/")
	if ok {
		more = "/" + more
	}
	return "fap:v1:{" + account + "}:" + kind + more
}

// budgetKey is the budget whose ring is there; "": none's.
func budgetKey(key string) string {
	rest, ok := strings.CutPrefix(key, "fap:v1:{")
	if !ok {
		return ""
	}
	account, kind, ok := strings.Cut(rest, "}:")
	if !ok {
		return strings.TrimSuffix(rest, "}")
	}
	kind, more, ok := strings.Cut(kind, "/")
	if ok {
		more = "/" + more
	}
	return kind + "/" + account + more
}

func micros(d time.Duration) int64 { return int64((d + time.Microsecond - 1) / time.Microsecond) }

// local is a time of Redis's as one of ours; 0, which means none there, is long ago here.
func (s *Redis) local(redisTime int64) time.Duration {
	if redisTime == 0 {
		return longAgo
	}
	return time.Duration(redisTime-s.epoch.Load()) * time.Microsecond
}

// foreign is one of our times as one of Redis's.
func (s *Redis) foreign(t time.Duration) int64 { return s.epoch.Load() + int64(t/time.Microsecond) }

// longAgo is before all that is of interest.
const longAgo = -1 << 62

// texts reads a script's answer: a text, and numbers in decimal.
func texts(cmd *redis.Cmd) (text string, numbers []int64, err error) {
	values, err := cmd.StringSlice()
	if err != nil || len(values) == 0 {
		return "", nil, err
	}
	numbers = make([]int64, len(values)-1)
	for i, v := range values[1:] {
		if numbers[i], err = strconv.ParseInt(v, 10, 64); err != nil {
			return "", nil, fmt.Errorf("limiter script answered %q: %w", v, err)
		}
	}
	return values[0], numbers, nil
}
