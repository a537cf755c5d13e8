package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// What is created at any time, and what by default one at a time.
const (
	anyTime    = "/v2/bills"
	oneAtATime = "/v2/invoices"
)

// kind is a way to create something, and what it took in each slice, in microseconds.
type kind struct {
	name  string
	path  string
	keyed bool
	took  []float64
	cpu   []float64
	asked int
}

// writeCosts prints what an Idempotency-Key and one_at_a_time cost beside the same POST without them, with each kind of
// store. One program sends, one request after another, in short interleaved slices; the figures are medians over these.
func writeCosts(ctx context.Context, s setup, slices int, length time.Duration) error {
	upstream, err := s.startSelf(ctx, "upstream", certVariable+"=")
	if err != nil {
		return err
	}
	defer upstream.stop()
	fmt.Printf("\nOne POST, median of %d interleaved slices of %s each, microseconds\n", slices, length/4)
	fmt.Printf("  %-30s %8s %8s %10s %8s\n", "", "time", "ratio", "our CPU", "ratio")
	if err := s.writesWith(ctx, upstream, "", slices, length/4); err != nil {
		return err
	}
	server, err := startRedis(ctx, s.folder)
	if errors.Is(err, exec.ErrNotFound) {
		return nil // redisShare says so
	}
	if err != nil {
		return err
	}
	defer server.stop()
	return s.writesWith(ctx, upstream, server.address, slices, length/4)
}

// writesWith measures with the Redis at an address; "": with a folder.
func (s setup) writesWith(ctx context.Context, upstream *process, redis string, slices int, length time.Duration) error {
	ours, err := s.startWith(ctx, "http://"+upstream.address, "", redis)
	if err != nil {
		return err
	}
	defer ours.stop()
	store := "folder"
	if redis != "" {
		store = "Redis"
	}
	kinds := []*kind{
		{name: "plain", path: anyTime}, {name: "with a key", path: anyTime, keyed: true},
		{name: "one at a time", path: oneAtATime}, {name: "one at a time, with a key", path: oneAtATime, keyed: true},
	}
	for round := -1; round < slices; round++ { // the first one warms up
		for j := range kinds {
			if err := kinds[(round+j+1)%len(kinds)].slice(ctx, ours, length, round >= 0); err != nil {
				return err
			}
		}
	}
	plain := kinds[0]
	for _, k := range kinds {
		took, cpu := median(k.took), median(k.cpu)
		fmt.Printf("  %-30s %8.0f %8.2f %10.0f %8.2f\n", store+", "+k.name, took, took/median(plain.took), cpu, cpu/median(plain.cpu))
	}
	return nil
}

// slice sends for so long.
func (k *kind) slice(ctx context.Context, ours *process, length time.Duration, counts bool) error {
	c, err := dial(ours.address)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.conn.Close()
	before, err := ours.cpu()
	if err != nil {
		return err
	}
	began, n := time.Now(), 0
	for ; time.Since(began) < length && ctx.Err() == nil; n++ {
		if err := c.create(k.request()); err != nil {
			return fmt.Errorf("create %s: %w", k.name, err)
		}
	}
	took := time.Since(began)
	after, err := ours.cpu()
	if err == nil && counts {
		k.took = append(k.took, float64(took.Nanoseconds())/1e3/float64(n))
		k.cpu = append(k.cpu, float64((after-before).Nanoseconds())/1e3/float64(n))
	}
	return err
}

// request is the next one: each key is new.
func (k *kind) request() string {
	const body = `{"invoice":{"contact":"https://api.freeagent.com/v2/contacts/1","dated_on":"2026-01-01","payment_terms_in_days":30}}`
	key := ""
	if k.keyed {
		k.asked++
		key = fmt.Sprintf("Idempotency-Key: bench-%s-%d\r\n", k.path, k.asked)
	}
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", k.path, key, len(body), body)
}

func (c *client) create(request string) error {
	if _, err := io.Copy(c.conn, strings.NewReader(request)); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, text)
	}
	return err
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
