package tokens_test

import (
	"sync"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/tokens"
)

// The clock of Redis's machine is set forward while one replica refreshes and another waits for the lock: lock and mark end at once, and
// the refresh token is spent once all the same.
func TestClockIsSetDuringARefresh(t *testing.T) {
	t.Parallel()
	agent := newFreeAgent()
	server := redistest.Start(t, redistest.OwnClock())
	endpoint := agent.listen(t, 10*time.Second)
	soon := func(c *tokens.RedisConfig) { c.Lease = 3 * time.Second }
	winner, loser := newReplica(t, agent, endpoint, server, soon), newReplica(t, agent, endpoint, server, soon)
	save(t, winner.redis, aged(agent.grant()), 0)
	old := winner.token()
	loser.token()
	agent.ever(late(3*time.Second, agent.refresh))
	var all sync.WaitGroup
	all.Go(func() { winner.renewOld(old) })
	eventually(t, "refreshing", func() bool { return agent.count() == 1 })
	all.Go(func() { loser.renewOld(old) })
	time.Sleep(300 * time.Millisecond) // it waits for the lock
	server.SetClock(time.Hour)
	all.Wait()
	winner.refreshes(1)
}

// Nor is leave to spend given right after the clock was set: another's mark may have died.
func TestClockIsSetBeforeLeave(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.OwnClock())
	const lease = 3 * time.Second
	s := openRedis(t, client(t, server), func(c *tokens.RedisConfig) { c.Lease = lease })
	save(t, s, first, 0)
	l := lock(t, s)
	defer l.Release()
	server.SetClock(time.Hour)
	eventually(t, "the lock is back", func() bool { return server.Client(t).Exists(t.Context(), "fap:v1:{acme}:lock").Val() == 1 })
	within(t, lease/3+3*time.Second, 3*lease, func() { spend(t, l, first.Version) })
}
