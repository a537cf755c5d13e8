// Command bench measures what freeagent-proxy costs beside a bare reverse proxy that only
// sets a header: same machine, same upstream, same load, in many short interleaved
// slices of one run, since a machine's speed drifts. It reports ratios; absolute figures
// say more of the machine than of the program.
//
// CPU is the proxy process's own, from the kernel's per-thread accounts (Linux). The
// upstream and the bare proxy are this program again, in processes of their own.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

// roleVariable makes this program play another part when it starts itself.
const roleVariable = "FREEAGENT_PROXY_BENCH_ROLE"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	switch os.Getenv(roleVariable) {
	case "upstream":
		return serveUpstream(ctx, os.Getenv(certVariable))
	case "bare":
		return serveBare(ctx, os.Getenv(upstreamVariable))
	}
	slices := flag.Int("slices", 40, "measured slices for each proxy and upstream")
	length := flag.Duration("slice", 250*time.Millisecond, "length of one slice")
	connections := flag.Int("connections", 64, "client connections")
	flag.Parse()

	folder, err := os.MkdirTemp("", "freeagent-proxy-bench-*")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(folder)
	binary, err := build(ctx, folder)
	if err != nil {
		return err
	}
	for _, secure := range []bool{false, true} {
		if err := compare(ctx, setup{folder, binary, secure}, *slices, *length, *connections); err != nil {
			return err
		}
	}
	if err := rewriting(ctx, setup{folder, binary, false}, *slices); err != nil {
		return err
	}
	if err := streams(ctx, setup{folder, binary, false}); err != nil {
		return err
	}
	if err := writeCosts(ctx, setup{folder, binary, false}, *slices, *length); err != nil {
		return err
	}
	return redisShare(ctx, folder, *slices, *length)
}

// compare runs both proxies before one upstream and prints how they differ.
func compare(ctx context.Context, s setup, slices int, length time.Duration, connections int) error {
	stage, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer stage.stop()
	contenders := []*contender{{name: "bare", process: stage.bare}, {name: "ours", process: stage.ours}}
	for i := -1; i < slices; i++ { // the first round warms up
		for j := range contenders {
			c := contenders[(i+j+1)%len(contenders)]
			sample, err := c.measure(ctx, connections, length)
			if err != nil {
				return err
			}
			if i >= 0 {
				c.samples = append(c.samples, sample)
			}
		}
	}
	s.report(contenders[0].sum(), contenders[1].sum(), connections, slices, length)
	return nil
}

func (s setup) report(bare, ours sample, connections, slices int, length time.Duration) {
	upstream := "plain"
	if s.secure {
		upstream = "TLS"
	}
	fmt.Printf("\nGET of 2 KB, %s upstream, %d connections, %d interleaved slices of %s each\n", upstream, connections, slices, length)
	fmt.Printf("  %-22s %12s %12s %8s\n", "", "bare", "ours", "ratio")
	row := func(name, format string, bare, ours float64) {
		fmt.Printf("  %-22s %12s %12s %8.2f\n", name, fmt.Sprintf(format, bare), fmt.Sprintf(format, ours), ours/bare)
	}
	row("requests per second", "%.0f", bare.rate(), ours.rate())
	row("CPU per request, µs", "%.1f", bare.cost(), ours.cost())
	row("p50, ms", "%.2f", bare.quantile(0.50), ours.quantile(0.50))
	row("p99, ms", "%.2f", bare.quantile(0.99), ours.quantile(0.99))
}
