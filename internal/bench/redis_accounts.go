package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"freeagent-proxy/limiter"
	"freeagent-proxy/tokens"
)

// manyAccounts is how many accounts one Redis is to hold.
const manyAccounts = 100_000

// accounts measures what accounts cost the limiter: a busy one, and many.
func (r *rival) accounts(ctx context.Context) error {
	used, err := r.client.MemoryUsage(ctx, "fap:v1:{bench0}:api").Result()
	if err != nil {
		return fmt.Errorf("measure Redis: %w", err)
	}
	for try := range 5 {
		if err := r.linked(ctx); err != nil {
			return err
		}
		key, lost := "api/many"+strconv.Itoa(try)+"-", r.lost.Load()
		before, resting, began := usedBy(ctx, r.client), heap(), time.Now()
		if err := take(ctx, r.limits, key, manyAccounts); err != nil {
			return err
		}
		first := time.Since(began)
		began = time.Now()
		if err := take(ctx, r.limits, key, manyAccounts); err != nil {
			return err
		}
		next := time.Since(began)
		if r.lost.Load() != lost { // what it did then it did without Redis
			continue
		}
		fmt.Printf("\nWhat is counted of accounts in Redis\n")
		fmt.Printf("  %-42s %10d\n", "bytes of a busy account", used)
		fmt.Printf("  %-42s %10d\n", fmt.Sprintf("bytes of each of %d, in Redis", manyAccounts), (usedBy(ctx, r.client)-before)/manyAccounts)
		fmt.Printf("  %-42s %10d\n", "bytes of each in the proxy", (heap()-resting)/manyAccounts)
		fmt.Printf("  %-42s %10.1f\n", "their first admission, µs, 16 in flight", float64(first.Nanoseconds())/1e3/manyAccounts)
		fmt.Printf("  %-42s %10.1f\n", "the next one, µs", float64(next.Nanoseconds())/1e3/manyAccounts)
		return nil
	}
	return errors.New("measure Redis: it does not answer within the limiter's patience on this machine")
}

// take takes one permit of each account.
func take(ctx context.Context, limits *limiter.Redis, key string, accounts int) error {
	windows := []limiter.Window{{Requests: 120, Per: time.Minute}, {Requests: 3600, Per: time.Hour}}
	const flying = 16
	var running sync.WaitGroup
	errs := make([]error, flying)
	for n := range flying {
		running.Go(func() {
			for i := n; i < accounts && errs[n] == nil; i += flying {
				permit, err := limits.Take(ctx, limiter.Request{Budgets: []limiter.Budget{{Key: key + strconv.Itoa(i), Windows: windows}}})
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

// grants measures what the authorisations of many accounts cost: to begin with them, and to renew them.
func grants(ctx context.Context, client *redis.Client) error {
	key, err := tokens.ParseKey("bench", tokens.NewKey())
	if err != nil {
		return err
	}
	store, err := tokens.NewRedis(tokens.RedisConfig{Client: client, Keys: []tokens.Key{key}})
	if err != nil {
		return err
	}
	defer store.Close()
	before := usedBy(ctx, client)
	names, err := authorise(ctx, store)
	if err != nil {
		return err
	}
	inRedis, resting := (usedBy(ctx, client)-before)/manyAccounts, heap()
	endpoint, stop, err := startEndpoint()
	if err != nil {
		return err
	}
	defer stop()
	app := tokens.App{ClientID: "bench", ClientSecret: "bench"}
	manager := tokens.New(tokens.Config{Store: store, Endpoint: endpoint, App: func(string) (tokens.App, bool) { return app, true }})
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = manager.Close(ctx)
	}()
	began := time.Now()
	if err := manager.Start(ctx, names); err != nil {
		return fmt.Errorf("load the grants: %w", err)
	}
	started, held := time.Since(began), (heap()-resting)/manyAccounts
	rate, err := refreshes(ctx, manager, names[:expired])
	if err != nil {
		return err
	}
	fmt.Printf("\nAuthorisations of %d accounts in Redis\n", manyAccounts)
	fmt.Printf("  %-42s %10.1f\n", "to load them all at the start, s", started.Seconds())
	fmt.Printf("  %-42s %10d\n", "bytes of each, in Redis", inRedis)
	fmt.Printf("  %-42s %10d\n", "bytes of each in the proxy", held)
	fmt.Printf("  %-42s %10.0f\n", "refreshes per second, 64 in flight", rate)
	return nil
}

// expired is how many of the tokens are renewed: some seconds' work.
const expired = 20_000

// authorise stores a grant of each account.
func authorise(ctx context.Context, store tokens.Store) ([]string, error) {
	names := make([]string, manyAccounts)
	now := time.Now()
	const flying = 16
	var running sync.WaitGroup
	errs := make([]error, flying)
	for i := range names {
		names[i] = "grant" + strconv.Itoa(i)
	}
	for n := range flying {
		running.Go(func() {
			for i := n; i < len(names) && errs[n] == nil; i += flying {
				until := now.Add(time.Hour)
				if i < expired {
					until = now.Add(-time.Minute)
				}
				errs[n] = store.Save(ctx, tokens.Grant{
					Account: names[i], AccessToken: "access-" + names[i], RefreshToken: "refresh-" + names[i], Version: now.UnixMilli(),
					ObtainedAt: until.Add(-time.Hour), ExpiresAt: until, RefreshObtained: now.Add(-time.Hour),
				}, 0)
			}
		})
	}
	running.Wait()
	return names, errors.Join(errs...)
}

// refreshes returns how many tokens are renewed in a second.
func refreshes(ctx context.Context, manager *tokens.Manager, names []string) (float64, error) {
	if _, err := manager.Token(ctx, names[0]); err != nil { // a Redis that is new to the store is given time to settle
		return 0, fmt.Errorf("renew a token: %w", err)
	}
	next := make(chan string, len(names))
	for _, name := range names[1:] {
		next <- name
	}
	close(next)
	began := time.Now()
	var renewing errgroup.Group
	for range 64 {
		renewing.Go(func() error {
			for name := range next {
				if _, err := manager.Token(ctx, name); err != nil {
					return fmt.Errorf("renew a token: %w", err)
				}
			}
			return nil
		})
	}
	err := renewing.Wait()
	return float64(len(names)-1) / time.Since(began).Seconds(), err
}

// startEndpoint starts a token endpoint that always has new tokens.
func startEndpoint() (*tokens.Endpoint, func(), error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		old := r.PostFormValue("refresh_token")
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"a-%s","refresh_token":"r-%s","token_type":"bearer","expires_in":3600}`, old, old)
	})}
	go func() { _ = server.Serve(listener) }() // until it is closed
	base := &url.URL{Scheme: "http", Host: listener.Addr().String()}
	return tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: base}), func() { _ = server.Close() }, nil
}
