package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// redisCheckTime bounds the check of Redis, which takes milliseconds.
	redisCheckTime = 20 * time.Second
	// redisLeast is the least major version of Redis: before 7 a script's user is not the one who is asked for permission
	// in all of them, and nothing of this was tried. Valkey says that it is as good as 7.2.
	redisLeast = 7
)

// redisNode is a server that writes: the only one, Sentinel's master, or one master of a Cluster.
type redisNode struct {
	*redis.Client
	name    string
	key     string // one that it has
	cluster bool
}

// checkRedis makes sure that each server can do what we need and lets us. What could cost a grant or a limit one day is
// printed as a warning.
func (c *command) checkRedis(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, redisCheckTime)
	defer cancel()
	keys, err := encryptionKeys(cfg)
	if err != nil {
		return err
	}
	settings := cfg.Store.Redis
	cfg.Store.Redis.Backup = "" // that is looked at with the grants
	store, err := openRedis(cfg, keys, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	nodes, err := redisNodes(ctx, settings, store)
	if err != nil {
		return err
	}
	var problems []error
	for _, n := range nodes {
		summary, warnings, err := n.check(ctx, settings)
		for _, warning := range warnings {
			fmt.Fprintf(c.stdout, "warning: redis %s: %s\n", n.name, warning)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("redis %s: %w", n.name, err))
			continue
		}
		fmt.Fprintf(c.stdout, "redis %s: fine (%s)\n", n.name, summary)
	}
	return errors.Join(problems...)
}

// redisNodes finds the servers that write.
func redisNodes(ctx context.Context, settings RedisConfig, store *redisStore) ([]redisNode, error) {
	if err := store.Ping(ctx); err != nil {
		if rule, denied := deniedRule(err); denied {
			return nil, notAllowed(settings, []string{rule})
		}
		return nil, err
	}
	switch client := store.client.(type) {
	case *redis.Client:
		o, _, err := settings.options()
		if err != nil {
			return nil, err
		}
		name := o.Addrs[0]
		if o.MasterName != "" {
			name = "master " + o.MasterName
		}
		return []redisNode{{Client: client, name: name, key: probeKey(0)}}, nil
	case *redis.ClusterClient:
		return clusterNodes(ctx, client)
	default:
		return nil, fmt.Errorf("a client of type %T is not known here", client)
	}
}

func clusterNodes(ctx context.Context, client *redis.ClusterClient) ([]redisNode, error) {
	var mu sync.Mutex
	var nodes []redisNode
	err := client.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		key, err := keyOn(ctx, client, master)
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, redisNode{Client: master, name: master.Options().Addr, key: key, cluster: true})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look at the masters of the Cluster: %w", err)
	}
	slices.SortFunc(nodes, func(a, b redisNode) int { return cmp.Compare(a.name, b.name) })
	return nodes, nil
}

// keyTries finds a key also on a master that has one slot in a thousand.
const keyTries = 20_000

// keyOn is a key that a master of a Cluster has.
func keyOn(ctx context.Context, client *redis.ClusterClient, master *redis.Client) (string, error) {
	for i := range keyTries {
		home, err := client.MasterForKey(ctx, probeKey(i))
		if err != nil {
			return "", err
		}
		if home.Options().Addr == master.Options().Addr {
			return probeKey(i), nil
		}
	}
	return "", fmt.Errorf("%s has next to no slots; give it some, or take it out of the Cluster", master.Options().Addr)
}

// probeKey is no account's: their names have no slash.
func probeKey(i int) string { return fmt.Sprintf("fap:v1:{check/%d}:probe", i) }

// check looks at one server.
func (n redisNode) check(ctx context.Context, settings RedisConfig) (summary string, warnings []string, err error) {
	text, err := n.Info(ctx).Result()
	if _, denied := deniedRule(err); err != nil && !denied {
		return "", nil, fmt.Errorf("INFO: %w", err)
	}
	info := readInfo(text)
	if err := cmp.Or(info.tooOld(), info.wrongForm(n.cluster)); err != nil {
		return "", nil, err
	}
	missing, err := n.missing(ctx)
	switch {
	case err != nil:
		return "", nil, err
	case len(missing) > 0:
		return "", nil, notAllowed(settings, missing)
	}
	if err := n.runScript(ctx); err != nil {
		return "", nil, err
	}
	warnings = append(info.eviction(), info.persistence(settings, n.configured(ctx))...)
	if o, _, err := settings.options(); err == nil && o.MasterName != "" {
		warnings = append(warnings, info.splits()...)
	}
	if replicas := info.replicas(); replicas < settings.WaitReplicas {
		warnings = append(warnings, fmt.Sprintf("store.redis.wait_replicas is %d, but it has %s: each new grant waits half a second for nothing; bring its replicas back, or lower wait_replicas",
			settings.WaitReplicas, plural(replicas, "replica")))
	}
	return info.product() + ", " + plural(info.replicas(), "replica"), warnings, nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// notAllowed says what to give to the ACL user.
func notAllowed(settings RedisConfig, rules []string) error {
	user := "default"
	if o, _, err := settings.options(); err == nil && o.Username != "" {
		user = o.Username
	}
	return fmt.Errorf("its user may not do all that is needed; run on it: ACL SETUSER %s %s (docs/redis.md has the whole line)", user, strings.Join(rules, " "))
}

// configured returns settings that INFO does not tell, if we may read them. Most users of Redis may not, and need not.
func (n redisNode) configured(ctx context.Context) map[string]string {
	settings, err := n.ConfigGet(ctx, "appendfsync").Result()
	if err != nil {
		return nil
	}
	save, err := n.ConfigGet(ctx, "save").Result()
	if value, known := save["save"]; err == nil && known {
		settings["save"] = value
	}
	return settings
}

// redisInfo is what a server says of itself.
type redisInfo map[string]string

func readInfo(text string) redisInfo {
	info := redisInfo{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}

func (i redisInfo) product() string {
	if version := i["valkey_version"]; version != "" {
		return "Valkey " + version
	}
	return "Redis " + i["redis_version"]
}

func (i redisInfo) tooOld() error {
	major, _, _ := strings.Cut(i["redis_version"], ".")
	if n, err := strconv.Atoi(major); err == nil && n < redisLeast {
		return fmt.Errorf("%s is too old; use Redis 7.0 or newer, or Valkey", i.product())
	}
	return nil
}

func (i redisInfo) wrongForm(cluster bool) error {
	switch {
	case i["role"] == "slave":
		return errors.New("it is a replica, which cannot be written; name its master, or the Sentinels")
	case i["cluster_enabled"] == "1" && !cluster:
		return errors.New("it is a part of a Redis Cluster; name it in its Cluster form, redis-cluster://host,host")
	default:
		return nil
	}
}

// replicas is how many follow it and have all.
func (i redisInfo) replicas() int {
	online := 0
	for name, value := range i {
		if number, ok := strings.CutPrefix(name, "slave"); ok && strings.Contains(value, "state=online") {
			if _, err := strconv.Atoi(number); err == nil {
				online++
			}
		}
	}
	return online
}

// splits warns if a Sentinel's master goes on being written when it is cut off, while another is put in its place. Redis tells how many
// replicas it takes for good only if it is to refuse writes without.
func (i redisInfo) splits() []string {
	if _, refuses := i["min_slaves_good_slaves"]; refuses || len(i) == 0 {
		return nil
	}
	return []string{"min-replicas-to-write is 0: a master that is cut off together with a replica of this proxy is written on while another takes its place, and a refresh token may be spent twice" +
		"; set min-replicas-to-write 1 on master and replicas, of which there should be two, and min-replicas-max-lag to less than the Sentinels' down-after-milliseconds"}
}

// eviction warns if it may throw keys of ours away when it is full. Grants have no expiry; locks, and what was counted, have.
func (i redisInfo) eviction() []string {
	policy := i["maxmemory_policy"]
	const remedy = "; set maxmemory-policy noeviction, and let other uses that are to be evicted have a Redis of their own"
	switch {
	case i["maxmemory"] == "0", policy == "noeviction", policy == "":
		return nil
	case strings.HasPrefix(policy, "volatile-"):
		return []string{"maxmemory-policy is " + policy + ": when it is full it forgets locks and what was counted, so that limits may be broken and a refresh token be spent twice" + remedy}
	default:
		return []string{"maxmemory-policy is " + policy + ": when it is full it forgets authorisations" + remedy}
	}
}

// persistence warns if a crash of it may cost a refresh token that FreeAgent has just given out. configured may be nil.
func (i redisInfo) persistence(settings RedisConfig, configured map[string]string) []string {
	const remedy = "; set appendonly yes, or store.redis.backup"
	save, known := configured["save"]
	switch {
	case i["aof_enabled"] == "1" && i["aof_last_write_status"] == "err":
		return []string{"it cannot write its append-only file; free its disk"}
	case i["aof_enabled"] == "1" && configured["appendfsync"] == "no":
		return []string{"appendfsync is no: a crash of its machine loses what was written in the last half minute, perhaps a refresh token that had just come; set appendfsync everysec, or always"}
	case i["aof_enabled"] != "0", settings.Backup != "":
		return nil
	case known && save == "":
		return []string{"it keeps nothing on disk: when it is restarted it has no authorisations but those that running replicas of the proxy hold" + remedy}
	default:
		return []string{"it has no append-only file: when it crashes it has what its last snapshot had, without the refresh tokens that came since" + remedy}
	}
}
