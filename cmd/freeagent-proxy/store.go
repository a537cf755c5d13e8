package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"freeagent-proxy/tokens"
)

// openStore opens the store to write. errors.Is(err, tokens.ErrLocked) when a running proxy has it, which has a file
// store to itself.
func openStore(cfg Config) (tokens.Store, error) { return openEither(cfg, false) }

// openStoreReadOnly opens it beside whoever writes.
func openStoreReadOnly(cfg Config) (tokens.Store, error) { return openEither(cfg, true) }

func openEither(cfg Config, readOnly bool) (tokens.Store, error) {
	keys, err := encryptionKeys(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Store.Redis.given() {
		if cfg, err = cfg.besideServe(); err != nil {
			return nil, err
		}
		store, err := openRedis(cfg, keys, nil)
		if err != nil {
			return nil, err
		}
		return store, nil
	}
	store, err := tokens.OpenFile(tokens.FileConfig{Dir: cfg.Store.File, Keys: keys, ReadOnly: readOnly})
	if err != nil {
		return nil, err
	}
	return store, nil
}

// besideServe is the configuration for a command: without the backup of Redis if a running proxy has that to itself.
// It goes on keeping in it what it stores; what we write is in Redis alone until then.
func (c Config) besideServe() (Config, error) {
	if c.Store.Redis.Backup == "" {
		return c, nil
	}
	keys, err := encryptionKeys(c)
	if err != nil {
		return Config{}, err
	}
	backup, err := tokens.OpenFile(tokens.FileConfig{Dir: c.Store.Redis.Backup, Keys: keys})
	if errors.Is(err, tokens.ErrLocked) {
		c.Store.Redis.Backup = ""
		return c, nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("backup: %w", err)
	}
	return c, backup.Close()
}

// kind is what /api/status calls the store.
func (c StoreConfig) kind() string {
	if c.Redis.given() {
		return "redis"
	}
	return "file"
}

// name says where grants are kept, for a person. A URL may hold a password.
func (c StoreConfig) name() string {
	if c.Redis.given() {
		return "Redis"
	}
	return c.File
}

func encryptionKeys(cfg Config) ([]tokens.Key, error) {
	keys := make([]tokens.Key, 0, len(cfg.Encryption.Keys))
	for _, k := range cfg.Encryption.Keys {
		key, err := tokens.ParseKey(k.ID, k.Key.Reveal())
		if err != nil {
			return nil, fmt.Errorf("encryption key %q: %w", k.ID, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// app is the OAuth app of an account.
func (c Config) app(account string) tokens.App {
	app := c.Apps[c.Accounts[account].App]
	return tokens.App{ClientID: app.ClientID, ClientSecret: app.ClientSecret.Reveal()}
}

// seed is the refresh token from the environment, or empty.
func (c Config) seed() string { return strings.TrimSpace(c.Seed.Reveal()) }

func newEndpoint(cfg Config) *tokens.Endpoint {
	return tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: cfg.Upstream.BaseURL, UserAgent: userAgent(cfg)})
}

func userAgent(cfg Config) string {
	if cfg.Upstream.UserAgent != "" {
		return cfg.Upstream.UserAgent
	}
	return "freeagent-proxy/" + version
}

// handover is how long a command looks for whoever holds the store: a proxy that starts has its
// lock a moment before its control socket.
const handover = 5 * time.Second

// openGrants finds out who may write the store: we, or the running proxy. release ends our part.
func openGrants(ctx context.Context, cfg Config) (g grants, release func() error, err error) {
	ctx, cancel := context.WithTimeout(ctx, handover)
	defer cancel()
	for {
		store, err := openStore(cfg)
		if err == nil {
			return ownGrants(cfg, store)
		}
		if !errors.Is(err, tokens.ErrLocked) {
			return nil, nil, err
		}
		running, controlErr := newControl(ctx, cfg.Store.File)
		if controlErr == nil {
			return running, func() error { return nil }, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("%w; it does not answer, so it may be shutting down: try again when it has ended: %w", err, controlErr)
		}
	}
}

// ownGrants writes the store in this process.
func ownGrants(cfg Config, store tokens.Store) (grants, func() error, error) {
	manager := tokens.New(tokens.Config{
		Store:    store,
		Endpoint: newEndpoint(cfg),
		App: func(account string) (tokens.App, bool) {
			_, ok := cfg.Accounts[account]
			return cfg.app(account), ok
		},
	})
	if seed := cfg.seed(); seed != "" {
		account, _ := cfg.DefaultAccount()
		if err := manager.Supersede(account, seed); err != nil {
			return nil, nil, errors.Join(err, store.Close())
		}
	}
	release := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return errors.Join(manager.Close(ctx), store.Close())
	}
	return writer{manager, store}, release, nil
}

// writer is the grants of the process that has the store.
type writer struct {
	*tokens.Manager
	store tokens.Store
}

// Put is that of grants. Its version is by the store's clock, which is known when the store was read.
func (w writer) Put(ctx context.Context, g tokens.Grant) error {
	_, _ = w.store.Load(ctx, g.Account) // what fails here fails there
	return w.Manager.Put(ctx, g)
}

// Prove is that of grants.
func (w writer) Prove(ctx context.Context, account string) error {
	lease, err := w.store.Lock(ctx, account)
	if err != nil {
		return err
	}
	lease.Release()
	if _, err := w.store.Load(ctx, account); !errors.Is(err, tokens.ErrNoGrant) {
		return withWayOut(err)
	}
	return nil
}

// withWayOut adds to why grants cannot be opened what is left when key and backup are lost. A file that the system
// does not let us read may be as good as ever.
func withWayOut(err error) error {
	if err == nil || !errors.Is(err, tokens.ErrStore) || errors.As(err, new(syscall.Errno)) {
		return err
	}
	return fmt.Errorf("%w. If that cannot be done, `freeagent-proxy accounts remove NAME` forgets the account's authorisation, and `authorize --account NAME` gets a new one", err)
}

// proveStore is Prove, wherever the store's writer is, without holding the store.
func proveStore(ctx context.Context, cfg Config, account string) error {
	g, release, err := openGrants(ctx, cfg)
	if err != nil {
		return err
	}
	return errors.Join(g.Prove(ctx, account), release())
}

// putGrant keeps a new authorisation, wherever the store's writer is.
func putGrant(ctx context.Context, cfg Config, grant tokens.Grant) error {
	g, release, err := openGrants(ctx, cfg)
	if err != nil {
		return fmt.Errorf("keep the authorisation: %w; authorise again when this is mended", err)
	}
	return errors.Join(g.Put(ctx, grant), release())
}
