package redistest_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/redistest"
)

func set(t *testing.T, c redis.UniversalClient, value string) {
	t.Helper()
	if err := c.Set(t.Context(), "key", value, 0).Err(); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, c redis.UniversalClient) string {
	t.Helper()
	got, err := c.Get(t.Context(), "key").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	return got
}

func TestRestart(t *testing.T) {
	s := redistest.Start(t, redistest.Persistent())
	c := s.Client(t)
	set(t, c, "kept")
	s.Restart()
	if got := get(t, c); got != "kept" {
		t.Errorf("after Restart: %q", got)
	}
	s.RestartEmpty()
	if got := get(t, c); got != "" {
		t.Errorf("after RestartEmpty: %q", got)
	}
}

func TestStop(t *testing.T) {
	s := redistest.Start(t)
	options := s.Options()
	options.ReadTimeout, options.MaxRetries = 50*time.Millisecond, -1
	c := redis.NewClient(options)
	defer c.Close()
	set(t, s.Client(t), "here")
	s.Stop()
	var timeout net.Error
	if err := c.Get(t.Context(), "key").Err(); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a halted server answered: %v", err)
	}
	s.Cont()
	if got := get(t, s.Client(t)); got != "here" {
		t.Errorf("after Cont: %q", got)
	}
}

func TestTLSAndUser(t *testing.T) {
	s := redistest.Start(t, redistest.TLS(), redistest.User("proxy", "secret", "~fap:*", "+get", "+ping"))
	set(t, s.Client(t), "x")
	options := s.Options()
	options.Username, options.Password = "proxy", "secret"
	c := redis.NewClient(options)
	defer c.Close()
	if err := c.Get(t.Context(), "key").Err(); !redis.HasErrorPrefix(err, "NOPERM") {
		t.Errorf("the user reads another's key: %v", err)
	}
	options = s.Options()
	options.TLSConfig.Certificates = nil
	stranger := redis.NewClient(options)
	defer stranger.Close()
	if err := stranger.Ping(t.Context()).Err(); err == nil {
		t.Error("a client without a certificate got in")
	}
}

func TestCluster(t *testing.T) {
	set(t, redistest.Cluster(t).Client(t), "x")
}

func TestFailover(t *testing.T) {
	w := redistest.Sentinel(t)
	c := w.Client(t)
	set(t, c, "x")
	if n, err := c.Wait(t.Context(), 1, 30*time.Second).Result(); err != nil || n != 1 {
		t.Fatalf("%d replicas have it, %v", n, err)
	}
	w.Failover()
	for deadline := time.Now().Add(time.Minute); c.Set(t.Context(), "other", "y", 0).Err() != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the client does not find the new master")
		}
	}
	if got := get(t, c); got != "x" {
		t.Errorf("after the failover: %q", got)
	}
}
