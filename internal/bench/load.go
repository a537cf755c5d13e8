package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// sample is what one slice, or many, measured.
type sample struct {
	requests  int
	elapsed   time.Duration
	cpu       time.Duration
	latencies []time.Duration
}

func (s sample) rate() float64 { return float64(s.requests) / s.elapsed.Seconds() }

// cost is CPU microseconds per request.
func (s sample) cost() float64 { return float64(s.cpu.Nanoseconds()) / 1e3 / float64(s.requests) }

// quantile is a latency in milliseconds. sum has sorted them.
func (s sample) quantile(q float64) float64 {
	return float64(s.latencies[int(q*float64(len(s.latencies)-1))].Nanoseconds()) / 1e6
}

// contender is one of the proxies that are compared.
type contender struct {
	name    string
	process *process
	samples []sample
}

func (c *contender) sum() sample {
	var total sample
	for _, s := range c.samples {
		total.requests += s.requests
		total.elapsed += s.elapsed
		total.cpu += s.cpu
		total.latencies = append(total.latencies, s.latencies...)
	}
	slices.Sort(total.latencies)
	return total
}

// measure loads the proxy for a slice's length. Connections are made before the clock starts.
func (c *contender) measure(ctx context.Context, connections int, length time.Duration) (sample, error) {
	clients := make([]*client, connections)
	for i := range clients {
		var err error
		if clients[i], err = dial(c.process.address); err != nil {
			return sample{}, fmt.Errorf("connect to %s: %w", c.name, err)
		}
		defer clients[i].conn.Close()
	}
	before, err := c.process.cpu()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	var working sync.WaitGroup
	for _, client := range clients {
		working.Go(func() { client.work(ctx, began.Add(length)) })
	}
	working.Wait()
	result := sample{elapsed: time.Since(began)}
	after, err := c.process.cpu()
	if err != nil {
		return sample{}, err
	}
	result.cpu = after - before
	for _, client := range clients {
		if client.err != nil {
			return sample{}, fmt.Errorf("load %s: %w", c.name, client.err)
		}
		result.latencies = append(result.latencies, client.latencies...)
	}
	result.requests = len(result.latencies)
	return result, nil
}

// client is one kept-alive connection that asks again and again.
type client struct {
	conn      net.Conn
	reader    *bufio.Reader
	latencies []time.Duration
	err       error
}

func dial(address string) (*client, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, reader: bufio.NewReader(conn)}, nil
}

var request = []byte("GET /v2/company HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: application/json\r\n\r\n")

func (c *client) work(ctx context.Context, until time.Time) {
	for c.err == nil && ctx.Err() == nil {
		began := time.Now()
		if began.After(until) {
			return
		}
		c.err = c.ask()
		c.latencies = append(c.latencies, time.Since(began))
	}
}

func (c *client) ask() error {
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
