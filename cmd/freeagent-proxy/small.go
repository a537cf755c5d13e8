package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
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
			_, err := fmt.Fprintf(c.stdout, "freeagent-proxy %s (commit %s, %s)\n", version, builtFrom(), runtime.Version())
			return err
		},
	}
}

// builtFrom is the commit that the binary was built from.
func builtFrom() string {
	info, _ := debug.ReadBuildInfo()
	return commitOf(commit, info)
}

// commitOf is what the linker was told, else what a plain go build in a clone notes by itself.
func commitOf(linked string, info *debug.BuildInfo) string {
	if linked != "unknown" || info == nil {
		return linked
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && s.Value != "" {
			return s.Value
		}
	}
	return linked
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
	cfg, wrong, err := c.runningConfig()
	if err != nil {
		return err
	}
	status, body, err := askRunning(ctx, cfg, "/healthz", "")
	if err != nil {
		return errors.Join(wrong, err)
	}
	if status != http.StatusOK {
		return errors.New("unhealthy: " + oneLine(string(body), maxComplaint))
	}
	fmt.Fprintln(c.stdout, "healthy")
	c.noteWrong(wrong)
	return nil
}

// runningConfig is the configuration for a command that only asks the running proxy. What is wrong with it is apart: a proxy that was
// started before the mistake runs on, and must be found just then.
func (c *command) runningConfig() (cfg Config, wrong, err error) {
	cfg, err = c.loadConfig()
	if mistakes := (*configError)(nil); errors.As(err, &mistakes) {
		return cfg, err, nil
	}
	return cfg, nil, err
}

// noteWrong says that the running proxy holds another configuration than the one that is written.
func (c *command) noteWrong(wrong error) {
	if wrong != nil {
		fmt.Fprintln(c.stderr, "note: the configuration, as it is here, has mistakes, `freeagent-proxy check` lists them; the proxy that runs goes on with another")
	}
}

const (
	// adminPatience is how long the running proxy may take to answer its operator.
	adminPatience = 5 * time.Second
	// maxAdminAnswer is the longest answer that is read, in bytes: some hundred accounts.
	maxAdminAnswer = 16 << 20
	// maxComplaint is how much of an answer that was not expected is shown, in characters.
	maxComplaint = 200
)

// askRunning asks the running proxy at admin.listen, with a password if there is one. No proxy that the environment names gets
// to see that.
func askRunning(ctx context.Context, cfg Config, path, password string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, adminPatience)
	defer cancel()
	address, err := located(ctx, cfg, cfg.Admin.Listen)
	if err != nil {
		return 0, nil, fmt.Errorf("no proxy tells the port that it got for admin.listen: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+reachable(address)+path, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the running proxy: %w", err)
	}
	if password != "" {
		req.SetBasicAuth("operator", password)
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		if asked := (*url.Error)(nil); errors.As(err, &asked) {
			err = asked.Err // it says whom
		}
		return 0, nil, fmt.Errorf("no proxy answers on admin.listen: %w; start it with serve, or name its configuration with --config", err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAdminAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("read the running proxy's answer: %w", err)
	}
	return resp.StatusCode, body, nil
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
