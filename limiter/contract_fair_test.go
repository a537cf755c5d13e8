package limiter_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"freeagent-proxy/limiter"
)

// wait lets requests of a client wait, and tells of each who is served, before another one can be. It returns how many had been, of all
// that came to the budget, when all these waited.
func (c contract) wait(ctx context.Context, running *sync.WaitGroup, n int, r limiter.Request, came int, served chan<- string) (before int) {
	for range n {
		running.Go(func() {
			p, err := c.one.Take(ctx, r)
			if err != nil {
				if ctx.Err() == nil {
					c.Error(err)
				}
				return
			}
			served <- r.Client
			p.Sent()
		})
	}
	c.until("they wait, or did", func() bool {
		before = len(served)
		return before+c.one.Waiting(r.Budgets[0].Key) == came+n
	})
	return before
}

// Who comes after eight of another client waits for one of them at most.
func (c contract) testFair() {
	b := c.budget("api/fair", 1, 200*time.Millisecond)
	c.take(c.other, b).Sent()
	served := make(chan string, 20)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var running sync.WaitGroup
	c.wait(ctx, &running, 8, named("flood", 1, b), 0, served)
	before := c.wait(ctx, &running, 1, named("polite", 1, b), 8, served)
	running.Wait()
	close(served)
	at := 0
	for client := range served {
		if at++; client == "polite" && at > before+2 {
			c.Errorf("the polite one was number %d, when %d had been served before it came", at, before)
		}
	}
}

// One whose share is used up keeps nobody waiting.
func (c contract) testShare() {
	b, share := c.budget("api/common", 100, time.Minute), c.budget("share/common/flood", 1, time.Minute)
	p, err := c.one.Take(context.Background(), named("flood", 1, b, share))
	if err != nil {
		c.Fatal(err)
	}
	p.Sent()
	served := make(chan string, 20)
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	var running sync.WaitGroup
	c.wait(ctx, &running, 1, named("flood", 1, b, share), 0, served)
	for range 5 {
		r := named("other", 1, b)
		r.MaxWait = window
		p, err := c.one.Take(context.Background(), r)
		if err != nil {
			c.Fatal(err)
		}
		p.Sent()
	}
	if got := c.one.Waiting(b.Key); got != 1 {
		c.Errorf("%d wait when others were served, want 1", got)
	}
	leave()
	running.Wait()
}

// Each process knows whose the permits of all are.
func (c contract) testUsedBy() {
	b := c.budget("api/whose", 10, time.Minute)
	for _, client := range []string{"a", "b", "b"} {
		p, err := c.one.Take(context.Background(), named(client, 1, b))
		if err != nil {
			c.Fatal(err)
		}
		defer p.Sent()
	}
	p, err := c.other.Take(context.Background(), named("b", 1, b))
	if err != nil {
		c.Fatal(err)
	}
	p.Sent()
	const want = "map[a:1 b:3]"
	c.until("knows who used it", func() bool { return fmt.Sprint(c.one.UsedBy(b)[0]) == want })
}
