package limiter_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/limiter"

	"github.com/redis/go-redis/v9"
)

// freeAgents are FreeAgent's own windows.
var freeAgents = []limiter.Window{{Requests: 120, Per: time.Minute}, {Requests: 3600, Per: time.Hour}}

// A busy account takes at most 34 KB, a quiet one little, and what is idle expires.
func TestRedisMemory(t *testing.T) {
	server := redistest.Start(t)
	s, c := newLinked(t, server.Options()), server.Client(t)
	ctx := context.Background()
	busy := limiter.Budget{Key: "api/busy", Windows: []limiter.Window{{Requests: 3600, Per: time.Hour}}}
	for range 3601 {
		if p, err := s.Take(ctx, request(0, busy)); err == nil {
			p.Sent()
		}
	}
	quiet := limiter.Budget{Key: "api/quiet", Windows: freeAgents}
	p, err := s.Take(ctx, request(0, quiet))
	if err != nil {
		t.Fatal(err)
	}
	p.Sent()
	for key, most := range map[string]int64{"fap:v1:{busy}:api": 34 << 10, "fap:v1:{quiet}:api": 300} {
		if used := c.MemoryUsage(ctx, key).Val(); used == 0 || used > most {
			t.Errorf("%s takes %d bytes, want at most %d", key, used, most)
		}
	}
	keys := c.Keys(ctx, "*").Val()
	if len(keys) != 3 { // with the replicas'
		t.Errorf("keys %v", keys)
	}
	for _, key := range keys {
		most := 36 * time.Hour
		if strings.HasSuffix(key, "api") { // the window, its guard, and what a clock that is set may take
			most = 3*time.Hour + time.Minute + time.Second
		}
		if ttl := c.PTTL(ctx, key).Val(); ttl < most-time.Minute || ttl > most {
			t.Errorf("%s expires in %v", key, ttl)
		}
	}
}

// Redis decides by its own clock, and answers a script that it has forgotten.
func TestRedisForgetsItsScripts(t *testing.T) {
	server := redistest.Start(t)
	c := server.Client(t)
	s := newObserved(t, server, func(e limiter.Event) {
		if e.Kind == limiter.RedisLost && redis.HasErrorPrefix(e.Err, "NOSCRIPT") {
			t.Errorf("lost: %v", e.Err)
		}
	})
	b := budget("api/acme", 100, time.Minute)
	for range 3 {
		if err := c.ScriptFlush(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
		send(t, s.Local, request(0, b))
	}
	until(t, "counts in Redis", func() bool { return s.State() == "linked" }) // unless the machine is too busy, it did all the time
}

// A Redis that takes no writes is one that is away, and nobody waits for it.
func TestRedisTakesNoWrites(t *testing.T) {
	for name, breaks := range map[string][2][]string{
		"read-only":     {{"REPLICAOF", "127.0.0.1", "1"}, {"REPLICAOF", "NO", "ONE"}},
		"out of memory": {{"CONFIG", "SET", "maxmemory", "1"}, {"CONFIG", "SET", "maxmemory", "0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			s, c, late := newLinked(t, server.Options()), server.Client(t), newLate(t, server)
			b := budget("api/acme", 10, time.Minute)
			send(t, s.Local, request(0, b))
			do(t, c, breaks[0])
			for range 3 {
				began := time.Now()
				send(t, s.Local, request(0, b))
				ended := time.Now()
				if took := ended.Sub(began) - late.lost(began, ended); took > 400*time.Millisecond {
					t.Errorf("a permit took %v of the limiter's time", took)
				}
			}
			if s.State() != "alone" {
				t.Errorf("state %s", s.State())
			}
			do(t, c, breaks[1])
			until(t, "counts in Redis again", func() bool { return s.State() == "linked" })
			if left := s.Usage(b)[0].Remaining; left != 6 {
				t.Errorf("%d of 10 remain after 4", left)
			}
			send(t, s.Local, request(0, b))
		})
	}
}

func do(t *testing.T, c *redis.Client, words []string) {
	t.Helper()
	args := make([]any, len(words))
	for i, w := range words {
		args[i] = w
	}
	if err := c.Do(context.Background(), args...).Err(); err != nil {
		t.Fatalf("%v: %v", words, err)
	}
}

// Started without Redis nothing goes, since what others have used is not known; then all does by itself.
func TestRedisComesLate(t *testing.T) {
	server := redistest.Start(t)
	server.Kill()
	options := server.Options()
	options.ContextTimeoutEnabled, options.MaxRetries = true, -1
	client := redis.NewClient(options)
	defer client.Close()
	s, err := limiter.NewRedis(limiter.RedisConfig{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := budget("api/acme", 10, time.Minute)
	refused(t, s.Local, request(0, b))
	refused(t, s.Local, request(300*time.Millisecond, b))
	served := make(chan error, 30)
	for range cap(served) / 3 {
		go func() {
			_, err := s.Take(context.Background(), request(20*time.Second, b))
			served <- err
		}()
	}
	server.Restart()
	for range cap(served) / 3 {
		if err := <-served; err != nil {
			t.Fatal(err)
		}
	}
	refused(t, s.Local, request(0, b))
}

// A failover loses what the old master had not told the new one; the replicas have not forgotten it.
func TestFleetFailsOver(t *testing.T) {
	t.Parallel()
	watched := redistest.Sentinel(t)
	f := newFleet(t, 2, func() redis.UniversalClient {
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: redistest.MasterName, SentinelAddrs: watched.Addrs(), ContextTimeoutEnabled: true, MaxRetries: -1,
		})
	})
	for _, m := range f.members {
		f.load(m, 15)
	}
	time.Sleep(2 * time.Second)
	watched.Failover()
	f.linked(f.members...)
	time.Sleep(fleetWindows[1].Per)
	f.end()
	f.check()
}

// Every budget's ring has a place of its own, from which the budget can be told, and an account's are in one slot.
func TestRedisKeys(t *testing.T) {
	seen := make(map[string]string)
	for _, key := range []string{"egress", "api/acme", "refresh/acme", "api/acme/sub", "share/acme/nightly", "api/egress", "api/api", "api"} {
		at := limiter.RedisKey(key)
		if before, ok := seen[at]; ok {
			t.Errorf("%s and %s are both at %s", key, before, at)
		}
		seen[at] = key
		if got := limiter.BudgetKey(at); got != key {
			t.Errorf("%s is at %s, which is %s's", key, at, got)
		}
		if account := strings.Split(key, "/"); len(account) > 1 && !strings.HasPrefix(at, fmt.Sprintf("fap:v1:{%s}:", account[1])) {
			t.Errorf("%s is at %s", key, at)
		}
	}
}

// A decision costs Redis few steps, however full the rings are.
func TestRedisStepsOfADecision(t *testing.T) {
	server := redistest.Start(t)
	c := server.Client(t)
	client := redis.NewClient(server.Options())
	defer client.Close()
	const lenient = 4 * time.Second // so that what leaves late, on a busy machine, is not told anew
	s, err := limiter.NewRedis(limiter.RedisConfig{Client: client, Guard: lenient})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	until(t, "counts in Redis", func() bool { return s.State() == "linked" })
	api, egress := limiter.Budget{Key: "api/busy", Windows: freeAgents}, budget("egress", 1000, time.Minute)
	send(t, s.Local, request(0, api, egress))
	for range 300 {
		send(t, s.Local, request(0, budget("api/full", 300, time.Hour)))
	}
	full := limiter.Budget{Key: "api/full", Windows: []limiter.Window{{Requests: 200, Per: guard}, {Requests: 300, Per: guard}}}
	time.Sleep(2*guard + lenient) // longer than its windows
	for _, step := range []struct {
		name    string
		budgets []limiter.Budget
		most    map[string]int
	}{
		{"of two budgets", []limiter.Budget{api, egress}, map[string]int{"time": 1, "getrange": 2, "setrange": 4, "publish": 0}},
		{"of a full ring", []limiter.Budget{full}, map[string]int{"time": 1, "getrange": 1, "setrange": 2, "publish": 0}},
	} {
		before := steps(t, c)
		const decisions = 100
		for range decisions {
			send(t, s.Local, request(0, step.budgets...))
		}
		after := steps(t, c)
		beats := after["hgetall"] - before["hgetall"] // each of which looks at the time, too
		for name, most := range step.most {
			// And rings that grow, and a look at a full one now and then.
			if n := after[name] - before[name]; n > decisions*most+decisions/4+beats {
				t.Errorf("%s: %d times %s for %d decisions, want %d for each", step.name, n, name, decisions, most)
			}
		}
	}
}

// steps counts Redis's commands.
func steps(t *testing.T, c *redis.Client) map[string]int {
	t.Helper()
	info, err := c.InfoMap(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]int)
	for name, text := range info["Commandstats"] {
		var n int
		if _, err := fmt.Sscanf(text, "calls=%d", &n); err == nil {
			counts[strings.TrimPrefix(name, "cmdstat_")] = n
		}
	}
	return counts
}
