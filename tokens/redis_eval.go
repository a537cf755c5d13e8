package tokens

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// RedisCommands are the commands that an ACL user must be allowed, on the keys and channels
// "~fap:v1:* &fap:v1:*". The last seven are sent by the client library when it connects, or follows a Cluster.
func RedisCommands() []string {
	return []string{
		"eval", "evalsha", "get", "set", "del", "exists", "pexpire", "persist", "pttl",
		"hget", "hmget", "hset", "hdel", "hexists", "scan", "time", "info", "wait",
		"publish", "subscribe", "unsubscribe",
		"ping", "hello", "auth", "client", "select", "cluster", "command",
	}
}

//go:embed redis_*.lua
var redisScripts embed.FS

func redisScript(name string) *redis.Script {
	text, err := redisScripts.ReadFile("redis_" + name + ".lua")
	if err != nil {
		panic(err) // it is embedded
	}
	return redis.NewScript(string(text))
}

var (
	loadScript    = redisScript("load")
	saveScript    = redisScript("save")
	removeScript  = redisScript("remove")
	lockScript    = redisScript("lock")
	spendScript   = redisScript("spend")
	renewScript   = redisScript("renew")
	releaseScript = redisScript("release")
)

// eval runs a script on the account's keys.
func (r *Redis) eval(ctx context.Context, script *redis.Script, account string, args ...any) ([]any, error) {
	return script.Run(ctx, r.cfg.Client, keys(account), args...).Slice()
}

// write is eval, and then waits for replicas if it is to.
func (r *Redis) write(ctx context.Context, script *redis.Script, account string, args ...any) ([]any, error) {
	if r.cfg.WaitReplicas <= 0 {
		return r.eval(ctx, script, account, args...)
	}
	result, acknowledged, err := r.evalWait(ctx, script, account, args...)
	if err != nil {
		return nil, err
	}
	var few error
	if acknowledged < int64(r.cfg.WaitReplicas) {
		few = fmt.Errorf("%d of %d replicas acknowledged a write within %s; a failover now may lose it: see to the replicas of Redis",
			acknowledged, r.cfg.WaitReplicas, waitFor)
	}
	r.degrade(DegradedReplicas, few)
	return result, nil
}

// evalWait sends script and WAIT over one connection, since WAIT waits for what its own connection wrote.
func (r *Redis) evalWait(ctx context.Context, script *redis.Script, account string, args ...any) ([]any, int64, error) {
	names := keys(account)
	cluster, sharded := r.cfg.Client.(*redis.ClusterClient)
	for again := sharded; ; again = false {
		server := r.cfg.Client
		if sharded {
			master, err := cluster.MasterForKey(ctx, names[0])
			if err != nil {
				return nil, 0, err
			}
			server = master
		}
		pipe := server.Pipeline()
		result := script.Eval(ctx, pipe, names, args...)
		acknowledged := pipe.Do(ctx, "wait", r.cfg.WaitReplicas, waitFor.Milliseconds())
		_, _ = pipe.Exec(ctx) // each says for itself
		if again && redis.HasErrorPrefix(result.Err(), "MOVED") {
			cluster.ReloadState(ctx)
			continue
		}
		values, err := result.Slice()
		replicas, _ := acknowledged.Int64()
		return values, replicas, err
	}
}

// number is a script's result at i, 0 if there is none.
func number(result []any, i int) int64 {
	if i >= len(result) {
		return 0
	}
	n, _ := result[i].(int64)
	return n
}

// word is the same for text.
func word(result []any, i int) string {
	if i >= len(result) {
		return ""
	}
	s, _ := result[i].(string)
	return s
}

// degrade tells what does not work, or works again (nil), unless that was told.
func (r *Redis) degrade(what string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.mu.Lock()
	told := r.degraded[what]
	r.degraded[what] = text
	r.mu.Unlock()
	if told != text {
		r.cfg.Degraded(what, err)
	}
}

// fail names the account, what is wrong and what to do. The error wraps ErrStore.
func (r *Redis) fail(doing, account string, err error) error {
	return fmt.Errorf("%w: %s account %q in Redis: %w", ErrStore, doing, account, remedied(err))
}

// remedies are by the first word of Redis's error.
var remedies = []struct{ prefix, remedy string }{
	{"NOAUTH", "give user and password of Redis"},
	{"WRONGPASS", "correct user and password of Redis"},
	{"NOPERM", "allow the user of Redis ~fap:v1:* &fap:v1:* and the commands that docs/redis.md lists"},
	{"READONLY", "this server is a replica: name its master, or the Sentinels"},
	{"NOREPLICAS", "Redis writes only with replicas at hand (min-replicas-to-write): bring them back"},
	{"OOM", "Redis is full: raise its maxmemory, with the policy noeviction"},
	{"MISCONF", "Redis cannot write its snapshots: free its disk"},
	{"LOADING", "Redis reads its data from disk: wait"},
	{"BUSY", "a script of somebody else's blocks Redis: end it with SCRIPT KILL"},
	{"MASTERDOWN", "this server is a replica without its master: bring that back"},
	{"MOVED", "this is a Redis Cluster: name it in its Cluster form"},
	{"ASK", "this is a Redis Cluster: name it in its Cluster form"},
	{"CLUSTERDOWN", "a part of the Redis Cluster is away: bring its master back"},
	{"max number of clients", "Redis takes no more connections: raise its maxclients"},
	{"NOPROTO", "use Redis 7.0 or newer"},
	{"unknown command", "use Redis 7.0 or newer, and allow this command"},
}

// remedied adds to an error of Redis, or of the way there, what to do about it.
func remedied(err error) error {
	for _, r := range remedies {
		if redis.HasErrorPrefix(err, r.prefix) {
			return fmt.Errorf("%w; %s", err, r.remedy)
		}
	}
	var wire *net.OpError
	var slow net.Error
	switch {
	case errors.As(err, &wire) && wire.Op == "dial":
		return fmt.Errorf("%w; see that Redis runs and can be reached", err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return fmt.Errorf("no answer in time: %w; see that Redis is not halted or overloaded", err)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%w; Redis closed the connection: if it runs, it may want TLS, or a client certificate", err)
	case strings.HasPrefix(err.Error(), "redis: all sentinels"):
		return fmt.Errorf("%w; see that a Sentinel runs and can be reached", err)
	default:
		return err
	}
}
