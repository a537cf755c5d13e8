package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/limiter"
)

// rival is the limiter that is measured, and what its calls of Redis take.
type rival struct {
	limits *limiter.Redis
	client *redis.Client
	lost   atomic.Int64 // times that Redis was lost: what was counted alone meanwhile is no measure
	asked  latency      // of the script that decides
	pinged latency
}

// latency adds up what calls take.
type latency struct{ calls, total atomic.Int64 }

// micros is what one call takes, and begins anew.
func (l *latency) micros() float64 {
	return float64(l.total.Swap(0)) / 1e3 / float64(max(1, l.calls.Swap(0)))
}

// DialHook, ProcessHook and ProcessPipelineHook let the client tell what each call took.
func (r *rival) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *rival) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (r *rival) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		began := time.Now()
		err := next(ctx, cmd)
		of := &r.asked
		switch cmd.Name() {
		case "evalsha":
		case "ping":
			of = &r.pinged
		default:
			return err
		}
		of.calls.Add(1)
		of.total.Add(time.Since(began).Nanoseconds())
		return err
	}
}

// redisShare measures what Redis costs. Without a redis-server it says so.
func redisShare(ctx context.Context, folder string, slices int, length time.Duration) error {
	server, err := startRedis(ctx, folder)
	if errors.Is(err, exec.ErrNotFound) {
		fmt.Println("\nNo redis-server here: its share of the bench is left out. apt-get install redis-server brings it.")
		return nil
	}
	if err != nil {
		return err
	}
	defer server.stop()
	client := redis.NewClient(&redis.Options{Addr: server.address, PoolSize: 128, ContextTimeoutEnabled: true, MaxRetries: -1})
	defer client.Close()
	r := &rival{client: client}
	client.AddHook(r)
	r.limits, err = limiter.NewRedis(limiter.RedisConfig{Client: client, Replicas: 1, Observe: func(e limiter.Event) {
		if e.Kind == limiter.RedisLost {
			r.lost.Add(1)
		}
	}})
	if err != nil {
		return err
	}
	defer r.limits.Close()
	if err := r.admissions(ctx, max(1, slices/2), length); err != nil {
		return err
	}
	if err := r.accounts(ctx); err != nil {
		return err
	}
	return grants(ctx, client)
}

// linked waits until the limiter counts in Redis.
func (r *rival) linked(ctx context.Context) error {
	for r.limits.State() != "linked" {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// admissions measures what one decision of the limiter costs in Redis, beside a bare PING: the same server and client, in
// short interleaved slices.
func (r *rival) admissions(ctx context.Context, slices int, length time.Duration) error {
	if err := r.fill(ctx); err != nil {
		return err
	}
	fmt.Printf("\nOne admission in Redis beside a PING, %d interleaved slices of %s each, microseconds\n", slices, length)
	fmt.Printf("  %-10s %8s  %37s  %37s\n", "", "", "one budget of two windows", "and the address's, as for each request")
	fmt.Printf("  %-10s %8s", "in flight", "PING")
	for range 2 {
		fmt.Printf(" %10s %6s %12s %6s", "script", "ratio", "Take, Sent", "ratio")
	}
	fmt.Println()
	for _, flying := range []int{1, 16, 64} {
		if err := r.admission(ctx, flying, slices, length); err != nil {
			return err
		}
	}
	return nil
}

// startRedis starts a redis-server that keeps nothing.
func startRedis(ctx context.Context, folder string) (*process, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("find a port for redis-server: %w", err)
	}
	address := listener.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	_ = listener.Close()
	cmd := exec.CommandContext(ctx, "redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", folder)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start redis-server: %w", err)
	}
	p := &process{cmd, address}
	for range 500 {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return p, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.stop()
	return nil, errors.New("redis-server does not listen")
}

// What a request of a busy account takes its permit of: rings as long as FreeAgent's limits make them, in windows so short that
// there is room all the time.
var (
	hour   = []limiter.Window{{Requests: 3600, Per: time.Hour}}
	minute = []limiter.Window{{Requests: 1000, Per: time.Minute}}
	busy   = []limiter.Window{{Requests: 120, Per: time.Millisecond}, {Requests: 3600, Per: 10 * time.Millisecond}}
	egress = limiter.Budget{Key: "egress", Windows: []limiter.Window{{Requests: 1000, Per: time.Millisecond}}}
)

const busyAccounts = 64

// fill fills the rings.
func (r *rival) fill(ctx context.Context) error {
	for _, b := range []limiter.Budget{{Key: "api/bench0", Windows: hour}, {Key: "egress", Windows: minute}} {
		for range b.Windows[0].Requests {
			if err := r.linked(ctx); err != nil {
				return err
			}
			permit, err := r.limits.Take(ctx, limiter.Request{Budgets: []limiter.Budget{b}})
			if err != nil {
				return fmt.Errorf("fill a ring: %w", err)
			}
			permit.Sent()
		}
	}
	for i := 1; i < busyAccounts; i++ {
		if err := r.client.Copy(ctx, "fap:v1:{bench0}:api", "fap:v1:{bench"+strconv.Itoa(i)+"}:api", 0, true).Err(); err != nil {
			return fmt.Errorf("copy a ring: %w", err)
		}
	}
	return nil
}

// asking is one kind of call, and what it took.
type asking struct {
	call   func(n int) error
	script *latency  // what the call of Redis takes
	means  []float64 // of it, by slice
	all    meter     // what all of the call takes
}

// admission prints how long a PING, the script and all of a decision take, with so many in flight: out of an account's budget
// alone, and out of its and the address's as for each request that is forwarded.
func (r *rival) admission(ctx context.Context, flying, slices int, length time.Duration) error {
	take := func(more ...limiter.Budget) func(int) error {
		return func(n int) error {
			budgets := append([]limiter.Budget{{Key: "api/bench" + strconv.Itoa(n), Windows: busy}}, more...)
			permit, err := r.limits.Take(ctx, limiter.Request{Budgets: budgets, MaxWait: time.Second})
			if err == nil {
				permit.Sent()
			}
			return err
		}
	}
	ping := &asking{call: func(int) error { return r.client.Ping(ctx).Err() }, script: &r.pinged}
	one, two := &asking{call: take(), script: &r.asked}, &asking{call: take(egress), script: &r.asked}
	lostInVain := 0
	for i := -1; i < slices; i++ { // the first round warms up
		if err := r.linked(ctx); err != nil {
			return err
		}
		lost, took := r.lost.Load(), [3]meter{}
		var means [3]float64
		for j, a := range []*asking{ping, one, two} {
			a.script.micros()
			if err := took[j].slice(flying, length, a.call); err != nil {
				return fmt.Errorf("measure Redis: %w", err)
			}
			means[j] = a.script.micros()
		}
		if r.lost.Load() != lost { // what it did then it did without Redis
			if lostInVain++; lostInVain > slices {
				return fmt.Errorf("measure Redis: with %d in flight it does not answer within the limiter's patience on this machine", flying)
			}
			i--
			continue
		}
		if i < 0 {
			continue
		}
		for j, a := range []*asking{ping, one, two} {
			a.means = append(a.means, means[j])
			a.all.add(took[j])
		}
	}
	base := mean(ping.means)
	fmt.Printf("  %-10d %8.1f", flying, base)
	for _, a := range []*asking{one, two} {
		fmt.Printf(" %10.1f %6.2f %12.1f %6.2f", mean(a.means), mean(a.means)/base, a.all.micros(), a.all.micros()/ping.all.micros())
	}
	fmt.Println()
	return nil
}

func mean(all []float64) float64 {
	sum := 0.0
	for _, x := range all {
		sum += x
	}
	return sum / float64(len(all))
}

// meter counts calls and the time that passed meanwhile.
type meter struct {
	calls   int
	elapsed time.Duration
}

// micros is the time for each call, in microseconds.
func (m meter) micros() float64 { return float64(m.elapsed.Microseconds()) / float64(m.calls) }

func (m *meter) add(other meter) {
	m.calls += other.calls
	m.elapsed += other.elapsed
}

// slice lets so many call at once, again and again.
func (m *meter) slice(flying int, length time.Duration, call func(n int) error) error {
	var running sync.WaitGroup
	calls, errs := make([]int, flying), make([]error, flying)
	began := time.Now()
	for n := range flying {
		running.Go(func() {
			for time.Since(began) < length && errs[n] == nil {
				errs[n] = call(n)
				calls[n]++
			}
		})
	}
	running.Wait()
	m.elapsed += time.Since(began)
	for _, n := range calls {
		m.calls += n
	}
	return errors.Join(errs...)
}
