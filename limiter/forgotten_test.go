package limiter_test

import (
	"bytes"
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/limiter"
)

// The clock is set so far forward that all that was counted ends, while one replica hears late what the other counts: that is put back
// before either counts on.
func TestClockIsSetWhileOneHearsLate(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.OwnClock())
	slow := server.Options()
	slow.Dialer = lateNews
	quick, late := newLinked(t, server.Options()), newLinked(t, slow)
	until(t, "know of one another", func() bool { return quick.Replicas() == 2 && late.Replicas() == 2 })
	b := budget("api/acme", 30, time.Minute)
	taken := 0
	takes := func(s *limiter.Redis) bool {
		p, err := s.Take(t.Context(), request(0, b))
		if err == nil {
			p.Sent()
			taken++
		}
		return err == nil
	}
	until(t, "20 are taken", func() bool { takes(quick); return taken == 20 }) // a busy machine may lose Redis, and then half of it goes
	server.SetClock(72 * time.Hour)
	for began := time.Now(); time.Since(began) < 2*time.Second || quick.State() != "linked" || late.State() != "linked"; time.Sleep(5 * time.Millisecond) {
		takes(late)
		takes(quick)
	}
	// All that is left goes, too. Of what Redis counted when it was too busy to tell in time nobody knows.
	until(t, "the budget is used up", func() bool {
		return !takes(quick) && quick.State() == "linked" && quick.Usage(b)[0].Remaining == 0
	})
	if unknown := quick.Losses() + late.Losses() - 2; taken > 30 || taken < 30-max(0, unknown) {
		t.Errorf("%d of 30 went, and Redis was lost %d times but by its clock", taken, unknown)
	}
}

// lateNews dials a connection on which, once something was subscribed to, all comes 0.4 s late.
func lateNews(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	return &lateConn{Conn: conn}, err
}

type lateConn struct {
	net.Conn
	late atomic.Bool
}

func (c *lateConn) Write(data []byte) (int, error) {
	if bytes.Contains(data, []byte("subscribe")) {
		c.late.Store(true)
	}
	return c.Conn.Write(data)
}

func (c *lateConn) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	if c.late.Load() && err == nil {
		time.Sleep(400 * time.Millisecond)
	}
	return n, err
}

// A ring that is gone is put back, not begun anew by a permit that is open: who comes later finds in it what was counted.
func TestARingIsGone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := newLinked(t, server.Options())
	b := budget("api/acme", 2, time.Minute)
	send(t, s.Local, request(10*time.Second, b))
	open := take(t, s.Local, request(10*time.Second, b))
	defer open.Release()
	ring, admin := limiter.RedisKey(b.Key), server.Client(t)
	if err := admin.Del(t.Context(), ring).Err(); err != nil {
		t.Fatal(err)
	}
	until(t, "the ring is back", func() bool { return admin.Exists(t.Context(), ring).Val() == 1 })
	refused(t, newLinked(t, server.Options()).Local, request(0, b))
}
