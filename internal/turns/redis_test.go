package turns_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/internal/turns"

	"github.com/redis/go-redis/v9"
)

const childVariable = "TURNS_CHILD"

// holdUntilKilled takes the turn, says so and keeps it.
func holdUntilKilled(addr string) {
	r := turns.NewRedis(turns.RedisConfig{Client: redis.NewClient(&redis.Options{Addr: addr})}).Patient()
	if _, err := r.Take(context.Background(), invoices, patience); err != nil {
		panic(err)
	}
	fmt.Print("1")
	select {}
}

// A holder that was killed keeps the next one waiting for seconds, one that lives for as long as it likes.
func TestHolderIsKilled(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	r := shared(t, server).Patient()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+server.Addr())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	busy(t, r, invoices, 2*turns.LeaseFor)
	_ = cmd.Process.Kill()
	killed := time.Now()
	take(t, r, invoices, patience)()
	if took := time.Since(killed); took > turns.LeaseFor+2*time.Second {
		t.Errorf("the turn of one that was killed was free after %s", took)
	}
}

// A slow holder has its turn for longer than the lease: it is renewed.
func TestSlowHolder(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one, other := shared(t, server).Patient(), shared(t, server).Patient()
	end := take(t, one, invoices, 0)
	busy(t, other, invoices, 2*turns.LeaseFor)
	end()
	began := time.Now()
	take(t, other, invoices, patience)()
	if took := time.Since(began); took > turns.LeaseFor-time.Second {
		t.Errorf("a turn that was given back was free after %s", took)
	}
}

// Processes take turns: one with a long line does not starve one with a short line.
func TestProcessesTakeTurns(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	flood, single := shared(t, server).Patient(), shared(t, server).Patient()
	const line = 50
	var floods atomic.Int32
	stop := make(chan struct{})
	var flooding sync.WaitGroup
	for range line {
		flooding.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				end, err := flood.Take(context.Background(), invoices, patience)
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(20 * time.Millisecond)
				floods.Add(1)
				end()
			}
		})
	}
	const asked = 20
	for range asked {
		take(t, single, invoices, patience)()
	}
	before := floods.Load()
	close(stop)
	flooding.Wait()
	// Before each of its turns there is one of the flood's, and some more until it asks; in one line there would be all that wait.
	if most := int32(asked * line / 2); before > most {
		t.Errorf("%d turns beside a flood came after %d of the flood's, want %d at most", asked, before, most)
	}
}

// While Redis is away turns go on in each process, and when it is back over all of them: also those that were taken meanwhile.
func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]struct{ begin, end func(*redistest.Server) }{
		"killed": {(*redistest.Server).Kill, (*redistest.Server).RestartEmpty},
		"hung":   {(*redistest.Server).Stop, (*redistest.Server).Cont},
	} {
		server := redistest.Start(t)
		told := make(chan error, 100)
		one, other := shared(t, server, func(err error) { told <- err }), shared(t, server)
		before := take(t, one, turns.Key{Account: "acme", Work: "before"}, 0)
		outage.begin(server)
		began := time.Now()
		end := take(t, one, invoices, patience)
		busy(t, one, invoices, 100*time.Millisecond)
		take(t, other, invoices, patience)() // of this process nothing is known there
		if took := time.Since(began); took > patience/2 {
			t.Errorf("%s: turns without Redis took %s", name, took)
		}
		if err := <-told; err == nil {
			t.Errorf("%s: told that Redis is there", name)
		}
		outage.end(server)
		if err := <-told; err != nil {
			t.Errorf("%s: told %v, want that Redis is back", name, err)
		}
		// What is held is put back into Redis.
		client := server.Client(t)
		eventually(t, func() bool {
			n, err := client.Exists(t.Context(), "fap:v1:turn:{acme}:before", "fap:v1:turn:{acme}:POST /v2/invoices").Result()
			return err == nil && n == 2
		})
		eventually(t, func() bool { // the other one leaves Redis alone for a second
			end, err := other.Take(t.Context(), invoices, 0)
			if err == nil {
				end()
			}
			return errors.As(err, new(*turns.BusyError))
		})
		end()
		before()
		take(t, other, invoices, patience)()
	}
}

// That Redis is back is told also if nobody wants a turn any more. Whoever has one meanwhile keeps it.
func TestRedisIsBackAtNight(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	told := make(chan error, 100)
	one, other := shared(t, server, func(err error) { told <- err }).Patient(), shared(t, server).Patient()
	server.Kill()
	take(t, one, invoices, 0)()
	if err := <-told; err == nil {
		t.Error("told that Redis is there")
	}
	server.Restart()
	end := take(t, other, invoices, 0)
	if err := <-told; err != nil {
		t.Errorf("told %v, want that Redis is back", err)
	}
	busy(t, one, invoices, 0)
	end()
}

// A Redis that is slow for a moment, or away, gives nobody a turn beside another's: not to who insists, and to others only when it
// has been away for a while.
func TestNobodyMeetsForAHiccup(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one, other, hopeful := shared(t, server).Patient().Lasting(), shared(t, server), shared(t, server).Hopeful(patience)
	take(t, hopeful, turns.Key{Account: "acme", Work: "before"}, patience)() // it has a connection
	end := take(t, one, invoices, 0)
	server.Stop()
	time.AfterFunc(400*time.Millisecond, server.Cont) // one call fails, and the next may
	busy(t, hopeful, invoices, 5*time.Second)
	end()
	take(t, other, invoices, patience)()

	server.Stop()
	if _, err := other.Insist(t.Context(), invoices, time.Second); !errors.Is(err, turns.ErrAway) {
		t.Errorf("Insist while Redis is away: %v, want %v", err, turns.ErrAway)
	}
	began := time.Now()
	if _, err := other.Insist(t.Context(), invoices, patience); !errors.Is(err, turns.ErrAway) || time.Since(began) > patience/2 {
		t.Errorf("Insist for long while Redis is away: %v after %s, want %v", err, time.Since(began), turns.ErrAway)
	}
	server.Cont()
	eventually(t, func() bool {
		end, err := other.Insist(t.Context(), invoices, 0)
		if err == nil {
			end()
		}
		return err == nil
	})
	server.Stop()
	took := make(chan error, 1)
	go func() {
		end, err := other.Insist(context.Background(), invoices, patience)
		if err == nil {
			end()
		}
		took <- err
	}()
	server.Cont()
	if err := <-took; err != nil {
		t.Errorf("Insist when Redis is back: %v", err)
	}
}

// Who has heard that another has the turn does not get it for that Redis does not answer just when its time is up.
func TestTimeIsUpAmidAHiccup(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	end := take(t, shared(t, server).Patient().Lasting(), invoices, 0)
	halted := time.AfterFunc(time.Second, server.Stop)
	busy(t, shared(t, server).Hopeful(patience), invoices, 2*time.Second)
	halted.Stop()
	server.Cont()
	end()
}

func eventually(t *testing.T, so func() bool) {
	t.Helper()
	for began := time.Now(); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatal("it does not come about")
		}
	}
}

// Nothing stays in Redis.
func TestKeysExpire(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	r, client := shared(t, server).Patient(), server.Client(t)
	end := take(t, r, invoices, 0)
	if life, err := client.PTTL(t.Context(), "fap:v1:turn:{acme}:POST /v2/invoices").Result(); err != nil || life <= 0 || life > turns.LeaseFor {
		t.Errorf("the turn lives for %s (%v), want up to %s", life, err, turns.LeaseFor)
	}
	end()
	eventually(t, func() bool {
		n, err := client.DBSize(t.Context()).Result()
		return err == nil && n == 0
	})
}

// It works in a Cluster, too.
func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.Cluster(t)
	client := nodes.Client(t)
	one, other := turns.NewRedis(turns.RedisConfig{Client: client}).Patient(), turns.NewRedis(turns.RedisConfig{Client: client}).Patient()
	closing(t, one)
	closing(t, other)
	for _, account := range []string{"acme", "b", "c", "d"} {
		key := turns.Key{Account: account, Work: invoices.Work}
		end := take(t, one, key, 0)
		busy(t, other, key, 50*time.Millisecond)
		end()
		take(t, other, key, patience)()
	}
}

// What a turn costs: `go test -bench . ./internal/turns`.
func BenchmarkTake(b *testing.B) {
	b.Run("local", func(b *testing.B) { benchmark(b, turns.NewLocal()) })
	b.Run("Redis", func(b *testing.B) {
		client := redistest.Start(b).Client(b)
		benchmark(b, turns.NewRedis(turns.RedisConfig{Client: client}))
	})
}

func benchmark(b *testing.B, l taker) {
	for b.Loop() {
		end, err := l.Take(context.Background(), invoices, patience)
		if err != nil {
			b.Fatal(err)
		}
		end()
	}
	_ = l.Close(context.Background())
}
