package tokens_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/tokens"
)

// backup makes a store keep a second copy in dir.
func backup(dir string) func(*tokens.RedisConfig) {
	return func(c *tokens.RedisConfig) { c.Backup = dir }
}

// reopen closes a store with a backup, and opens it again.
func reopen(t *testing.T, s *tokens.Redis, server *redistest.Server, dir string) *tokens.Redis {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return openRedis(t, client(t, server), backup(dir))
}

// What is in Redis and in the backup: the higher version wins, a removal's too.
func TestRedisBackup(t *testing.T) {
	t.Parallel()
	server, dir := redistest.Start(t), t.TempDir()
	s, other := openRedis(t, client(t, server), backup(dir)), openRedis(t, client(t, server))
	now := time.Now().UnixMilli()
	version := func(n int64) tokens.Grant {
		return tokens.Grant{Account: account, RefreshToken: "r", Version: now + n}
	}
	save(t, s, version(1), 0)
	server.RestartEmpty()

	s = reopen(t, s, server, dir)
	if got, err := s.Accounts(t.Context()); err != nil || len(got) != 1 {
		t.Errorf("Accounts = %v, %v; want the one in the backup", got, err)
	}
	if got := stored(t, s); got.Version != now+1 {
		t.Errorf("version %d, want the backup's", got.Version)
	}
	if got := stored(t, other); got.Version != now+1 {
		t.Errorf("version %d in Redis, want the backup's", got.Version)
	}

	// Redis has a newer one, of another replica.
	save(t, other, version(2), now+1)
	s = reopen(t, s, server, dir)
	if got := stored(t, s); got.Version != now+2 {
		t.Errorf("version %d, want that in Redis", got.Version)
	}

	// A write that loses leaves nothing in the backup.
	if err := s.Save(t.Context(), version(9), now+1); !errors.Is(err, tokens.ErrConflict) {
		t.Errorf("Save: %v, want ErrConflict", err)
	}
	s = reopen(t, s, server, dir)
	if got := stored(t, s); got.Version != now+2 {
		t.Errorf("version %d, want that in Redis", got.Version)
	}

	// Redis is away: the backup has it.
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := s.Save(ctx, version(3), now+2); !errors.Is(err, tokens.ErrStore) {
		t.Errorf("Save without Redis: %v", err)
	}
	server.Restart()
	s = reopen(t, s, server, dir)
	if got := stored(t, s); got.Version != now+3 {
		t.Errorf("version %d, want that in the backup", got.Version)
	}

	// Another replica removes it; the backup does not bring it back, then or after Redis has forgotten the removal too.
	time.Sleep(time.Until(time.UnixMilli(now + 4))) // versions are times
	if err := other.Remove(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Load(t.Context(), account); !errors.Is(err, tokens.ErrNoGrant) {
			t.Errorf("Load: %v, want ErrNoGrant", err)
		}
		flushAll(t, server)
	}
}

// A backup that does not work is told, and stops nothing.
func TestRedisBackupFails(t *testing.T) {
	t.Parallel()
	server, dir := redistest.Start(t), t.TempDir()
	old := openFile(t, tokens.FileConfig{Dir: dir, Keys: []tokens.Key{newKey(t, "lost")}})
	save(t, old, first, 0)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	var told []string
	s := openRedis(t, client(t, server), backup(dir), func(c *tokens.RedisConfig) {
		c.Degraded = func(what string, err error) { told = append(told, what+": "+err.Error()) }
	})
	save(t, s, tokens.Grant{Account: account, RefreshToken: "r", Version: 2}, 0)
	save(t, s, tokens.Grant{Account: account, RefreshToken: "r", Version: 3}, 2)
	if len(told) != 1 || !strings.Contains(told[0], `sealed with key "lost"`) || !strings.Contains(told[0], "not overwritten") {
		t.Errorf("told %q", told)
	}
}

// A grant that another key sealed is not overwritten, and not taken for lost; Remove may remove it.
func TestRedisWrongKey(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	other := openRedis(t, client(t, server), func(c *tokens.RedisConfig) { c.Keys = []tokens.Key{newKey(t, "lost")} })
	save(t, other, first, 0)
	s := openRedis(t, client(t, server))
	if _, err := s.Load(t.Context(), account); !errors.Is(err, tokens.ErrStore) || !strings.Contains(err.Error(), `sealed with key "lost"`) {
		t.Errorf("Load: %v", err)
	}
	if err := s.Save(t.Context(), tokens.Grant{Account: account, Version: 2}, 0); !errors.Is(err, tokens.ErrStore) || !strings.Contains(err.Error(), "not overwritten") {
		t.Errorf("Save: %v", err)
	}
	if got := stored(t, other); got.RefreshToken != first.RefreshToken {
		t.Error("overwritten")
	}
	if err := s.Remove(t.Context(), account); err != nil {
		t.Errorf("Remove: %v", err)
	}
}

// A grant moves to the first key when it is read.
func TestRedisKeyRotation(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	old, next := newKey(t, "old"), newKey(t, "new")
	with := func(keys ...tokens.Key) *tokens.Redis {
		return openRedis(t, client(t, server), func(c *tokens.RedisConfig) { c.Keys = keys })
	}
	save(t, with(old), first, 0)
	stored(t, with(next, old))
	if got := stored(t, with(next)); got.RefreshToken != first.RefreshToken || got.Version != first.Version {
		t.Errorf("got %v", got)
	}
}

// Nothing readable of a grant lies in Redis.
func TestRedisIsSealed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openRedis(t, client(t, server))
	save(t, s, tokens.Grant{Account: account, AccessToken: secret + "-access", RefreshToken: secret + "-refresh", Version: 7}, 0)
	fields, err := server.Client(t).HGetAll(t.Context(), "fap:v1:{acme}:grant").Result()
	if err != nil || fields["version"] != "7" || fields["sealed"] == "" || strings.Contains(fields["sealed"], secret) {
		t.Errorf("Redis has %q, %v", fields, err)
	}
}

// A token that is spent under trouble of any kind would be lost: the lock finds it first.
func TestNoTokenIsSpentWhenRedisCannotBeWritten(t *testing.T) {
	t.Parallel()
	agent := newFreeAgent()
	server := redistest.Start(t)
	a := newReplica(t, agent, agent.listen(t, 10*time.Second), server)
	save(t, a.redis, aged(agent.grant()), 0)
	old := a.token()
	config := func(name, value string) {
		t.Helper()
		if err := server.Client(t).ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, trouble := range []struct{ name, bad, good string }{{"maxmemory", "1", "0"}, {"min-replicas-to-write", "1", "0"}} {
		config(trouble.name, trouble.bad)
		a.findsStoreTrouble(old)
		a.refreshes(0)
		config(trouble.name, trouble.good)
	}
	a.renewOld(old)
	a.refreshes(1)
}
