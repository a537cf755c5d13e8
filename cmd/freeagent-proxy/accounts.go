package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"freeagent-proxy/tokens"
)

// maxToken is far longer than any token FreeAgent has given out.
const maxToken = 16 << 10

func (c *command) accountsCommand() *cobra.Command {
	accounts := &cobra.Command{
		Use:   "accounts",
		Short: "List, show, import, copy and remove the accounts' authorisations",
		Long: `The authorisations are in the store. These commands work whether the proxy runs or
not; a running one knows at once.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("name what to do: accounts list, show NAME, import NAME, copy or remove NAME")}
		},
	}
	accounts.PersistentFlags().StringVar(&c.configPath, "config", "", configUsage)
	completeFlag(accounts, "config", configurationFiles)
	accounts.AddCommand(
		&cobra.Command{Use: "list", Short: "List the accounts and when their tokens end", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.listAccounts(cmd.Context()) }},
		&cobra.Command{Use: "show NAME", Short: "Show one account's authorisation, without its secrets", Args: oneArg, ValidArgsFunction: c.completeAccount,
			RunE: func(cmd *cobra.Command, args []string) error { return c.showAccount(cmd.Context(), args[0]) }},
		&cobra.Command{Use: "import NAME", Short: "Take a refresh token, got elsewhere, from standard input", Args: oneArg, ValidArgsFunction: c.completeAccount,
			Long: `Reads a refresh token from standard input, refreshes once to prove it, and keeps what
FreeAgent answers. It replaces the account's authorisation.`,
			Example: "  freeagent-proxy accounts import acme < refresh-token.txt",
			RunE:    func(cmd *cobra.Command, args []string) error { return c.importAccount(cmd.Context(), args[0]) }},
		c.copyCommand(),
		&cobra.Command{Use: "remove NAME", Short: "Forget an account's authorisation", Args: oneArg, ValidArgsFunction: c.completeAccount,
			Long: `Deletes the account's tokens from the store, without asking. FreeAgent is not told; to
revoke the access, do so there under Approved Applications.`,
			RunE: func(cmd *cobra.Command, args []string) error { return c.removeAccount(cmd.Context(), args[0]) }},
	)
	return accounts
}

func (c *command) listAccounts(ctx context.Context) error {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	store, err := openStoreReadOnly(cfg)
	if err != nil {
		return err
	}
	defer store.Close()
	stored, err := store.Accounts(ctx)
	if err != nil {
		return err
	}
	names := slices.Collect(maps.Keys(cfg.Accounts))
	for _, name := range stored {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	out := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "ACCOUNT\tSTATE\tACCESS TOKEN\tREFRESH TOKEN")
	var unreadable error
	for _, name := range names {
		unreadable = errors.Join(unreadable, listAccount(ctx, out, store, cfg, name))
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if unreadable != nil {
		fmt.Fprintf(c.stdout, "\n%v\n", withWayOut(unreadable))
	}
	return nil
}

// listAccount writes an account's line, and gives what keeps its grant from being read.
func listAccount(ctx context.Context, out io.Writer, store tokens.Store, cfg Config, name string) error {
	grant, err := store.Load(ctx, name)
	switch {
	case errors.Is(err, tokens.ErrNoGrant):
		fmt.Fprintf(out, "%s\tnever authorised\t-\t-\n", name)
		return nil
	case err != nil:
		fmt.Fprintf(out, "%s\tunreadable\t-\t-\n", name)
		return fmt.Errorf("account %s: %w", name, err)
	}
	state := "authorised"
	if _, ok := cfg.Accounts[name]; !ok {
		state = "authorised, but not configured"
	}
	fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", name, state, ends(grant.ExpiresAt), ends(grant.RefreshExpiresAt))
	return nil
}

// ends says when a token's life ends, for a person.
func ends(at time.Time) string {
	switch left := time.Until(at).Round(time.Second); {
	case at.IsZero():
		return "end unknown"
	case left <= 0:
		return "ended " + at.UTC().Format(time.RFC3339)
	case left > 48*time.Hour:
		return fmt.Sprintf("ends in %d days", int(left.Hours()/24))
	default:
		return "ends in " + left.String()
	}
}

func (c *command) showAccount(ctx context.Context, name string) error {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	store, err := openStoreReadOnly(cfg)
	if err != nil {
		return err
	}
	defer store.Close()
	grant, err := store.Load(ctx, name)
	if errors.Is(err, tokens.ErrNoGrant) {
		if _, ok := cfg.Accounts[name]; !ok {
			return notConfigured(cfg, name)
		}
		return fmt.Errorf("account %q was never authorised; run `freeagent-proxy authorize --account %s`", name, name)
	}
	if err != nil {
		return withWayOut(err)
	}
	out := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "account:\t%s\n", name)
	fmt.Fprintf(out, "app:\t%s\n", cfg.Accounts[name].App)
	fmt.Fprintf(out, "access token:\t%s\n", ends(grant.ExpiresAt))
	fmt.Fprintf(out, "refresh token:\t%s\n", ends(grant.RefreshExpiresAt))
	fmt.Fprintf(out, "last refresh:\t%s\n", moment(grant.ObtainedAt))
	fmt.Fprintf(out, "version:\t%d\n", grant.Version)
	return out.Flush()
}

func moment(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.UTC().Format(time.RFC3339)
}

func (c *command) importAccount(ctx context.Context, name string) error {
	cfg, err := c.configFor(name)
	if err != nil {
		return err
	}
	token, err := io.ReadAll(io.LimitReader(c.stdin, maxToken+1))
	if err != nil {
		return fmt.Errorf("read the refresh token from standard input: %w", err)
	}
	refreshToken := strings.TrimSpace(string(token))
	if refreshToken == "" || len(token) > maxToken || strings.ContainsAny(refreshToken, " \t\r\n") {
		return usageError{fmt.Errorf("standard input must hold one refresh token of at most %d bytes, and nothing else", maxToken)}
	}
	if err := proveStore(ctx, cfg, name); err != nil {
		return err
	}
	grants, release, err := openGrants(ctx, cfg)
	if err != nil {
		return err
	}
	if err := errors.Join(grants.Import(ctx, name, refreshToken), release()); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "Account %s is authorised.\n", name)
	return nil
}

func (c *command) removeAccount(ctx context.Context, name string) error {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	grants, release, err := openGrants(ctx, cfg)
	if err != nil {
		return err
	}
	err = errors.Join(grants.Remove(ctx, name), release())
	if errors.Is(err, tokens.ErrNoGrant) {
		return fmt.Errorf("account %q has no authorisation; `freeagent-proxy accounts list` shows which have", name)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "Account %s is forgotten. FreeAgent still lists the app under Approved Applications.\n", name)
	return nil
}

// configFor loads the configuration and makes sure that it knows the account.
func (c *command) configFor(account string) (Config, error) {
	cfg, err := c.loadConfig()
	if err != nil {
		return Config{}, err
	}
	if _, ok := cfg.Accounts[account]; !ok {
		return Config{}, notConfigured(cfg, account)
	}
	return cfg, nil
}

func notConfigured(cfg Config, account string) error {
	known := slices.Sorted(maps.Keys(cfg.Accounts))
	return usageError{fmt.Errorf("account %q is not configured; configured: %s", account, strings.Join(known, ", "))}
}
