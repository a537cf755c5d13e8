package redistest

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

const (
	masters = 3
	slots   = 16384 // of every Redis Cluster
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
		c.Servers = append(c.Servers, Start(t, Set("cluster-enabled", "yes"), Set("cluster-node-timeout", "2000"), Set("cluster-port", bus),
			func(s *Server) { s.lines = append(s.lines, "cluster-announce-bus-port "+bus) }))
	}
	ctx := t.Context()
	first := c.Servers[0]
	for i, s := range c.Servers {
		admin := s.Client(t)
		bus := strings.TrimSpace(admin.ConfigGet(ctx, "cluster-port").Val()["cluster-port"])
		err := admin.ClusterAddSlotsRange(ctx, i*slots/masters, (i+1)*slots/masters-1).Err()
		if err == nil {
			err = admin.Do(ctx, "cluster", "set-config-epoch", i+1).Err()
		}
		if err == nil && s != first {
			err = first.Client(t).Do(ctx, "cluster", "meet", "127.0.0.1", s.port, bus).Err()
		}
		if err != nil {
			t.Fatalf("set up the cluster: %v", err)
		}
	}
	for _, s := range c.Servers {
		admin := s.Client(t)
		until(t, "the cluster does not come up", func() error { return settled(t, admin) })
	}
	return c
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
