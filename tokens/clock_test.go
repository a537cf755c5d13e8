package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/tokens"
)

// near expects a time to be another, but for the way to Redis.
func near(t *testing.T, what string, got, want time.Time) {
	t.Helper()
	if off := got.Sub(want); off.Abs() > 2*time.Second {
		t.Errorf("%s is %s from what it should be", what, off)
	}
}

// A grant that was stored by a process whose clock is wrong is read with times by the reader's clock; where it is not known
// how wrong that was, nothing is believed that was got after now.
func TestRedisMovesTimes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s, direct := openRedis(t, client(t, server)), server.Client(t)
	got := time.Now().Add(-20 * time.Minute)
	tests := map[string]struct {
		off   time.Duration // the writer's clock
		clock string        // what it says of that
		want  time.Time     // when the token was got; zero: when it was read
	}{
		"ahead":                     {3 * time.Hour, fmt.Sprint("7 ", (3 * time.Hour).Milliseconds()), got},
		"behind":                    {-25 * time.Hour, fmt.Sprint("7 ", (-25 * time.Hour).Milliseconds()), got},
		"a little ahead":            {900 * time.Millisecond, "7 900", got.Add(900 * time.Millisecond)},
		"ahead, another version's":  {3 * time.Hour, fmt.Sprint("6 ", (3 * time.Hour).Milliseconds()), time.Time{}},
		"behind, another version's": {-3 * time.Hour, "6 5", got.Add(-3 * time.Hour)},
		"ahead, unreadable":         {3 * time.Hour, "7 soon", time.Time{}},
		"ahead, not said":           {3 * time.Hour, "", time.Time{}},
		"ahead of what it says":     {3 * time.Hour, "7 60000", time.Time{}},
	}
	for name, c := range tests {
		at := got.Add(c.off)
		save(t, s, tokens.Grant{
			Account: account, AccessToken: "a", RefreshToken: "r", Version: 7,
			ObtainedAt: at, ExpiresAt: at.Add(time.Hour), RefreshObtained: at, RefreshExpiresAt: at.Add(1000 * time.Hour),
		}, 0)
		if err := direct.HSet(t.Context(), "fap:v1:{"+account+"}:grant", "clock", c.clock).Err(); err != nil {
			t.Fatal(err)
		}
		g := stored(t, s)
		if c.want.IsZero() {
			c.want = time.Now()
		}
		near(t, name+": obtained", g.ObtainedAt, c.want)
		near(t, name+": end", g.ExpiresAt, c.want.Add(time.Hour))
		near(t, name+": refresh token obtained", g.RefreshObtained, c.want)
		near(t, name+": refresh token's end", g.RefreshExpiresAt, c.want.Add(1000*time.Hour))
		direct.FlushAll(t.Context())
	}
}

// Redis's clock is what versions are numbered by, so that an authorisation given after Redis had lost its data is not taken
// for older than a backup of before.
func TestRedisNumbersByItsClock(t *testing.T) {
	t.Parallel()
	const ahead = 3 * time.Hour
	server := redistest.Start(t, redistest.OwnClock())
	server.SetClock(ahead)
	s := openRedis(t, client(t, server))
	near(t, "before Redis was heard of, Now", s.Now(), time.Now())
	if _, err := s.Load(t.Context(), account); !errors.Is(err, tokens.ErrForgotten) {
		t.Fatal(err)
	}
	near(t, "Now", s.Now(), time.Now().Add(ahead))
	m := newRigOn(t, newFreeAgent(), s, newFreeAgent().endpoint())
	if err := m.Put(context.Background(), tokens.Grant{Account: account, RefreshToken: "r"}); err != nil {
		t.Fatal(err)
	}
	near(t, "the version", time.UnixMilli(stored(t, s).Version), time.Now().Add(ahead))

	server.SetClock(-ahead)
	watch(t, s, func(string) {})
	eventually(t, "heard of the new time", func() bool { return time.Until(s.Now()) < 0 })
	near(t, "Now, after Redis's clock was set", s.Now(), time.Now().Add(-ahead))
	lock(t, s).Release()
	near(t, "Now, after a lock", s.Now(), time.Now().Add(-ahead))
}

// putFromTomorrow stores a grant as a process does whose clock is a day ahead.
func (r *rig) putFromTomorrow() {
	r.t.Helper()
	at := time.Now().Add(24 * time.Hour)
	if err := r.Put(context.Background(), tokens.Grant{
		Account: account, AccessToken: "from tomorrow", RefreshToken: r.agent.grant(), ObtainedAt: at, ExpiresAt: at.Add(time.Hour),
	}); err != nil {
		r.t.Fatal(err)
	}
}

// A token that a process with a clock a day ahead had stored, which was then set right, is renewed within its life.
func TestTokenFromTomorrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.putFromTomorrow()
		r.token()
		sleep(54 * time.Minute)
		r.refreshes(0)
		sleep(3 * time.Minute)
		r.refreshes(1)
		if end := r.Status(account).AccessExpiresAt; time.Until(end) > time.Hour {
			t.Errorf("the token's end is %s away", time.Until(end))
		}
	})
}

// Such a token does not pass for one that came after a request was rejected, and so cannot have been.
func TestTokenFromTomorrowIsNotFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.putFromTomorrow()
		token := r.token()
		again := attempt(invoices, token)
		again.Rejected, again.RejectedAt = tokens.Token{}, time.Now() // with the token before
		sleep(time.Second)
		again.Sent = time.Now()
		if got, err := r.Renew(context.Background(), again); err != nil || got == token {
			t.Errorf("Renew: %v, %v; want a new token", got, err)
		}
		r.refreshes(1)
	})
}

// Redis's clock is set forward while a replica's refresh is on its way, so that its lock and its mark are gone: another one
// does not spend the same refresh token.
func TestRedisSetForwardAmidRefresh(t *testing.T) {
	t.Parallel()
	agent, server := newFreeAgent(), redistest.Start(t, redistest.OwnClock())
	endpoint := agent.listen(t, 10*time.Second)
	agent.ever(late(3*time.Second, agent.refresh))
	quick := func(c *tokens.RedisConfig) { c.Lease = 3 * time.Second }
	first, second := newReplica(t, agent, endpoint, server, quick), newReplica(t, agent, endpoint, server, quick)
	save(t, first.redis, aged(agent.grant()), 0)
	old := first.token()
	if got := second.token(); got != old {
		t.Fatal("two tokens")
	}
	renewed := make(chan tokens.Token)
	go func() { renewed <- first.renewOld(old) }()
	eventually(t, "a refresh on its way", func() bool { return agent.count() == 1 })
	server.SetClock(time.Hour)
	if got := second.renewOld(old); got != <-renewed {
		t.Error("two tokens")
	}
	if n := agent.count(); n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
}
