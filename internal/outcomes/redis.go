package outcomes

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// shared is the store of many processes.
//
//	fap:v1:write:{ACCOUNT}:CLIENT:ID   hash: state, owner, until, sealed
//	fap:v1:writes:{ACCOUNT}:CLIENT     hash: hour → units that were put on record in it
//
// They begin otherwise than the keys of grants and budgets, fap:v1:{…, which are listed by that: there may be many of these.
//
// Until is when the owner of a waiting or sent record is taken for dead, by Redis's clock.
type shared struct {
	client   redis.UniversalClient
	life     time.Duration // of an owner that shows no life
	replicas int           // of Redis's own that are waited for before a request leaves
}

// waitFor is how long they are: as for grants.
const waitFor = 500 * time.Millisecond

// defaultLease is how long a replica is believed to live without a sign of life: long against a hiccup, short for those
// who wait to hear what became of a write.
const defaultLease = 15 * time.Second

var (
	//go:embed begin.lua
	beginText string
	//go:embed put.lua
	putText string
	//go:embed forget.lua
	forgetText string

	beginScript  = redis.NewScript(beginText)
	putScript    = redis.NewScript(putText)
	forgetScript = redis.NewScript(forgetText)
)

// NewRedis keeps outcomes in Redis, which it connects to when it is first used. The client stays the caller's to close, and
// must end its calls with their contexts (ContextTimeoutEnabled). lease 0: 15 s.
func NewRedis(client redis.UniversalClient, lease time.Duration, cfg Config) *Book {
	if lease == 0 {
		lease = defaultLease
	}
	return newBook(cfg, &shared{client, lease, cfg.WaitReplicas})
}

func (s *shared) lease() time.Duration { return s.life }
func (s *shared) sweep()               {} // Redis does
func (s *shared) close() error         { return nil }

// keys are the record's and its client's count, in one slot with all else of the account.
func keys(r *record) []string {
	whose := "{" + r.account + "}:" + r.client
	return []string{"fap:v1:write:" + whose + ":" + r.id, "fap:v1:writes:" + whose}
}

func (s *shared) begin(ctx context.Context, r *record) (*record, error) {
	answer, err := beginScript.Run(ctx, s.client, keys(r), r.owner, s.life.Milliseconds(), r.sealed, MaxUnits).Slice()
	if err != nil {
		return nil, fmt.Errorf("ask Redis: %w", err)
	}
	switch word(answer, 0) {
	case "claimed":
		return nil, nil
	case "full":
		return nil, ErrFull
	case "found":
		return &record{id: r.id, alive: word(answer, 1) == "1", sealed: []byte(word(answer, 2))}, nil
	default:
		return nil, errUnreadable
	}
}

var errUnreadable = errors.New("what Redis answers is not what was asked for")

func (s *shared) put(ctx context.Context, r *record) (lost bool, err error) {
	left := time.Until(r.expires())
	if r.state == waiting {
		left = s.life
	}
	args := []any{r.owner, int(r.state), s.life.Milliseconds(), max(left.Milliseconds(), 1), r.sealed, r.units}
	run := s.run
	if s.replicas > 0 && r.state == sent && r.units > 0 { // for the first time: from now on it must not be forgotten
		run = s.runAndWait
	}
	answer, err := run(ctx, putScript, keys(r), args)
	if err != nil {
		return false, fmt.Errorf("write to Redis: %w", err)
	}
	switch word(answer, 0) {
	case "put":
		return false, nil
	case "lost":
		return true, nil
	case "taken":
		return false, errTaken
	default:
		return false, errUnreadable
	}
}

func (s *shared) run(ctx context.Context, script *redis.Script, keys []string, args []any) ([]any, error) {
	return script.Run(ctx, s.client, keys, args...).Slice()
}

// runAndWait runs a script, and waits until replicas have what it wrote, or for waitFor. It is sent over one connection,
// since WAIT waits for what its own connection wrote.
func (s *shared) runAndWait(ctx context.Context, script *redis.Script, keys []string, args []any) ([]any, error) {
	server := s.client
	if cluster, ok := server.(*redis.ClusterClient); ok {
		master, err := cluster.MasterForKey(ctx, keys[0])
		if err != nil {
			return nil, err
		}
		server = master
	}
	pipe := server.Pipeline()
	result := script.Eval(ctx, pipe, keys, args...)
	pipe.Do(ctx, "wait", s.replicas, waitFor.Milliseconds())
	_, _ = pipe.Exec(ctx) // the script says for itself
	if redis.HasErrorPrefix(result.Err(), "MOVED") {
		return s.run(ctx, script, keys, args) // the slots have changed; this finds the new one
	}
	return result.Slice()
}

func (s *shared) forget(ctx context.Context, r *record) error {
	if err := forgetScript.Run(ctx, s.client, keys(r), r.owner).Err(); err != nil {
		return fmt.Errorf("write to Redis: %w", err)
	}
	return nil
}

// word is a script's result at i.
func word(answer []any, i int) string {
	if i >= len(answer) {
		return ""
	}
	switch v := answer[i].(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}
