package limiter_test

import (
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"

	"github.com/redis/go-redis/v9"
)

// newPartition is a fleet of three under load. Of the clients made by open the first is the lonely one's.
func newPartition(t *testing.T, lonely redistest.Detour, open func(dial redistest.Detour) redis.UniversalClient) *fleet {
	dial := lonely
	f := newFleet(t, 3, func() redis.UniversalClient {
		defer func() { dial = nil }()
		return open(dial)
	})
	for _, m := range f.members {
		f.load(m, 15)
	}
	time.Sleep(2 * time.Second)
	f.steady()
	return f
}

// cutOff cuts, waits until the lonely one counts alone and the whole is used, mends, and looks at what went.
func (f *fleet) cutOff(wires ...*redistest.Wire) {
	f.t.Helper()
	cycle := fleetWindows[1].Per + guard
	for _, w := range wires {
		w.Cut()
	}
	lonely, cut := f.members[0], time.Now()
	until(f.t, "counts alone", func() bool { return lonely.State() == "alone" })
	time.Sleep(time.Until(cut.Add(2 * cycle)))
	alone := f.taken(lonely, cut.Add(cycle), cut.Add(2*cycle))
	for _, w := range wires {
		w.Mend()
	}
	f.linked(lonely)
	f.end()
	f.check()
	if want := fleetWindows[1].Requests / 3; alone < want/2 || alone > want*11/10 { // it goes in bursts, of which one may fall out
		f.t.Errorf("%d permits while it was cut off, want about %d", alone, want)
	}
	f.t.Logf("%d permits while it was cut off, %d losses of the others", alone, f.lost(cut, lonely))
}

// One replica is cut off from the master, or from its Sentinel, too; the Sentinel is not, and so lets the master be.
func TestFleetPartitionOfSentinel(t *testing.T) {
	t.Parallel()
	for name, whole := range map[string]bool{"from the master": false, "from the Sentinel too": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			watched := redistest.Sentinel(t)
			master := redistest.NewWire(t, watched.Master.Addr())
			sentinel := redistest.NewWire(t, watched.Addrs()[0])
			wires := []*redistest.Wire{master}
			if whole {
				wires = append(wires, sentinel)
			}
			lonely := redistest.Detour{watched.Master.Addr(): master.Addr(), watched.Addrs()[0]: sentinel.Addr()}
			newPartition(t, lonely, func(dial redistest.Detour) redis.UniversalClient { return failover(watched, dial) }).cutOff(wires...)
		})
	}
}

func failover(watched *redistest.Watched, dial redistest.Detour) redis.UniversalClient {
	return redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: redistest.MasterName, SentinelAddrs: watched.Addrs(), ContextTimeoutEnabled: true, MaxRetries: -1, Dialer: dial.Dial,
	})
}

// One replica is cut off from one master of a Cluster: of that which has the account, and of that which has the replicas.
func TestFleetPartitionOfCluster(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"of the account": "fap:v1:{acme}:api", "of the replicas": "fap:v1:{replicas}"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := redistest.Cluster(t)
			master, err := nodes.Client(t).MasterForKey(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			wire := redistest.NewWire(t, master.Options().Addr)
			lonely := redistest.Detour{master.Options().Addr: wire.Addr()}
			newPartition(t, lonely, func(dial redistest.Detour) redis.UniversalClient {
				return redis.NewClusterClient(&redis.ClusterOptions{
					Addrs: nodes.Addrs(), ContextTimeoutEnabled: true, MaxRetries: -1, Dialer: dial.Dial,
				})
			}).cutOff(wire)
		})
	}
}

// The master is cut off with one replica of ours; the Sentinel puts another in its place, to which the others go. Until that is mended
// both are written, and each side leaves the other its share.
func TestFleetSplits(t *testing.T) {
	t.Parallel()
	watched := redistest.SentinelOverWire(t)
	split := watched.NewSplit(t)
	f := newPartition(t, split.Lonely, func(dial redistest.Detour) redis.UniversalClient { return failover(watched, dial) })
	split.Cut()
	watched.Promoted()
	f.linked(f.members...) // the first at the old master, the others at the new one
	time.Sleep(fleetWindows[1].Per + guard)
	f.linked(f.members...) // a busy machine may have kept them from Redis
	split.Mend()
	until(t, "is back from the old master", func() bool { return f.members[0].State() != "linked" })
	f.linked(f.members[0])
	time.Sleep(3 * time.Second)
	f.end()
	f.check()
}
