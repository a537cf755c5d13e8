package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
)

func (c *command) checkCommand() *cobra.Command {
	var online bool
	cmd := c.configFlag(&cobra.Command{
		Use:   "check",
		Short: "Check the configuration; with --online also the store and FreeAgent",
		Long: `Reports every problem of the configuration at once, with its key and line.

With --online it also makes sure that FreeAgent's token endpoint can be reached and that the store can be read and written,
and makes one API call for each account, which gets a new token only if the stored one has ended. Of Redis it also checks version and
permissions, and warns of what could lose data. It works whether the proxy runs or not.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.check(cmd.Context(), online) },
	})
	cmd.Flags().BoolVar(&online, "online", false, "also check the store, the token endpoint and one API call for each account")
	return cmd
}

func (c *command) check(ctx context.Context, online bool) error {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	for _, note := range cfg.Notes {
		fmt.Fprintln(c.stdout, "note:", note)
	}
	fmt.Fprintf(c.stdout, "configuration: fine (accounts: %d, upstream: %s, store: %s)\n", len(cfg.Accounts), cfg.Upstream.BaseURL, cfg.Store.name())
	if most, fit := cfg.MaxConnections, cfg.fitting(); fit < most {
		fmt.Fprintf(c.stdout, "note: max_connections: %d do not fit into the limit of open files that holds here, %d at each listener do; the proxy's own limit counts: raise it (LimitNOFILE= in systemd, ulimit -n), or lower max_connections\n", most, fit)
	}
	if !online {
		return nil
	}
	return errors.Join(c.checkEndpoint(ctx, cfg), c.checkOnline(ctx, cfg))
}

// checkOnline calls FreeAgent for each account through a proxy: the running one, or one of its
// own for as long as the check takes. Either way the calls are counted and the token stays in.
func (c *command) checkOnline(ctx context.Context, cfg Config) error {
	if cfg.Store.Redis.given() {
		if err := c.checkRedis(ctx, cfg); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	g, release, err := openGrants(ctx, cfg)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	running, busy := g.(*control)
	if err := errors.Join(proveAll(ctx, cfg, g), release()); err != nil {
		return err
	}
	if busy {
		fmt.Fprintln(c.stdout, "store: fine, in use by the running proxy")
		return c.checkAccounts(ctx, cfg, running.http.Transport)
	}
	fmt.Fprintln(c.stdout, "store: fine")
	return c.checkWithOwnProxy(ctx, cfg)
}

// proveAll makes sure that every account's grant could be kept.
func proveAll(ctx context.Context, cfg Config, g grants) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Accounts)) {
		if err := g.Prove(ctx, name); err != nil {
			problems = append(problems, fmt.Errorf("store, for account %s: %w", name, err))
		}
	}
	return errors.Join(problems...)
}

func (c *command) checkWithOwnProxy(ctx context.Context, cfg Config) error {
	cfg, err := cfg.besideServe()
	if err != nil {
		return err
	}
	cfg.Listen, cfg.Admin.Listen, cfg.Clients, cfg.TLS = []string{"127.0.0.1:0"}, "127.0.0.1:0", nil, ServerTLSConfig{}
	s, err := newServer(ctx, cfg, zap.NewNop())
	if err != nil {
		return err
	}
	stop := s.start(ctx)
	address := s.listen[0].Addr().String()
	return errors.Join(c.checkAccounts(ctx, cfg, &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		},
		DisableKeepAlives: true,
	}), stop())
}

// checkAccounts asks FreeAgent for each account's company, by way of the proxy that the transport leads to.
func (c *command) checkAccounts(ctx context.Context, cfg Config, transport http.RoundTripper) error {
	client := &http.Client{Timeout: cfg.Limits.MaxWait + cfg.Upstream.Timeout, Transport: transport}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Accounts)) {
		began := time.Now()
		if err := askCompany(ctx, client, name, cfg.Accounts[name].Practice); err != nil {
			problems = append(problems, fmt.Errorf("account %s: %w", name, err))
			continue
		}
		fmt.Fprintf(c.stdout, "account %s: fine (FreeAgent answered in %s)\n", name, time.Since(began).Round(time.Millisecond))
	}
	return errors.Join(problems...)
}

// askCompany asks for the account's company or, of a practice, which has none, for the practice.
func askCompany(ctx context.Context, client *http.Client, account string, practice bool) error {
	what := "company"
	if practice {
		what = "practice"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/accounts/"+account+"/v2/"+what, nil)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the proxy: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return fmt.Errorf("status %d: %s", resp.StatusCode, complaint(body))
}

// complaint is the sentence of an error in FreeAgent's shape, which the proxy's own have, too; else the whole body.
func complaint(body []byte) string {
	var shape struct {
		Errors struct {
			Error struct{ Message string }
		}
	}
	if json.Unmarshal(body, &shape) == nil && shape.Errors.Error.Message != "" {
		return oneLine(shape.Errors.Error.Message, maxComplaint)
	}
	return oneLine(string(body), maxComplaint)
}
