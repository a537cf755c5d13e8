package limiter_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/limiter"
)

// sum is what a standing says of a budget's only window.
func sum(s limiter.Statement) string {
	w := s.Windows[0]
	return fmt.Sprint(w.Remaining, " of ", w.Allowed, " left, used by ", w.UsedBy, ", paused ", !s.PausedUntil.IsZero(), ", ", s.Waiting, " wait")
}

// Every process says the same of a budget, whoever used it, and that it is paused and smaller; who waits is each one's own.
func (c contract) testStatement() {
	b := c.budget("api/stands", 20, time.Minute)
	if got, want := sum(c.one.Statement(b)), "20 of 20 left, used by map[], paused false, 0 wait"; got != want {
		c.Errorf("nothing was used: %s, want %s", got, want)
	}
	for i, l := range []anyLimiter{c.one, c.other, c.other, c.one, c.other} {
		p, err := l.Take(context.Background(), named([]string{"a", "b"}[i%2], 1, b))
		if err != nil {
			c.Fatal(err)
		}
		p.Sent()
	}
	both := func(what, want string) {
		c.Helper()
		for name, l := range map[string]anyLimiter{"one": c.one, "the other": c.other} {
			c.until(name+": "+what, func() bool { return sum(l.Statement(b)) == want })
		}
	}
	both("five were used", "15 of 20 left, used by map[a:3 b:2], paused false, 0 wait")
	c.other.Exceeded(b, 20*time.Second) // another program must have used the rest
	both("it is paused", "0 of 5 left, used by map[a:3 b:2], paused true, 0 wait")
	c.until("they say the same", func() bool { // the moment of saying it is a part of that
		one, other := c.one.Statement(b).PausedUntil, c.other.Statement(b).PausedUntil
		return one.Sub(other).Abs() <= 100*time.Millisecond && time.Until(one) <= 20*time.Second && time.Until(one) > time.Second
	})
}

// Every process knows which budgets are in use.
func (c contract) testInUse() {
	in := fmt.Sprint("api/practice/subdomain/", c.attempt, "/")
	for name, permits := range map[string]int{"quiet": 1, "busy": 4, "idle": 0, "middling": 2} {
		b := c.budget(in+name, 20, time.Minute)
		for range permits {
			p, err := c.one.Take(context.Background(), named("a", 1, b))
			if err != nil {
				c.Fatal(err)
			}
			p.Sent()
		}
	}
	ours := func(key string) bool { return strings.HasPrefix(key, in) }
	for most, want := range map[int]string{9: "busy middling quiet", 2: "busy middling", 0: ""} {
		for _, l := range []anyLimiter{c.one, c.other} {
			c.until(fmt.Sprint("the ", most, " busiest"), func() bool {
				keys := l.InUse(most, ours)
				for i, key := range keys {
					keys[i] = strings.Split(key, "/")[4]
				}
				return strings.Join(keys, " ") == want
			})
		}
	}
}

// InUse looks at many budgets in steps, and at each.
func TestInUseOfMany(t *testing.T) {
	t.Parallel()
	l := newLocal(t, limiter.Config{})
	var want []string
	for i := range 5000 {
		key := fmt.Sprintf("api/%04d", i)
		p, err := l.Take(t.Context(), named("a", 1, budget(key, 20, time.Minute)))
		if err != nil {
			t.Fatal(err)
		}
		if p.Sent(); i%2 == 0 {
			want = append(want, key)
		}
	}
	even := func(key string) bool { return strings.ContainsAny(key[len(key)-1:], "02468") }
	if got := l.InUse(5000, even); !slices.Equal(got, want) {
		t.Errorf("%d budgets, want %d", len(got), len(want))
	}
}

// Without Redis a replica has its share, but knows what all had; and one that never saw Redis has nothing to give.
func TestStatementWithoutRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := budget("api/acme", 20, time.Minute)
	open := func() *limiter.Redis { return newLinked(t, server.Options()) }
	one, other := open(), open()
	until(t, "both know of both", func() bool {
		a, _ := one.Fleet()
		b, _ := other.Fleet()
		return a == 2 && b == 2
	})
	for _, l := range []*limiter.Redis{one, other, one, other} {
		p, err := l.Take(t.Context(), named("a", 1, b))
		if err != nil {
			t.Fatal(err)
		}
		p.Sent()
	}
	until(t, "one knows of all", func() bool { return one.Statement(b).Windows[0].UsedBy["a"] == 4 })
	server.Kill()
	until(t, "counts alone", func() bool { return one.State() == "alone" })
	until(t, "its share is told", func() bool {
		return sum(one.Statement(b)) == "8 of 10 left, used by map[a:4], paused false, 0 wait"
	})
	options := server.Options()
	options.ContextTimeoutEnabled, options.MaxRetries = true, -1
	client := redis.NewClient(options)
	defer client.Close()
	late, err := limiter.NewRedis(limiter.RedisConfig{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if alive, silent := late.Fleet(); alive != 0 || silent != 0 {
		t.Errorf("%d replicas alive and %d silent without Redis, want none", alive, silent)
	}
	if got, want := sum(late.Statement(b)), "0 of 0 left, used by map[], paused false, 0 wait"; got != want {
		t.Errorf("never saw Redis: %s, want %s", got, want)
	}
}
