package proxy_test

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

// peakHeap runs f and returns by how many bytes the heap had grown at most.
func peakHeap(f func()) uint64 {
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	done, peak := make(chan struct{}), make(chan uint64)
	go func() {
		var most uint64
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc)
			case <-done:
				peak <- most
				return
			}
		}
	}()
	f()
	close(done)
	return max(<-peak, before.HeapAlloc) - before.HeapAlloc
}

// Neither 200 MB one way nor 60 MB the other cost more memory than a few buffers. The heap is also the
// simulator's and the client's.
func TestStreamsInBoundedMemory(t *testing.T) {
	r, sim := withSimulator(t, simulator.Config{})
	const down, up = 200 * mib, 60 * mib
	grown := peakHeap(func() {
		resp := r.dial().send(r.request("GET", fmt.Sprint("/v2/_sim_stream?bytes=", down), "")).begin("GET")
		n, err := io.Copy(io.Discard, resp.Body)
		equal(t, "downloaded", n, down)
		equal(t, "error", err, nil)
	})
	if grown > 24*mib {
		t.Errorf("the heap grew by %d MiB during the download", grown/mib)
	}
	grown = peakHeap(func() {
		c := r.dial().send(text("POST /v2/whatever HTTP/1.1", "Host: localhost", fmt.Sprintf("Content-Length: %d", up)))
		piece := strings.Repeat("x", 64<<10)
		for range up / len(piece) {
			c.send(piece)
		}
		if got := c.answer("POST"); got.status >= 500 {
			t.Errorf("%d %s", got.status, got.body)
		}
	})
	if grown > 24*mib {
		t.Errorf("the heap grew by %d MiB during the upload", grown/mib)
	}
	equal(t, "uploaded", sim.Requests(0)[1].BodyBytes, int64(up))
}
