package limiter_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"freeagent-proxy/limiter"
)

// wait lets requests of a client wait, and tells of each who is served.
func (c contract) wait(running *sync.WaitGroup, n int, r limiter.Request, served chan<- string) {
	before := c.one.Waiting(r.Budgets[0].Key)
	for range n {
		running.Go(func() {
			p, err := c.one.Take(context.Background(), r)
			if err != nil {
				c.Error(err)
				return
			}
			served <- r.Client
			p.Sent()
		})
	}
	until(c, "they wait", func() bool { return c.one.Waiting(r.Budgets[0].Key) == before+n })
}

// Who comes after ten of another client waits for one of them at most.
func (c contract) testFair() {
	b := budget("api/fair", 1, 200*time.Millisecond)
	c.take(c.other, b).Sent()
	served := make(chan string, 20)
	var running sync.WaitGroup
	c.wait(&running, 8, named("flood", 1, b), served)
	c.wait(&running, 1, named("polite", 1, b), served)
	running.Wait()
	close(served)
	at := 0
	for client := range served {
		if at++; client == "polite" && at > 3 { // one may have been served before it came
			c.Errorf("the polite one was number %d", at)
		}
	}
}

// One whose share is used up keeps nobody waiting.
func (c contract) testShare() {
	b, share := budget("api/common", 100, time.Minute), budget("share/common/flood", 1, 2*time.Second)
	p, err := c.one.Take(context.Background(), named("flood", 1, b, share))
	if err != nil {
		c.Fatal(err)
	}
	p.Sent()
	served := make(chan string, 20)
	var running sync.WaitGroup
	c.wait(&running, 1, named("flood", 1, b, share), served)
	for range 5 {
		r := named("other", 1, b)
		r.MaxWait = time.Second
		p, err := c.one.Take(context.Background(), r)
		if err != nil {
			c.Fatal(err)
		}
		p.Sent()
	}
	if got := c.one.Waiting(b.Key); got != 1 {
		c.Errorf("%d wait when others were served, want 1", got)
	}
	running.Wait()
}

// Each process knows whose the permits of all are.
func (c contract) testUsedBy() {
	b := budget("api/whose", 10, time.Minute)
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
	until(c, "knows who used it", func() bool { return fmt.Sprint(c.one.UsedBy(b)[0]) == want })
}
