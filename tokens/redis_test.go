package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/tokens"
)

// patient are a server's options for a store: with deadlines.
func patient(s *redistest.Server) *redis.Options {
	o := s.Options()
	o.ContextTimeoutEnabled = true
	return o
}

func client(t *testing.T, s *redistest.Server) redis.UniversalClient {
	t.Helper()
	return closed(t, redis.NewClient(patient(s)))
}

func closed(t *testing.T, c redis.UniversalClient) redis.UniversalClient {
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// redisKey is the key of all stores here, so that replicas can read one another's grants.
var redisKey = tokens.NewKey()

func testKeys(t *testing.T) []tokens.Key {
	t.Helper()
	key, err := tokens.ParseKey("test", redisKey)
	if err != nil {
		t.Fatal(err)
	}
	return []tokens.Key{key}
}

func openRedis(t *testing.T, c redis.UniversalClient, change ...func(*tokens.RedisConfig)) *tokens.Redis {
	t.Helper()
	cfg := tokens.RedisConfig{Client: c, Keys: testKeys(t)}
	for _, f := range change {
		f(&cfg)
	}
	r, err := tokens.NewRedis(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

// flushed returns a function that opens an empty store each time.
func flushed(c redis.UniversalClient, flush func(t *testing.T), change ...func(*tokens.RedisConfig)) func(t *testing.T) tokens.Store {
	return func(t *testing.T) tokens.Store {
		flush(t)
		return openRedis(t, c, change...)
	}
}

func flushAll(t *testing.T, servers ...*redistest.Server) {
	t.Helper()
	for _, s := range servers {
		if err := s.Client(t).FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	testStore(t, flushed(client(t, s), func(t *testing.T) { flushAll(t, s) }))
}

func TestRedisWithBackup(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	testStore(t, func(t *testing.T) tokens.Store {
		flushAll(t, s)
		return openRedis(t, client(t, s), func(c *tokens.RedisConfig) { c.Backup = t.TempDir() })
	})
}

// The user may do nothing but what the documentation lists, over TLS with a client's certificate.
func TestRedisOverTLSAsUser(t *testing.T) {
	t.Parallel()
	rules := []string{"~fap:v1:*", "&fap:v1:*", "-@all"}
	for _, command := range tokens.RedisCommands() {
		rules = append(rules, "+"+command)
	}
	s := redistest.Start(t, redistest.TLS(), redistest.User("proxy", "its-password", rules...))
	o := patient(s)
	o.Username, o.Password = "proxy", "its-password"
	c := closed(t, redis.NewClient(o))
	testStore(t, flushed(c, func(t *testing.T) { flushAll(t, s) }, func(c *tokens.RedisConfig) { c.WaitReplicas = 0 }))
	testWatch(t, c)
}

func TestRedisCluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.Cluster(t)
	c := closed(t, redis.NewClusterClient(&redis.ClusterOptions{Addrs: nodes.Addrs(), ContextTimeoutEnabled: true}))
	testStore(t, flushed(c, func(t *testing.T) { flushAll(t, nodes.Servers...) }))
	t.Run("WAIT finds its master", func(t *testing.T) {
		var told []error
		s := openRedis(t, c, func(c *tokens.RedisConfig) {
			c.WaitReplicas = 1
			c.Degraded = func(_ string, err error) { told = append(told, err) }
		})
		for i := range 9 { // on all masters
			save(t, s, tokens.Grant{Account: fmt.Sprint("wait", i), RefreshToken: "r", Version: 1}, 0)
		}
		if len(told) != 1 || told[0] == nil { // no master has a replica
			t.Errorf("told %v, want one error", told)
		}
	})
	t.Run("tells", func(t *testing.T) { testWatch(t, c) })
}

// A failover keeps what a replica has acknowledged, and the store goes on with the new master.
func TestRedisSentinel(t *testing.T) {
	t.Parallel()
	w := redistest.Sentinel(t)
	c := closed(t, redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: redistest.MasterName, SentinelAddrs: w.Addrs(), ContextTimeoutEnabled: true,
	}))
	testStore(t, flushed(c, func(t *testing.T) { flushAll(t, w.Master) }))

	flushAll(t, w.Master)
	var told error
	s := openRedis(t, c, func(c *tokens.RedisConfig) {
		c.WaitReplicas = 1
		c.Degraded = func(_ string, err error) { told = err }
	})
	version := int64(0)
	for version == 0 || told != nil && version < 20 { // a busy machine's replica may need longer than is waited
		save(t, s, tokens.Grant{Account: account, RefreshToken: "r", Version: version + 1}, version)
		version++
	}
	if told != nil {
		t.Errorf("told %v though there is a replica", told)
	}
	w.Failover()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var err error
	next := tokens.Grant{Account: account, RefreshToken: "next", Version: version + 1}
	for err = s.Save(ctx, next, version); errors.Is(err, tokens.ErrStore) && ctx.Err() == nil; {
		err = s.Save(ctx, next, version)
	}
	if err != nil {
		t.Fatalf("Save after the failover: %v", err)
	}
	if told == nil {
		t.Error("told that all is well, though no replica is left")
	}
	if g, err := s.Load(ctx, account); err != nil || g.RefreshToken != "next" {
		t.Errorf("Load = %v, %v", g, err)
	}
}

// A failover while a refresh token is on its way: nobody else spends it.
func TestRedisFailoverDuringARefresh(t *testing.T) {
	t.Parallel()
	w := redistest.Sentinel(t)
	agent := newFreeAgent()
	agent.ever(late(5*time.Second, agent.refresh))
	endpoint := agent.listen(t, 20*time.Second)
	var replicas []*replica
	for range 2 {
		replicas = append(replicas, newReplicaOn(t, agent, endpoint, closed(t, redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: redistest.MasterName, SentinelAddrs: w.Addrs(), ContextTimeoutEnabled: true,
		})), func(c *tokens.RedisConfig) { c.Lease = time.Second }))
	}
	save(t, replicas[0].redis, aged(agent.grant()), 0)
	var wg sync.WaitGroup
	old := replicas[0].token()
	replicas[1].token()
	wg.Go(func() { replicas[0].renewOld(old) })
	eventually(t, "refreshing", func() bool { return agent.count() == 1 })
	wg.Go(func() { replicas[1].renewOld(old) })
	w.Failover()
	wg.Wait()
	replicas[0].refreshes(1)
	eventually(t, "stored", func() bool {
		g, err := replicas[1].redis.Load(t.Context(), account)
		return err == nil && g.AccessToken != "revoked"
	})
}

func save(t *testing.T, s tokens.Store, g tokens.Grant, previous int64) {
	t.Helper()
	if err := s.Save(t.Context(), g, previous); err != nil {
		t.Fatalf("Save: %v", err)
	}
}

// testWatch expects that a write of one replica reaches another: at once, as soon as that listens.
func testWatch(t *testing.T, c redis.UniversalClient) {
	t.Helper()
	told := make(chan string, 1000)
	watcher, writer := openRedis(t, c), openRedis(t, c)
	watch(t, watcher, func(account string) { told <- account })
	var took time.Duration
	for version := int64(1); version < 1000 && (took == 0 || took > time.Second); version++ {
		began := time.Now()
		save(t, writer, tokens.Grant{Account: "told", RefreshToken: "r", Version: version}, version-1)
		select {
		case got := <-told:
			if took = time.Since(began); got != "told" {
				t.Errorf("changed(%q)", got)
			}
		case <-time.After(10 * time.Millisecond): // it does not listen yet
		}
	}
	if took == 0 || took > time.Second {
		t.Errorf("told after %v", took)
	}
}

// watch watches until the test ends.
func watch(t *testing.T, s *tokens.Redis, changed func(account string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, changed)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func TestRedisRefusesToBegin(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	for _, c := range []struct {
		name string
		cfg  tokens.RedisConfig
		want string
	}{
		{"no key", tokens.RedisConfig{Client: client(t, s)}, "keygen"},
		{"no deadlines", tokens.RedisConfig{Client: s.Client(t), Keys: testKeys(t)}, "ContextTimeoutEnabled"},
		{"reads replicas", tokens.RedisConfig{Client: closed(t, redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: []string{s.Addr()}, ContextTimeoutEnabled: true, ReadOnly: true,
		})), Keys: testKeys(t)}, "replicas"},
	} {
		if _, err := tokens.NewRedis(c.cfg); !errors.Is(err, tokens.ErrStore) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want one about %q", c.name, err, c.want)
		}
	}
}

// What is wrong is said with what to do about it, and costs no refresh token: the lock finds it.
func TestRedisTroubleBeforeTheLock(t *testing.T) {
	t.Parallel()
	patience := 20 * time.Second // for an answer that comes
	try := func(t *testing.T, o *redis.Options, want string) {
		t.Helper()
		o.ContextTimeoutEnabled, o.MaxRetries = true, -1
		s := openRedis(t, closed(t, redis.NewClient(o)))
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := s.Lock(ctx, account)
		if !errors.Is(err, tokens.ErrStore) || !strings.Contains(err.Error(), want) {
			t.Errorf("Lock: %v\nwant one about %q", err, want)
		}
	}
	s := redistest.Start(t, redistest.User("proxy", "right", "~other:*", "+@all"))
	admin := s.Client(t)
	anonymous := s.Options()
	anonymous.Password = ""
	try(t, anonymous, "NOAUTH")
	wrong := s.Options()
	wrong.Username, wrong.Password = "proxy", "wrong"
	try(t, wrong, "correct user and password")
	confined := s.Options()
	confined.Username, confined.Password = "proxy", "right"
	try(t, confined, "allow the user of Redis ~fap:v1:*")

	config := func(name, value string) {
		t.Helper()
		if err := admin.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	config("maxmemory", "1")
	try(t, s.Options(), "raise its maxmemory")
	config("maxmemory", "0")
	config("min-replicas-to-write", "1")
	try(t, s.Options(), "min-replicas-to-write")
	config("min-replicas-to-write", "0")
	if err := admin.Do(t.Context(), "replicaof", "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	try(t, s.Options(), "this server is a replica")
	s.Stop()
	patience = time.Second
	try(t, s.Options(), "no answer in time")
	patience = 20 * time.Second
	s.Cont()
	s.Kill()
	try(t, s.Options(), "see that Redis runs")

	node := redistest.Start(t, redistest.Set("cluster-enabled", "yes"))
	try(t, node.Options(), "Redis Cluster")
}

func TestRedisCommandsAreDocumented(t *testing.T) {
	doc := string(read(t, "../docs/redis.md"))
	for _, command := range tokens.RedisCommands() {
		if command = strings.Split(command, "|")[0]; !regexp.MustCompile(` \+` + command + `\b`).MatchString(doc) {
			t.Errorf("docs/redis.md does not let a user do %q", command)
		}
	}
}
