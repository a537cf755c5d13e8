package limiter_test

import (
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
)

// What Redis refuses to who leaves headroom it does not refuse to who needs none: a refresh goes though API requests have no room.
func TestRefusedForItsHeadroom(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	slow := server.Options()
	slow.Dialer = lateNews
	one, other := newLinked(t, slow), newLinked(t, server.Options())
	b := budget("egress", 4, time.Minute)
	modest := b
	modest.Headroom = 1
	until(t, "know of one another", func() bool { return one.Replicas() == 2 && other.Replicas() == 2 })
	send(t, one.Local, request(0, modest))
	for range 2 {
		send(t, other.Local, request(0, modest))
	}
	refused(t, one.Local, request(0, modest)) // by Redis: it has not heard of them yet
	p, err := one.Take(t.Context(), request(0, b))
	if err != nil {
		t.Fatalf("refused, because of another one's headroom: %v", err)
	}
	p.Sent()
}
