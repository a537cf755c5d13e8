package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"freeagent-proxy/internal/admin"
)

func (c *command) statusCommand() *cobra.Command {
	var asJSON bool
	cmd := c.configFlag(&cobra.Command{
		Use:   "status",
		Short: "Ask the running proxy how it stands: accounts, limits, store, recent trouble",
		Long: `Asks the running proxy at admin.listen, with the admin password if one is configured, and prints how it
stands. Queue and recent trouble are that one process's own; all else holds for all that share its store.

Exits with 0 whenever the proxy answers, ready or not, and with 1 if none does. For a probe use healthcheck, or GET /readyz.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.status(cmd.Context(), asJSON) },
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the answer of /api/status as it is; see docs/status.md")
	return cmd
}

func (c *command) status(ctx context.Context, asJSON bool) error {
	cfg, wrong, err := c.runningConfig()
	if err != nil {
		return err
	}
	if mistakes := (*configError)(nil); errors.As(wrong, &mistakes) && mistakes.concerns("admin") {
		return wrong // whoever listens at the default address may be another proxy, and must not get the password
	}
	answer, err := askStatus(ctx, cfg)
	if err != nil {
		return errors.Join(wrong, err)
	}
	var now admin.Status
	if err := json.Unmarshal(answer, &now); err != nil {
		return fmt.Errorf("what answers on admin.listen is no freeagent-proxy, or one of another version: %w", err)
	}
	if !asJSON {
		answer = statusText(&now)
	}
	if _, err := c.stdout.Write(answer); err != nil {
		return err
	}
	c.noteWrong(wrong)
	return nil
}

// askStatus is the running proxy's answer.
func askStatus(ctx context.Context, cfg Config) ([]byte, error) {
	password := cfg.Admin.Password.Reveal()
	status, body, err := askRunning(ctx, cfg, "/api/status", password)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusOK:
		return body, nil
	case (status == http.StatusUnauthorized || status == http.StatusForbidden) && password == "":
		return nil, errors.New("the running proxy wants the admin password, and this configuration names none; give this command the proxy's configuration, with what admin.password_env or admin.password_file names")
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return nil, errors.New("the running proxy does not take the admin password; what admin.password_env or admin.password_file names must hold what it holds for the proxy")
	default:
		return nil, fmt.Errorf("what answers on admin.listen says %d: %s", status, oneLine(string(body), maxComplaint))
	}
}
