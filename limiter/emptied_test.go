package limiter_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/limiter"
)

// Redis loses all that it had while one replica is cut off: another, which had seen it there, leaves it its share all the same, and
// nothing to one that had said goodbye.
func TestEmptyWhileOneIsCutOff(t *testing.T) {
	t.Parallel()
	for name, empty := range map[string]func(*testing.T, *redistest.Server){
		"started empty": func(_ *testing.T, r *redistest.Server) { r.RestartEmpty() },
		"emptied":       func(t *testing.T, r *redistest.Server) { do(t, r.Client(t), []string{"FLUSHALL"}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			wire := redistest.NewWire(t, server.Addr())
			s := &spent{t: t, budget: budget("api/acme", 60, 2500*time.Millisecond)}
			s.joined(wire.Addr, server.Addr, server.Addr)
			a, b, c := s.replicas[0], s.replicas[1], s.replicas[2]
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			until(t, "know of two", func() bool { return a.Replicas() == 2 && b.Replicas() == 2 })
			for _, r := range s.replicas[:2] {
				send(t, r.Local, request(10*time.Second, s.budget)) // so that they know the windows
			}
			time.Sleep(500 * time.Millisecond) // both have told their shares since
			wire.Cut()
			empty(t, server)
			until(t, "Redis is lost", func() bool { return b.Losses() > 0 })
			are(t, "alone", a)
			are(t, "linked", b)
			for began := time.Now(); time.Since(began) < time.Second; time.Sleep(10 * time.Millisecond) { // at first it takes nothing
				s.all(a)
				s.all(b)
			}
			if alive, silent := b.Fleet(); alive != 1 || silent != 1 {
				t.Errorf("%d are alive, and %d silent", alive, silent)
			}
			is(t, "alone", a)
			is(t, "linked", b)
			s.check()
			wire.Mend()
		})
	}
}

// What a replica that was here saw is put back if it is lost, and nothing that is there, has left or died, or is too old.
func TestReplicasArePutBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	admin := server.Client(t)
	const key = "fap:v1:{replicas}"
	shown := admin.Subscribe(t.Context(), key+":HEARD")
	defer shown.Close()
	until(t, "one listens", func() bool { return admin.PubSubNumSub(t.Context(), key+":HEARD").Val()[key+":HEARD"] == 1 })
	_, info, _ := strings.Cut(admin.Info(t.Context(), "server").Val(), "run_id:")
	run, before := info[:40], strings.Repeat("0", 40)
	now := time.Now()
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixMicro() }
	said := func(d time.Duration, rest string) string { return fmt.Sprintf("%d 2 %s", ago(d), rest) }
	minute, long := said(time.Minute, before+" 1"), said(6*time.Minute, run+" 1 LOST")
	for name, c := range map[string]struct {
		own, there string // what Redis has of us, and of the other
		other      string
		seen, want string // what we saw of it, and what Redis has then
		latest     int64
	}{
		"started empty":            {seen: minute, want: minute},
		"older data":               {own: said(2*time.Minute, before+" 0"), seen: minute, want: minute},
		"older data of it":         {there: said(2*time.Minute, before+" 1"), seen: minute, want: minute},
		"newer data of it":         {other: "HEARD", there: said(time.Second, run+" 1"), seen: minute, want: said(time.Second, run+" 1")},
		"nothing is lost":          {own: said(time.Minute, before+" 0"), seen: minute},
		"too long ago":             {seen: said(6*time.Minute, before+" 1")},
		"emptied, and it has left": {seen: said(time.Minute, run+" 1")},
		"emptied":                  {other: "HEARD", seen: long, want: long},
		"the clock was set":        {seen: minute, latest: ago(time.Hour)},
	} {
		if c.other == "" {
			c.other = "OTHER"
		}
		if c.latest == 0 {
			c.latest = 1 << 52
		}
		admin.Del(t.Context(), key)
		for replica, said := range map[string]string{"SELF": c.own, c.other: c.there} {
			if said != "" {
				admin.HSet(t.Context(), key, replica, said)
			}
		}
		answer, err := limiter.Alive.Run(t.Context(), admin, []string{key}, "channel", "SELF", "", 0, c.latest, 0, 0, 0, 0, ago(time.Minute),
			c.other+" "+c.seen).StringSlice()
		if err != nil {
			t.Fatal(err)
		}
		if got := admin.HGet(t.Context(), key, c.other).Val(); got != c.want {
			t.Errorf("%s: it stands there as %q, want %q", name, got, c.want)
		}
		if c.want != "" && answer[0] != c.other+" "+c.want {
			t.Errorf("%s: the answer has %q", name, answer[0])
		}
	}
}
