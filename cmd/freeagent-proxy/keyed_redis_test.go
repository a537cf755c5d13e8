package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/simulator"
	"freeagent-proxy/tokens"
)

// Redis's master dies, and its replica takes over: keys that were used keep their answers, one whose write is at FreeAgent
// meanwhile gets its own, and new ones are taken again.
func TestKeyedAcrossFailover(t *testing.T) {
	t.Parallel()
	watched := redistest.Sentinel(t)
	w := newShared(t, simNoLimits, "redis+sentinel://"+watched.Sentinel.Addr()+"/"+redistest.MasterName, noLimits)
	w.authorise(w.sim.Authorize("owner"))
	client := w.client(false)
	var urls []string
	for range 2 {
		_, url := w.serve()
		urls = append(urls, url)
	}
	const before = 20
	first := make([]reply, before)
	for i := range first {
		if first[i] = w.create(client, urls[i%2], fmt.Sprint("before-", i)); first[i].status != http.StatusCreated {
			t.Fatalf("before the failover: %+v", first[i])
		}
	}
	w.fault(simulator.Fault{Kind: simulator.FaultLatency, Delay: simulator.Duration(8 * time.Second), Match: simulator.Match{Method: "POST", Times: 1}})
	slow := make(chan reply, 1)
	go func() { slow <- w.create(client, urls[0], "slow") }()
	eventually(t, "the slow one at FreeAgent", func() bool { return len(w.arrivals()) == before+1 })
	// What is replicated in order is there when this is.
	master := watched.Master.Client(t)
	pipe := master.Pipeline()
	pipe.Set(t.Context(), "all before", "is replicated", time.Minute)
	acknowledged := pipe.Do(t.Context(), "wait", 1, patience.Milliseconds())
	if _, err := pipe.Exec(t.Context()); err != nil || acknowledged.Val() != int64(1) {
		t.Fatalf("replicas: %v, %v", acknowledged.Val(), err)
	}
	watched.Failover()
	if got := <-slow; got.status != http.StatusCreated || got.replayed {
		t.Errorf("what was at FreeAgent meanwhile: %+v", got)
	}
	for _, url := range urls {
		for i, was := range first {
			got := w.eventually(client, url, fmt.Sprint("before-", i))
			if got.status != was.status || !got.replayed || sameURLs(got.body) != sameURLs(was.body) {
				t.Errorf("before-%d after the failover: %+v, want %+v", i, got, was)
			}
		}
		if got := w.eventually(client, url, "slow"); got.status != http.StatusCreated || !got.replayed {
			t.Errorf("the slow one again: %+v", got)
		}
	}
	if got := w.eventually(client, urls[1], "after"); got.status != http.StatusCreated {
		t.Errorf("after the failover: %+v", got)
	}
	w.acts(before + 2)
}

// In a Cluster all of an account's outcomes and turns are in its slot, accounts are on several servers, and replicas agree as ever.
func TestKeyedInCluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.Cluster(t)
	w := newSimulated(t, raced, "")
	users := map[string]string{}
	var names []string
	for _, name := range []string{account, "a", "b", "c", "d", "e"} {
		users[name] = "user-" + name
		names = append(names, name+": {app: main}")
	}
	w.accounts = strings.Join(names, ", ")
	secret := tokens.NewKey()
	w.env = append(w.env, "FREEAGENT_PROXY_KEY="+secret)
	w.configure(w.simURL, fmt.Sprintf("listen: 127.0.0.1:0\nstore: {redis: {addresses: [%q], cluster: true}}\nencryption: {keys: [{id: tests, env: FREEAGENT_PROXY_KEY}]}\n%s",
		nodes.Servers[0].Addr(), noLimits))
	w.grantShared(redis.NewClusterClient(&redis.ClusterOptions{Addrs: nodes.Addrs(), ContextTimeoutEnabled: true}), secret, users)
	m := &matrix{world: w, client: w.client(false)}
	for range 2 {
		_, url := w.serve()
		m.urls = append(m.urls, url)
	}
	const each = 10
	var creating sync.WaitGroup
	for name := range users {
		for i := range each {
			creating.Go(func() {
				c := cell{matrix: m, method: "POST", keyed: true, nth: i, account: name, path: "/v2/invoices",
					body: fmt.Sprintf(`{"invoice":{"contact":"/v2/contacts/1","dated_on":"2026-01-01","payment_terms_in_days":%d}}`, i)}
				var got told
				for replica := range 2 {
					eventually(t, "an answer", func() bool { got = c.send(replica); return got.retryAfter == "" })
					if got.status != http.StatusCreated || got.replayed != (replica == 1) {
						t.Errorf("account %s, invoice %d, replica %d: %+v", name, i, replica, got)
					}
				}
			})
		}
	}
	creating.Wait()
	w.acts(int64(each * len(users)))
	if n := w.sim.Stats().Writes.DuplicateReferences; n != 0 {
		t.Errorf("%d duplicate references", n)
	}
	inSlots(t, nodes, slices.Collect(maps.Keys(users)))
}

// inSlots expects each account's keys in the slot of its name, and accounts on more than one server.
func inSlots(t *testing.T, nodes *redistest.Nodes, accounts []string) {
	t.Helper()
	servers, outcomes := map[string]bool{}, 0
	for _, server := range nodes.Servers {
		client := server.Client(t)
		for _, key := range client.Keys(t.Context(), "fap:v1:*").Val() {
			for _, name := range accounts {
				if !strings.Contains(key, "{"+name+"}") {
					continue
				}
				servers[server.Addr()] = true
				if strings.HasPrefix(key, "fap:v1:write:") {
					outcomes++
				}
				if got, want := client.ClusterKeySlot(t.Context(), key).Val(), client.ClusterKeySlot(t.Context(), name).Val(); got != want {
					t.Errorf("%s is in slot %d, its account in %d", key, got, want)
				}
			}
		}
	}
	if outcomes != 60 || len(servers) < 2 {
		t.Errorf("%d outcomes on %d servers; want 60 on several", outcomes, len(servers))
	}
}
