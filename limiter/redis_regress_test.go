package limiter_test

import (
	"context"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/limiter"
)

// Permits that are open when Redis dies are counted one by one, however many there are.
func TestOpenPermitsOutliveRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := newLinked(t, server.Options())
	b := budget("api/acme", 50, 5*time.Second)
	var open []*limiter.Permit
	for range 50 {
		p, err := s.Take(context.Background(), request(0, b))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, p)
	}
	server.Kill()
	until(t, "counts alone", func() bool { return s.State() == "alone" })
	time.Sleep(300 * time.Millisecond) // they are counted anew meanwhile
	refused(t, s.Local, request(0, b))
	for _, p := range open {
		p.Sent()
	}
	refused(t, s.Local, request(0, b))
	server.RestartEmpty()
	until(t, "counts in Redis again", func() bool { return s.State() == "linked" })
	refused(t, s.Local, request(0, b))
}

// A replica that has just started knows what others used, should Redis die before it uses anything itself.
func TestNewReplicaKnowsThePast(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	old := newLinked(t, server.Options())
	b := budget("api/acme", 30, time.Minute)
	for range 30 {
		send(t, old.Local, request(0, b))
	}
	fresh := newLinked(t, server.Options())
	server.Kill()
	until(t, "both count alone", func() bool { return old.State() == "alone" && fresh.State() == "alone" })
	refused(t, old.Local, request(0, b))
	refused(t, fresh.Local, request(0, b))
	server.RestartEmpty()
	until(t, "both count in Redis again", func() bool { return old.State() == "linked" && fresh.State() == "linked" })
	refused(t, old.Local, request(0, b))
	refused(t, fresh.Local, request(0, b))
}

// A permit that was taken while Redis was away, and sent when it was back, counts there.
func TestTakenAwaySentBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one := newLinked(t, server.Options())
	b := budget("api/acme", 10, 20*time.Second)
	send(t, one.Local, request(0, b))
	server.Kill()
	until(t, "counts alone", func() bool { return one.State() == "alone" })
	var open []*limiter.Permit
	for range 9 {
		open = append(open, take(t, one.Local, request(0, b)))
	}
	server.RestartEmpty()
	until(t, "counts in Redis again", func() bool { return one.State() == "linked" })
	for _, p := range open {
		p.Sent()
	}
	other := newLinked(t, server.Options())
	refused(t, other.Local, request(0, b))
	refused(t, one.Local, request(0, b))
}

// What one releases the next one may have, although Redis had just refused him.
func TestReleasedToWhoWasRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one, other := newLinked(t, server.Options()), newLinked(t, server.Options())
	b := budget("api/acme", 1, time.Minute)
	p := take(t, one.Local, request(0, b))
	time.AfterFunc(300*time.Millisecond, p.Release)
	began := time.Now()
	q, err := other.Take(context.Background(), request(70*time.Second, b))
	if err != nil {
		t.Fatal(err)
	}
	q.Sent()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("waited %v", took)
	}
}
