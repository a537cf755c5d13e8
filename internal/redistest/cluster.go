package redistest

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	masters = 3
	slots   = 16384 // of every Redis Cluster
	// nodeTimeout is how long a master waits for another one's word.
	nodeTimeout = 2 * time.Second
)

// Nodes is a Cluster of three masters, each with a third of the slots and no replica.
type Nodes struct {
	Servers []*Server
}

// Cluster starts a Cluster and waits until all its masters agree that it is up.
func Cluster(t testing.TB) *Nodes {
	t.Helper()
	c := new(Nodes)
	for range masters {
		bus := strconv.Itoa(freePort(t))
		c.Servers = append(c.Servers, Start(t, Set("cluster-enabled", "yes"), Set("cluster-port", bus),
			Set("cluster-node-timeout", strconv.FormatInt(nodeTimeout.Milliseconds(), 10)),
			func(s *Server) { s.lines = append(s.lines, "cluster-announce-bus-port "+bus) }))
	}
	ctx := t.Context()
	var admins []*redis.Client
	for i, s := range c.Servers {
		admins = append(admins, s.Client(t))
		err := admins[i].ClusterAddSlotsRange(ctx, i*slots/masters, (i+1)*slots/masters-1).Err()
		if err == nil {
			err = admins[i].Do(ctx, "cluster", "set-config-epoch", i+1).Err()
		}
		if err != nil {
			t.Fatalf("set up the cluster: %v", err)
		}
	}
	c.meet(t, admins)
	met := time.Now()
	for _, admin := range admins {
		until(t, "the cluster does not come up", func() error {
			err := settled(t, admin)
			if err != nil && time.Since(met) > 2*nodeTimeout {
				c.meet(t, admins)
				met = time.Now()
			}
			return err
		})
	}
	return c
}

// meet lets the first master get to know the others, and them it. Either side gives up when that takes longer than nodeTimeout, the other
// may not, and then only one knows the other, until they meet again.
func (c *Nodes) meet(t testing.TB, admins []*redis.Client) {
	t.Helper()
	for i, s := range c.Servers[1:] {
		bus := admins[i+1].ConfigGet(t.Context(), "cluster-port").Val()["cluster-port"]
		if err := admins[0].Do(t.Context(), "cluster", "meet", "127.0.0.1", s.port, strings.TrimSpace(bus)).Err(); err != nil {
			t.Fatalf("set up the cluster: %v", err)
		}
	}
}

// settled says what a node still waits for.
func settled(t testing.TB, admin *redis.Client) error {
	info, err := admin.ClusterInfo(t.Context()).Result()
	if err != nil {
		return err
	}
	for _, want := range []string{"cluster_state:ok", "cluster_size:" + strconv.Itoa(masters), "cluster_slots_assigned:" + strconv.Itoa(slots)} {
		if !strings.Contains(info, want) {
			return errors.New(info)
		}
	}
	return nil
}

// Addrs are the masters' addresses.
func (c *Nodes) Addrs() []string {
	var addrs []string
	for _, s := range c.Servers {
		addrs = append(addrs, s.Addr())
	}
	return addrs
}

// Client returns a client of the whole, which is closed when t ends.
func (c *Nodes) Client(t testing.TB) *redis.ClusterClient {
	t.Helper()
	return closing(t, redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs()}))
}
