package tokens_test

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/redistest"
	"freeagent-proxy/tokens"
)

// splits are two replicas of ours with one grant, on two sides: lonely with the old master, which goes on, and other with the one that
// the Sentinel has put in its place.
type splits struct {
	*redistest.Split
	agent         *freeAgent
	lonely, other *replica
	old           tokens.Token
}

// newSplits cuts, after change of the master.
func newSplits(t *testing.T, change func(master *redis.Client)) *splits {
	t.Helper()
	watched := redistest.SentinelOverWire(t)
	s := &splits{Split: watched.NewSplit(t), agent: newFreeAgent()}
	endpoint := s.agent.listen(t, 10*time.Second)
	following := func(by redistest.Detour) redis.UniversalClient {
		return closed(t, redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: redistest.MasterName, SentinelAddrs: watched.Addrs(), ContextTimeoutEnabled: true, Dialer: by.Dial,
		}))
	}
	s.lonely = newReplicaOn(t, s.agent, endpoint, following(s.Lonely))
	s.other = newReplicaOn(t, s.agent, endpoint, following(nil))
	save(t, s.other.redis, aged(s.agent.grant()), 0)
	s.old = s.lonely.token()
	s.other.token()
	for _, r := range []*replica{s.lonely, s.other} { // both know this master
		lock(t, r.redis).Release()
	}
	replica := watched.Replica.Client(t)
	eventually(t, "at the replica", func() bool { return replica.Exists(t.Context(), "fap:v1:{acme}:grant").Val() == 1 })
	change(watched.Master.Client(t))
	s.Cut()
	watched.Promoted()
	return s
}

// spends expects that many refresh requests, and that no refresh token was spent twice.
func (s *splits) spends(t *testing.T, want int) {
	t.Helper()
	s.lonely.refreshes(want)
	seen := make(map[string]bool)
	for _, token := range s.agent.spentTokens() {
		if seen[token] {
			t.Error("a refresh token was spent twice")
		}
		seen[token] = true
	}
}

// agree expects both to have one token, and the store too.
func (s *splits) agree(t *testing.T) {
	t.Helper()
	eventually(t, "of one mind", func() bool {
		one, ok := s.lonely.TokenNow(account)
		two, too := s.other.TokenNow(account)
		return ok && too && one == two && one != s.old && s.other.Status(account).State == tokens.StateOK &&
			s.lonely.Status(account).State == tokens.StateOK
	})
	if got, want := "Bearer "+stored(t, s.other.redis).AccessToken, s.other.token().Authorization(); got != want {
		t.Error("another token is stored")
	}
}

// A master that is cut off with one of ours, and is not written without a replica of its own, gives no leave to spend: one side
// refreshes, and when the network is mended the other gets what that brought.
func TestSplitWithMinReplicas(t *testing.T) {
	t.Parallel()
	s := newSplits(t, func(master *redis.Client) {
		for name, value := range map[string]string{"min-replicas-to-write": "1", "min-replicas-max-lag": "1"} {
			if err := master.ConfigSet(t.Context(), name, value).Err(); err != nil {
				t.Fatal(err)
			}
		}
	})
	s.lonely.findsStoreTrouble(s.old)
	s.other.renewOld(s.old)
	s.Mend()
	s.agree(t)
	s.spends(t, 1)
}

// Without that both sides may spend one refresh token. When the network is mended both have the token that FreeAgent gave, without
// anybody's help.
func TestSplitWithoutMinReplicas(t *testing.T) {
	t.Parallel()
	s := newSplits(t, func(*redis.Client) {})
	s.lonely.renewOld(s.old)
	if _, err := s.other.renewWithin(10*time.Second, "/", s.old); !errors.Is(err, tokens.ErrReauthorize) {
		t.Errorf("Renew at the new master: %v, want ErrReauthorize", err)
	}
	s.lonely.refreshes(2)
	s.Mend()
	s.agree(t)
	s.lonely.refreshes(2)
}
