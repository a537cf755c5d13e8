package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/tokens"
)

// migration is one FreeAgent account whose authorisation moves between a folder and a Redis.
type migration struct {
	*world
	folder, redis string // configurations
}

// stored is the grant in the store of a configuration.
func (m *migration) stored(config string) tokens.Grant {
	m.t.Helper()
	cfg, err := loadConfig(config, m.getenv)
	if err != nil {
		m.t.Fatal(err)
	}
	store, err := openStoreReadOnly(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	defer store.Close()
	grant, err := store.Load(m.t.Context(), account)
	if err != nil {
		m.t.Fatal(err)
	}
	return grant
}

func (m *migration) serve(config string) *replica {
	m.t.Helper()
	p := m.start("serve", "--config", config)
	addresses, err := p.listening()
	if err != nil {
		m.t.Fatal(err)
	}
	return &replica{process: p, url: "http://" + addresses[0]}
}

// answers waits until a proxy gets an answer from FreeAgent, for which no token was renewed.
func (m *migration) answers(r *replica) {
	m.t.Helper()
	refreshes := m.sim.Stats().Tokens.RefreshRequests
	eventuallyWithin(m.t, 0, "an answer", func() bool {
		status, _, err := get(r.url + "/v2/company")
		return err == nil && status == http.StatusOK
	})
	if n := m.sim.Stats().Tokens.RefreshRequests - refreshes; n != 0 {
		m.t.Errorf("%d refreshes after the move, want none", n)
	}
}

// moved expects that both stores have the same of the account.
func (m *migration) moved() {
	m.t.Helper()
	if a, b := m.stored(m.folder), m.stored(m.redis); !reflect.DeepEqual(a, b) || a.AccessToken == "" || len(a.Seeds) == 0 {
		m.t.Errorf("the folder has %v, Redis %v; want the same, whole", a, b)
	}
}

// An authorisation moves from a folder to Redis, while a proxy runs there, and back, and is never asked for anew.
func TestRedisMigration(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := redisWorld(t, fmt.Sprintf(`url: "redis://%s"`, server.Addr()))
	m := &migration{world: w, folder: filepath.Join(w.folder, "folder.yaml"), redis: filepath.Join(w.folder, "redis.yaml")}
	if err := os.Rename(filepath.Join(w.folder, "config.yaml"), m.redis); err != nil {
		t.Fatal(err)
	}
	w.configure(w.simURL, "listen: 127.0.0.1:0\nstore: {file: store}\n")
	if err := os.Rename(filepath.Join(w.folder, "config.yaml"), m.folder); err != nil {
		t.Fatal(err)
	}
	toRedis := []string{"accounts", "copy", "--from", m.folder, "--config", m.redis}
	toFolder := []string{"accounts", "copy", "--from", m.redis, "--config", m.folder}

	// 1. It is in the folder, and stays there while a proxy uses that.
	w.expect(exitOK, w.sim.Authorize("owner"), []string{"accounts", "import", account, "--config", m.folder})
	old := m.serve(m.folder)
	m.answers(old)
	w.expect(exitFailed, "", toRedis, `a proxy still runs on the store to copy from; stop it first`)
	if code, err := old.stop(syscall.SIGTERM); code != exitOK || err != nil {
		t.Fatal(code, err)
	}

	// 2. It moves beside a proxy that waits for it.
	replica := m.serve(m.redis)
	w.expect(exitOK, "", toRedis, `^Account acme is copied\.$`)
	m.answers(replica)
	m.moved()

	// 3. Redis has a newer one, which stays.
	w.expect(exitOK, w.sim.Authorize("owner"), []string{"accounts", "import", account, "--config", m.redis})
	w.expect(exitFailed, "", toRedis, `account acme is not copied: this store has a newer authorisation of it, which stays`)

	// 4. It moves back when no replica is left, though the last one was killed.
	w.expect(exitFailed, "", toFolder, `a proxy still runs on the store to copy from; stop it first`)
	replica.kill()
	old = m.serve(m.folder)
	w.expect(exitOK, "", toFolder, `^Account acme is copied\.$`)
	m.answers(old)
	m.moved()
	if code, err := old.stop(syscall.SIGTERM); code != exitOK || err != nil {
		t.Fatal(code, err)
	}

	// 5. What was removed is not brought back by what is older.
	w.expect(exitOK, "", []string{"accounts", "remove", account, "--config", m.redis})
	w.expect(exitFailed, "", toRedis, `account acme is not copied: it was removed from this store since`)
}
