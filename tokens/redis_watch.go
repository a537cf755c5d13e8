package tokens

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// compareEvery is how often the versions here are compared with those in Redis: messages may get lost, and a
	// server that lost its data sends none.
	compareEvery = 2 * time.Second
	// compareAtOnce bounds how many are compared each time; the others come next.
	compareAtOnce = 500
	// listenCheck is how often the connection is tried that messages come over.
	listenCheck = time.Second
)

// Watch calls changed for each account of which Redis has something else than this process has read or written, as
// soon as it learns of it: by a message after each write, and by comparing every two seconds. changed must return
// soon; Manager.Changed does. Watch returns when ctx ends.
func (r *Redis) Watch(ctx context.Context, changed func(account string)) {
	messages := r.cfg.Client.Subscribe(ctx, redisChannel)
	defer messages.Close()
	arriving := messages.ChannelWithSubscriptions(redis.WithChannelHealthCheckInterval(listenCheck))
	tick := time.NewTicker(compareEvery)
	defer tick.Stop()
	for after := ""; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			after = r.compare(ctx, after, changed)
		case message, open := <-arriving:
			if !open { // the client was closed
				arriving = nil
			}
			switch m := message.(type) {
			case *redis.Subscription: // (re)connected: there may have been messages before
				after = r.compare(ctx, "", changed)
			case *redis.Message:
				r.heard(m.Payload, changed)
			}
		}
	}
}

// heard takes a message: "VERSION ACCOUNT".
func (r *Redis) heard(message string, changed func(account string)) {
	version, name, _ := strings.Cut(message, " ")
	account, ok := untag(name)
	if !ok {
		return
	}
	r.mu.Lock()
	known := r.seen[account] == version
	r.mu.Unlock()
	if !known {
		changed(account)
	}
}

// compare compares the versions of some accounts with those in Redis, and returns the last of
// them; empty after the last of all. While Redis does not answer there is nothing to compare.
func (r *Redis) compare(ctx context.Context, after string, changed func(account string)) string {
	r.mu.Lock()
	seen := maps.Clone(r.seen)
	r.mu.Unlock()
	accounts := slices.Sorted(maps.Keys(seen))
	if i, found := slices.BinarySearch(accounts, after); found && after != "" {
		accounts = accounts[i+1:]
	} else {
		accounts = accounts[i:]
	}
	next := ""
	if len(accounts) > compareAtOnce {
		accounts = accounts[:compareAtOnce]
		next = accounts[compareAtOnce-1]
	}
	ctx, cancel := context.WithTimeout(ctx, compareEvery)
	defer cancel()
	pipe := r.cfg.Client.Pipeline()
	versions := make([]*redis.StringCmd, len(accounts))
	for i, account := range accounts {
		versions[i] = pipe.HGet(ctx, grantKey(account), "version")
	}
	asked, clock := time.Now(), pipe.Time(ctx)
	_, _ = pipe.Exec(ctx) // each says for itself
	if now, err := clock.Result(); err == nil {
		r.told(asked, now.UnixMilli())
	}
	for i, account := range accounts {
		version, err := versions[i].Result()
		if (err == nil || errors.Is(err, redis.Nil)) && version != seen[account] {
			changed(account)
		}
	}
	return next
}
