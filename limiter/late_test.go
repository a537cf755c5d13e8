package limiter_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"

	"github.com/redis/go-redis/v9"
)

// late measures by how much the machine is late: how long a question to Redis takes that decides nothing.
type late struct {
	slowest atomic.Int64
	asked   atomic.Int64 // when the last question was, in Unix nanoseconds; 0: it is answered
}

// newLate measures until the test ends.
func newLate(t *testing.T, server *redistest.Server) *late {
	options := server.Options()
	options.MaxRetries, options.ReadTimeout, options.PoolTimeout = -1, time.Minute, time.Minute
	client := redis.NewClient(options)
	l := new(late)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			asked := time.Now()
			l.asked.Store(asked.UnixNano())
			time.Sleep(5 * time.Millisecond)
			_ = client.Ping(ctx).Err() // it takes as long as it takes
			l.slowest.Store(max(l.slowest.Load(), int64(time.Since(asked))))
			l.asked.Store(0)
		}
	}()
	t.Cleanup(func() {
		stop()
		_ = client.Close()
		<-ended
	})
	return l
}

// most is the most that it was late so far.
func (l *late) most() time.Duration {
	slowest := time.Duration(l.slowest.Load())
	if asked := l.asked.Load(); asked != 0 {
		slowest = max(slowest, time.Since(time.Unix(0, asked)))
	}
	return slowest
}
