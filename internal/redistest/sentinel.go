package redistest

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// MasterName is what the Sentinel calls the master that it watches over.
const MasterName = "fap"

// Watched is a master with one replica, and the Sentinel that puts the replica in its place when it dies.
type Watched struct {
	Master, Replica, Sentinel *Server // as they were at first
	// Wire, of SentinelOverWire, is between the master and the other two, and so what the Sentinel calls the master: cut it, and
	// the replica is put in the place of a master that goes on.
	Wire *Wire
}

// Sentinel starts the three, and waits until the replica has all and the Sentinel knows of it. options are those of
// master and replica. The Sentinel takes a master for dead that did not answer for 2.5 s: less, and it does so when
// the machine is merely busy.
func Sentinel(t testing.TB, options ...Option) *Watched {
	t.Helper()
	w := &Watched{Master: Start(t, options...)}
	w.follow(t, w.Master.Addr(), options)
	return w
}

// SentinelOverWire is Sentinel with a Wire, which can be cut.
func SentinelOverWire(t testing.TB, options ...Option) *Watched {
	t.Helper()
	w := &Watched{Master: Start(t, options...)}
	w.Wire = NewWire(t, w.Master.Addr())
	w.follow(t, w.Wire.Addr(), options)
	return w
}

// follow starts the other two, which find the master at an address.
func (w *Watched) follow(t testing.TB, address string, options []Option) {
	t.Helper()
	host, port, _ := net.SplitHostPort(address)
	w.Replica = Start(t, append(options[:len(options):len(options)], Set("replicaof", host, port))...)
	w.Sentinel = start(t, "redis-sentinel",
		Set("sentinel", "monitor", MasterName, host, port, "1"),
		Set("sentinel", "down-after-milliseconds", MasterName, "2500"),
		Set("sentinel", "failover-timeout", MasterName, "3000"))
	replica := w.Replica.Client(t)
	until(t, "the replica does not follow its master", func() error {
		info, err := replica.Info(t.Context(), "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = errors.New(info)
		}
		return err
	})
	master := w.Master.Client(t)
	until(t, "the master does not send to its replica", func() error { // it begins with the replica's first acknowledgement
		info, err := master.Info(t.Context(), "replication").Result()
		if err == nil && (!strings.Contains(info, "state=online,") || strings.Contains(info, "state=online,offset=0,")) {
			err = errors.New(info)
		}
		return err
	})
	sentinel := w.sentinel(t)
	until(t, "the sentinel does not know the replica", func() error {
		replicas, err := sentinel.Replicas(t.Context(), MasterName).Result()
		if err == nil && (len(replicas) != 1 || replicas[0]["flags"] != "slave" || replicas[0]["master-link-status"] != "ok") {
			err = fmt.Errorf("known: %v", replicas)
		}
		return err
	})
}

func (w *Watched) sentinel(t testing.TB) *redis.SentinelClient {
	t.Helper()
	client := redis.NewSentinelClient(w.Sentinel.Options())
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Addrs are the Sentinel's addresses.
func (w *Watched) Addrs() []string { return []string{w.Sentinel.Addr()} }

// Client returns a client that follows the master, and is closed when t ends.
func (w *Watched) Client(t testing.TB) *redis.Client {
	t.Helper()
	return closing(t, redis.NewFailoverClient(&redis.FailoverOptions{MasterName: MasterName, SentinelAddrs: w.Addrs()}))
}

// Failover kills the master and waits until the replica has taken its place, which takes some three seconds.
func (w *Watched) Failover() {
	w.Master.t.Helper()
	w.Master.Kill()
	w.Promoted()
}

// Promoted waits until the replica has taken the master's place.
func (w *Watched) Promoted() {
	t := w.Sentinel.t
	t.Helper()
	sentinel := w.sentinel(t)
	until(t, "no failover", func() error {
		addr, err := sentinel.GetMasterAddrByName(t.Context(), MasterName).Result()
		if err == nil && (len(addr) != 2 || addr[1] != strconv.Itoa(w.Replica.port)) {
			err = fmt.Errorf("the master is %v", addr)
		}
		return err
	})
}

// Split is a network that is cut in two, and mended: on the one side the master of SentinelOverWire and a client that dials by Lonely,
// on the other the Sentinel, the replica, and clients that dial as they are told.
type Split struct {
	Lonely Detour
	wires  []*Wire
}

// NewSplit makes one, whole.
func (w *Watched) NewSplit(t testing.TB) *Split {
	t.Helper()
	sentinel, replica := NewWire(t, w.Sentinel.Addr()), NewWire(t, w.Replica.Addr())
	return &Split{
		Lonely: Detour{w.Wire.Addr(): w.Master.Addr(), w.Sentinel.Addr(): sentinel.Addr(), w.Replica.Addr(): replica.Addr()},
		wires:  []*Wire{w.Wire, sentinel, replica},
	}
}

// Cut cuts it.
func (s *Split) Cut() {
	for _, w := range s.wires {
		w.Cut()
	}
}

// Mend mends it.
func (s *Split) Mend() {
	for _, w := range s.wires {
		w.Mend()
	}
}
