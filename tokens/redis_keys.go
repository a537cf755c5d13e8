package tokens

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// tag is an account's name as it stands in keys, between braces: never empty and without braces,
// so that it alone decides which server of a Cluster has the key.
func tag(account string) string {
	if account == "" {
		return "%"
	}
	return escapeAccount(account)
}

func untag(tag string) (account string, ok bool) {
	if tag == "%" {
		return "", true
	}
	return unescapeAccount(tag + grantSuffix)
}

const grantKeyEnd = "}:grant"

func grantKey(account string) string { return redisPrefix + "{" + tag(account) + grantKeyEnd }

// keys are those that every script gets: grant, lock, mark.
func keys(account string) []string {
	stem := redisPrefix + "{" + tag(account) + "}:"
	return []string{stem + "grant", stem + "lock", stem + "spend"}
}

// Accounts lists the accounts that have a grant, in Redis or in the backup.
func (r *Redis) Accounts(ctx context.Context) ([]string, error) {
	var mu sync.Mutex
	found := make(map[string]bool) // false: removed
	scan := func(ctx context.Context, server *redis.Client) error {
		return scanGrants(ctx, server, func(account string, there bool) {
			mu.Lock()
			defer mu.Unlock()
			found[account] = there
		})
	}
	var err error
	switch c := r.cfg.Client.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, scan)
	case *redis.Client:
		err = scan(ctx, c)
	default:
		err = fmt.Errorf("a client of type %T cannot list keys", c)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: list accounts: %w", ErrStore, remedied(err))
	}
	for _, account := range r.kept() {
		if _, known := found[account]; !known {
			found[account] = true
		}
	}
	var accounts []string
	for account, there := range found {
		if there {
			accounts = append(accounts, account)
		}
	}
	slices.Sort(accounts)
	return accounts, nil
}

// scanPage is how many keys Redis looks at in one go.
const scanPage = 1000

func scanGrants(ctx context.Context, server *redis.Client, found func(account string, there bool)) error {
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		names, next, err := server.Scan(ctx, cursor, redisPrefix+"{*"+grantKeyEnd, scanPage).Result()
		if err != nil {
			return err
		}
		cursor = next
		pipe := server.Pipeline()
		there := make(map[string]*redis.BoolCmd)
		for _, name := range names {
			name, _ = strings.CutSuffix(strings.TrimPrefix(name, redisPrefix+"{"), grantKeyEnd)
			if account, ok := untag(name); ok {
				there[account] = pipe.HExists(ctx, grantKey(account), "sealed")
			}
		}
		if len(there) == 0 {
			continue
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		for account, cmd := range there {
			found(account, cmd.Val())
		}
	}
	return nil
}
