package tokens

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisConfig says how a Redis keeps its grants. Client and Keys are required.
type RedisConfig struct {
	// Client is of one server, a Sentinel's or a Cluster's. It must have ContextTimeoutEnabled, since each call here
	// has its deadline, and a Cluster's must not read from replicas. It is not closed by Close.
	Client redis.UniversalClient
	// Keys seal the grants: the first seals, all open. There is no store without: Redis shows what it has to many.
	Keys []Key
	// Backup is a folder of this process alone, as a File has it, for a second copy of each grant that is written here.
	// What Redis has lost comes back from it. "": none.
	Backup string
	// WaitReplicas is how many replicas of Redis are waited for, half a second at most, after each write. A write that
	// fewer have acknowledged is as good as one without this: what a failover loses comes back from those who hold it.
	WaitReplicas int
	// Lease is how long the lock on an account outlives its holder's last sign of life; it is renewed three times as
	// often. 0: 15 s.
	Lease time.Duration
	// Call is the longest that a token call takes, as in EndpointConfig.Timeout; 0: 30 s. What a process that died, or is
	// halted, was about to spend is not spent by another until then and a third more.
	Call time.Duration
	// Degraded is told what does not work although nothing fails because of it: the backup, or replicas that do not
	// keep up; the first time in a row, and nil when it works again. It must return soon. nil: nobody.
	Degraded func(what string, err error)
}

// Redis is the Store for many processes. All that it has of an account has one hash tag, and so lies on one server:
//
//	fap:v1:{ACCOUNT}:grant  hash: version, sealed, clock; after Remove the version alone, for 90 days
//	fap:v1:{ACCOUNT}:lock   string: who may refresh
//	fap:v1:{ACCOUNT}:spend  hash: the version whose refresh token is on its way to FreeAgent, owner
//	fap:v1:grants           channel: "VERSION ACCOUNT" after each write
//
// The lock alone keeps nobody from spending a refresh token twice: its holder may be halted for longer than it lives
// and then go on. Hence the mark, which the next holder respects, the bound on when a request may leave (see
// Lease.Spend), and versions, which keep a late writer from writing over what is newer.
type Redis struct {
	cfg    RedisConfig
	sealer *Sealer
	backup *backup // nil: none
	id     string  // of this process
	locks  atomic.Int64
	clock  atomic.Pointer[redisClock] // nil: not known yet

	turns  turns // who of this process may refresh an account
	writes turns // who may compare backup and Redis

	running sync.WaitGroup
	closed  chan struct{}
	close   func() // once

	mu       sync.Mutex
	seen     map[string]string // account → the version that was last read or written here
	homes    map[string]home
	degraded map[string]string // what → the error that was told
}

const (
	redisPrefix = "fap:v1:"
	// redisChannel tells of writes.
	redisChannel = redisPrefix + "grants"
	// removalLife is how long it is remembered that a grant was removed: longer than a replica may be away.
	removalLife = 90 * 24 * time.Hour
	// defaultLease is long against a hiccup of Redis or of the process, short for those who wait for a dead holder.
	defaultLease = 15 * time.Second
	// waitFor bounds the wait for replicas; a new token is held back meanwhile (see savePatience).
	waitFor = 500 * time.Millisecond
	// maxReconcile bounds how often backup and Redis are compared while others write.
	maxReconcile = 3
)

// NewRedis returns the store. It does not speak with Redis yet, which may be away.
func NewRedis(cfg RedisConfig) (*Redis, error) {
	if len(cfg.Keys) == 0 {
		return nil, fmt.Errorf("%w: grants in Redis must be sealed: configure an encryption key; `freeagent-proxy keygen` makes one", ErrStore)
	}
	if err := suitable(cfg.Client); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	sealer, err := NewSealer(cfg.Keys...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if cfg.Lease <= 0 {
		cfg.Lease = defaultLease
	}
	if cfg.Call <= 0 {
		cfg.Call = defaultTimeout
	}
	if cfg.Degraded == nil {
		cfg.Degraded = func(string, error) {}
	}
	r := &Redis{
		cfg: cfg, sealer: sealer, id: rand.Text() + ".",
		seen: make(map[string]string), homes: make(map[string]home), degraded: make(map[string]string), closed: make(chan struct{}),
	}
	r.close = sync.OnceFunc(func() { close(r.closed) })
	if cfg.Backup != "" {
		if r.backup, err = openBackup(cfg.Backup, cfg.Keys); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func suitable(client redis.UniversalClient) error {
	const deadlines = "the Redis client was made without ContextTimeoutEnabled: it would ignore deadlines"
	switch c := client.(type) {
	case *redis.Client:
		if !c.Options().ContextTimeoutEnabled {
			return errors.New(deadlines)
		}
	case *redis.ClusterClient:
		switch o := c.Options(); {
		case !o.ContextTimeoutEnabled:
			return errors.New(deadlines)
		case o.ReadOnly:
			return errors.New("the Redis client reads from replicas, which may lag: make it without ReadOnly and RouteByLatency")
		}
	}
	return nil
}

// Load reads and opens the account's grant, after putting back into Redis what the backup has that is newer.
func (r *Redis) Load(ctx context.Context, account string) (Grant, error) {
	giveBack, err := r.writes.take(ctx, account)
	if err != nil {
		return Grant{}, r.fail("read", account, err)
	}
	defer giveBack()
	for range maxReconcile {
		stored, err := r.read(ctx, account)
		if err != nil {
			return Grant{}, err
		}
		kept, ok := r.keptSince(account, stored.reading)
		if !ok {
			r.saw(account, stored.version)
			return stored.result(account)
		}
		if err := r.put(ctx, kept, stored.grant.Version); err != nil && !errors.Is(err, ErrConflict) {
			return Grant{}, err
		}
	}
	return Grant{}, r.fail("read", account, ErrConflict)
}

// redisGrant is what Redis has of an account.
type redisGrant struct {
	reading
	version string // as it stands there; empty: nothing
}

// result is what Load returns for it.
func (g redisGrant) result(account string) (Grant, error) {
	switch {
	case g.forgotten:
		return Grant{}, fmt.Errorf("account %q: %w", account, ErrForgotten)
	case g.removal != 0:
		return Grant{Version: g.removal}, fmt.Errorf("account %q: %w", account, ErrNoGrant)
	default:
		return g.grant, nil
	}
}

func (r *Redis) read(ctx context.Context, account string) (redisGrant, error) {
	asked := time.Now()
	fields, err := r.eval(ctx, loadScript, account)
	if err != nil {
		return redisGrant{}, r.fail("read", account, err)
	}
	version, sealed, now := word(fields, 0), word(fields, 1), number(fields, 3)
	r.told(asked, now)
	if version == "" {
		return redisGrant{reading: reading{forgotten: true}}, nil
	}
	if sealed == "" {
		removal, err := strconv.ParseInt(version, 10, 64)
		if err != nil || removal <= 0 {
			return redisGrant{}, storeError("open", grantKey(account), errors.New("it is not ours, or damaged; delete it"))
		}
		return redisGrant{reading: reading{removal: removal}, version: version}, nil
	}
	grant, stale, err := r.open(account, version, sealed)
	if err != nil {
		return redisGrant{}, err
	}
	grant = grant.here(word(fields, 2), asked, now)
	if stale { // move it to the first key; if that fails it moves when it is next written
		_ = r.put(ctx, grant, grant.Version)
	}
	return redisGrant{reading: reading{grant: grant}, version: version}, nil
}

func (r *Redis) open(account, version, sealed string) (grant Grant, stale bool, err error) {
	if grant, stale, err = r.sealer.openGrant(account, []byte(sealed)); err != nil {
		return Grant{}, false, storeError("open", grantKey(account), err)
	}
	if version != strconv.FormatInt(grant.Version, 10) {
		return Grant{}, false, storeError("open", grantKey(account), errors.New("its version is not the one that is sealed; restore it from a backup"))
	}
	return grant, stale, nil
}

// Save writes the grant, if the stored one is of the previous version; first into the backup, which
// has it then whatever becomes of Redis.
func (r *Redis) Save(ctx context.Context, next Grant, previous int64) error {
	giveBack, err := r.writes.take(ctx, next.Account)
	if err != nil {
		return r.fail("write", next.Account, err)
	}
	defer giveBack()
	undo := r.keep(next)
	err = r.put(ctx, next, previous)
	if errors.Is(err, ErrConflict) { // else the backup would win over what is newer, or another's
		undo()
	}
	return err
}

// put writes into Redis.
func (r *Redis) put(ctx context.Context, next Grant, previous int64) error {
	now := time.Now()
	sealed, err := r.sealer.sealGrant(next.onWall(now))
	if err != nil {
		return storeError("encode", grantKey(next.Account), err)
	}
	version := strconv.FormatInt(next.Version, 10)
	result, err := r.write(ctx, saveScript, next.Account, previous, version, sealed, redisChannel, tag(next.Account), now.UnixMilli())
	if err != nil {
		return r.fail("write", next.Account, err)
	}
	if number(result, 0) == 1 {
		r.saw(next.Account, version)
		return nil
	}
	if sealed := word(result, 2); sealed != "" {
		if _, _, err := r.open(next.Account, word(result, 1), sealed); err != nil {
			return fmt.Errorf("not overwritten: %w", err)
		}
	}
	return fmt.Errorf("account %q: stored is version %q, expected %d: %w", next.Account, word(result, 1), previous, ErrConflict)
}

// Remove deletes the account's grant, also one that cannot be opened. That there was none is
// remembered just as well: another replica may hold one that Redis has lost.
func (r *Redis) Remove(ctx context.Context, account string) error {
	giveBack, err := r.writes.take(ctx, account)
	if err != nil {
		return r.fail("remove", account, err)
	}
	defer giveBack()
	result, err := r.write(ctx, removeScript, account, removalLife.Milliseconds(), redisChannel, tag(account))
	if err != nil {
		return r.fail("remove", account, err)
	}
	r.saw(account, word(result, 1))
	r.drop(account)
	if number(result, 0) == 0 {
		return fmt.Errorf("account %q: %w", account, ErrNoGrant)
	}
	return nil
}

// saw notes which version of an account this process knows.
func (r *Redis) saw(account, version string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[account] = version
}

// Ping asks whether Redis answers at all.
func (r *Redis) Ping(ctx context.Context) error {
	if err := r.cfg.Client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrStore, "ask Redis", remedied(err))
	}
	return nil
}

// Close waits for locks to be released, seconds at most, and closes the backup. The client stays open.
func (r *Redis) Close() error {
	r.close()
	r.running.Wait()
	if r.backup == nil {
		return nil
	}
	return r.backup.Close()
}
