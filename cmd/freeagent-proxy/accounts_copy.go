package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"freeagent-proxy/tokens"
)

func (c *command) copyCommand() *cobra.Command {
	var from string
	cmd := &cobra.Command{Use: "copy --from FILE [NAME...]", Short: "Copy authorisations from another store",
		Long: `Copies authorisations, with their access tokens, from the store of another configuration FILE into the
store of this one; or from a store's folder, which is opened with this configuration's keys. Without a NAME it
copies all that are configured here. FreeAgent is not asked, nothing is removed there, and what is newer here stays.

Stop the proxies that use the other store first, and do not start them again: a refresh token is good for one
store only. The command refuses if it sees one running.`,
		Example: "  freeagent-proxy accounts copy --from old.yaml",
		RunE:    func(cmd *cobra.Command, names []string) error { return c.copyAccounts(cmd.Context(), from, names) },

		ValidArgsFunction: c.completeAccounts,
	}
	cmd.Flags().StringVar(&from, "from", "", "the other configuration `FILE`, or a store's folder")
	completeFlag(cmd, "from", anyFile)
	return cmd
}

// errStillRuns: two proxies on two stores would both spend the refresh token.
var errStillRuns = errors.New("a proxy still runs on the store to copy from; stop it first, since two would spend the same refresh tokens, and do not start it again")

func (c *command) copyAccounts(ctx context.Context, from string, names []string) error {
	if from == "" {
		return usageError{errors.New("name where from: accounts copy --from FILE, the other configuration, or its store's folder")}
	}
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := cfg.Accounts[name]; !ok {
			return notConfigured(cfg, name)
		}
	}
	source, err := c.openSource(ctx, cfg, from)
	if err != nil {
		return fmt.Errorf("the store to copy from: %w", err)
	}
	defer source.store.Close()
	if len(names) == 0 {
		if names, err = c.allOf(ctx, source, cfg); err != nil {
			return err
		}
	}
	target, release, err := openGrants(ctx, cfg)
	if err != nil {
		return err
	}
	var problems []error
	for _, name := range names {
		if err := source.copyTo(ctx, target, cfg, name); err != nil {
			problems = append(problems, fmt.Errorf("account %s is not copied: %w", name, err))
			continue
		}
		fmt.Fprintf(c.stdout, "Account %s is copied.\n", name)
	}
	if len(problems) < len(names) {
		fmt.Fprintln(c.stdout, "Do not start a proxy on the other store again: it would spend the same refresh tokens.")
	}
	return errors.Join(append(problems, release())...)
}

var errSameStore = usageError{errors.New("that is the store of this configuration; there is nothing to copy")}

// source is a store that is read while nobody uses it.
type source struct {
	store tokens.Store
	cfg   *Config // nil: a folder was named
}

// openSource opens the store of another configuration, or a folder.
func (c *command) openSource(ctx context.Context, target Config, from string) (source, error) {
	if info, err := os.Stat(from); err == nil && info.IsDir() {
		if same(from, target.Store.File) {
			return source{}, errSameStore
		}
		target.Store = StoreConfig{File: from}
		store, err := openFolderAlone(target)
		return source{store: store}, err
	}
	cfg, err := loadConfig(from, c.getenv)
	if err != nil {
		return source{}, err
	}
	if !cfg.Store.Redis.given() {
		if same(cfg.Store.File, target.Store.File) {
			return source{}, errSameStore
		}
		store, err := openFolderAlone(cfg)
		return source{store, &cfg}, err
	}
	keys, err := encryptionKeys(cfg)
	if err != nil {
		return source{}, err
	}
	cfg.Store.Redis.Backup = "" // what is in it and not in Redis would be written there
	store, err := openRedis(cfg, keys, nil)
	if err != nil {
		return source{}, err
	}
	if err := errors.Join(store.Ping(ctx), store.unused(ctx)); err != nil {
		return source{}, errors.Join(err, store.Close())
	}
	return source{store, &cfg}, nil
}

// openFolderAlone opens a file store to read, as long as nobody else has it.
func openFolderAlone(cfg Config) (tokens.Store, error) {
	keys, err := encryptionKeys(cfg)
	if err != nil {
		return nil, err
	}
	dir := cfg.Store.File
	if _, err := os.Stat(filepath.Join(dir, "grants")); err != nil {
		return nil, fmt.Errorf("the folder %s holds no authorisations; name the one that store.file or store.redis.backup names", dir)
	}
	store, err := tokens.OpenFile(tokens.FileConfig{Dir: dir, Keys: keys, ReadOnly: true, Alone: true})
	if errors.Is(err, tokens.ErrLocked) {
		return nil, fmt.Errorf("%w (%s)", errStillRuns, dir)
	}
	if err != nil {
		return nil, err
	}
	return store, nil
}

// same reports whether two paths lead to one folder.
func same(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

// allOf names the accounts of the other store that are configured here, and says which are not.
func (c *command) allOf(ctx context.Context, from source, cfg Config) ([]string, error) {
	stored, err := from.store.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(stored, func(name string) bool {
		_, ok := cfg.Accounts[name]
		if !ok {
			fmt.Fprintf(c.stdout, "Account %s is not configured here, and not copied.\n", name)
		}
		return !ok
	})
	if len(names) == 0 {
		return nil, errors.New("the other store has no authorisation of an account that is configured here; `freeagent-proxy accounts list` with its configuration shows what it has")
	}
	return names, nil
}

// copyTo copies one account's grant.
func (s source) copyTo(ctx context.Context, target grants, cfg Config, name string) error {
	grant, err := s.store.Load(ctx, name)
	if errors.Is(err, tokens.ErrNoGrant) {
		return errors.New("the other store has no authorisation of it")
	}
	if err != nil {
		return err
	}
	if s.cfg != nil {
		_, known := s.cfg.Accounts[name]
		if known && s.cfg.app(name).ClientID != cfg.app(name).ClientID {
			return errors.New("it belongs to another app there (client_id), whose refresh tokens FreeAgent does not take from this one; authorise it here")
		}
		if s.cfg.Upstream.BaseURL.String() != cfg.Upstream.BaseURL.String() {
			return fmt.Errorf("it is of %s there, and of %s here (upstream.base_url)", s.cfg.Upstream.BaseURL, cfg.Upstream.BaseURL)
		}
	}
	return target.Copy(ctx, grant)
}

// Copy is that of grants. The lock keeps it apart from a refresh.
func (w writer) Copy(ctx context.Context, g tokens.Grant) error {
	lease, err := w.store.Lock(ctx, g.Account)
	if err != nil {
		return err
	}
	defer lease.Release()
	here, err := w.store.Load(ctx, g.Account)
	gone := errors.Is(err, tokens.ErrNoGrant)
	switch {
	case err != nil && !gone:
		return withWayOut(err)
	case gone && here.Version >= g.Version:
		return errors.New("it was removed from this store since; `freeagent-proxy authorize` gets a new authorisation")
	case here.Version == g.Version && here.RefreshToken == g.RefreshToken:
		return nil
	case here.Version >= g.Version:
		return errors.New("this store has a newer authorisation of it, which stays")
	}
	replaced := here.Version
	if gone {
		replaced = 0
	}
	if err := w.store.Save(ctx, g, replaced); err != nil {
		return err
	}
	w.Changed(g.Account)
	return nil
}
