package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/limiter"
)

// admissions measures what one decision of the limiter costs in Redis, beside a bare PING: the same server and client, in
// short interleaved slices. Without a redis-server it says so.
func admissions(ctx context.Context, folder string, slices int, length time.Duration) error {
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
	limits, err := limiter.NewRedis(limiter.RedisConfig{Client: client, Replicas: 1})
	if err != nil {
		return err
	}
	defer limits.Close()
	for limits.State() != "linked" { // at once
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Printf("\nOne admission in Redis beside a PING, %d interleaved slices of %s each, microseconds\n", slices, length)
	fmt.Printf("  %-22s %12s %12s %8s\n", "in flight", "PING", "admission", "ratio")
	for _, flying := range []int{1, 16, 64} {
		ping, admit, err := admission(ctx, client, limits, flying, slices, length)
		if err != nil {
			return err
		}
		fmt.Printf("  %-22d %12.1f %12.1f %8.2f\n", flying, ping, admit, admit/ping)
	}
	return accounts(ctx, client, limits)
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

// busy are the windows of an account whose ring is full: as many stamps as FreeAgent's hour, but room for more at once.
var busy = []limiter.Window{{Requests: 120, Per: time.Millisecond}, {Requests: 3600, Per: 10 * time.Millisecond}}

func account(i int) limiter.Budget {
	return limiter.Budget{Key: "api/bench" + strconv.Itoa(i), Windows: busy}
}

// admission is how long a PING and a decision take, with so many in flight.
func admission(ctx context.Context, client *redis.Client, limits *limiter.Redis, flying, slices int, length time.Duration) (ping, admit float64, err error) {
	var pings, admits meter
	for i := -1; i < slices; i++ { // the first round warms up
		one := pings.slice(flying, length, func(int) error { return client.Ping(ctx).Err() })
		other := admits.slice(flying, length, func(n int) error {
			permit, err := limits.Take(ctx, limiter.Request{Budgets: []limiter.Budget{account(n)}, MaxWait: time.Second})
			if err == nil {
				permit.Sent()
			}
			return err
		})
		if err := errors.Join(one, other); err != nil {
			return 0, 0, fmt.Errorf("measure Redis: %w", err)
		}
		if i < 0 {
			pings, admits = meter{}, meter{}
		}
	}
	return pings.micros(), admits.micros(), nil
}

// meter counts calls and the time that passed meanwhile.
type meter struct {
	calls   int
	elapsed time.Duration
}

// micros is the time for each call, in microseconds.
func (m meter) micros() float64 { return float64(m.elapsed.Microseconds()) / float64(m.calls) }

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

// manyAccounts is how many accounts one Redis is to hold.
const manyAccounts = 100_000

// accounts measures what accounts cost: a busy one, and many.
func accounts(ctx context.Context, client *redis.Client, limits *limiter.Redis) error {
	used, err := client.MemoryUsage(ctx, "fap:v1:{bench0}:api").Result()
	if err != nil {
		return fmt.Errorf("measure Redis: %w", err)
	}
	before, resting := usedBy(ctx, client), heap()
	began := time.Now()
	err = take(ctx, limits, manyAccounts)
	if err != nil {
		return err
	}
	took := time.Since(began)
	began = time.Now()
	if err := take(ctx, limits, manyAccounts); err != nil {
		return err
	}
	fmt.Printf("\nAccounts in Redis\n")
	fmt.Printf("  %-42s %10d\n", "bytes of a busy account", used)
	fmt.Printf("  %-42s %10d\n", fmt.Sprintf("bytes of each of %d, in Redis", manyAccounts), (usedBy(ctx, client)-before)/manyAccounts)
	fmt.Printf("  %-42s %10d\n", "bytes of each in the proxy", (heap()-resting)/manyAccounts)
	fmt.Printf("  %-42s %10.1f\n", "their first admission, µs, 16 in flight", float64(took.Nanoseconds())/1e3/manyAccounts)
	fmt.Printf("  %-42s %10.1f\n", "the next one, µs", float64(time.Since(began).Nanoseconds())/1e3/manyAccounts)
	return nil
}

// take takes one permit of each account.
func take(ctx context.Context, limits *limiter.Redis, accounts int) error {
	windows := []limiter.Window{{Requests: 120, Per: time.Minute}, {Requests: 3600, Per: time.Hour}}
	const flying = 16
	var running sync.WaitGroup
	errs := make([]error, flying)
	for n := range flying {
		running.Go(func() {
			for i := n; i < accounts && errs[n] == nil; i += flying {
				permit, err := limits.Take(ctx, limiter.Request{Budgets: []limiter.Budget{{Key: "api/many" + strconv.Itoa(i), Windows: windows}}})
				if errs[n] = err; err == nil {
					permit.Sent()
				}
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

func usedBy(ctx context.Context, client *redis.Client) int64 {
	var used int64
	info, _ := client.InfoMap(ctx, "memory").Result()
	used, _ = strconv.ParseInt(info["Memory"]["used_memory"], 10, 64)
	return used
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
