package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"freeagent-proxy/tokens"
)

func (c *command) keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen",
		Short: "Print a new encryption key",
		Long:  "Prints 32 random bytes in standard base64, the form that encryption.keys takes.",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.stdout, tokens.NewKey())
			return err
		},
	}
}

func (c *command) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(c.stdout, "freeagent-proxy %s (commit %s, %s)\n", version, commit, runtime.Version())
			return err
		},
	}
}

func (c *command) healthcheckCommand() *cobra.Command {
	return c.configFlag(&cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the running proxy whether it lives; for a container's HEALTHCHECK",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return c.healthcheck(cmd.Context()) },
	})
}

func (c *command) healthcheck(ctx context.Context) error {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	address, err := located(ctx, cfg, cfg.Admin.Listen)
	if err != nil {
		return fmt.Errorf("no proxy tells the port that it got for admin.listen: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+reachable(address)+"/healthz", nil)
	if err != nil {
		return fmt.Errorf("ask the running proxy: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no proxy answers on admin.listen: %w", err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if resp.StatusCode != http.StatusOK {
		return errors.New("unhealthy: " + strings.TrimSpace(string(body)))
	}
	fmt.Fprintln(c.stdout, "healthy")
	return nil
}

// reachable is where to call what listens on an address: an unspecified one is every one of ours.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
