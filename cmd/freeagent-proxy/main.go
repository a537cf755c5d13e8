// Command freeagent-proxy lets programs call FreeAgent's API by plain HTTP, without
// a credential. It is the only package that knows all the others: flags, configuration, wiring.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
)

// Set by the linker; see the Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

// Exit codes, a contract: 0 fine, 1 failed, 2 usage.
const (
	exitOK = iota
	exitFailed
	exitUsage
)

func main() {
	ctx, end := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		end()
		<-signals // whoever asks twice does not want to wait
		os.Exit(exitFailed)
	}()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// outliveHangups makes SIGHUP a line in the log, until stop is called. Whoever sends it to a server wants it to
// read its configuration anew, not to end amid its requests.
func outliveHangups(log *zap.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	var logging sync.WaitGroup
	logging.Go(func() {
		for range hangups {
			log.Warn("SIGHUP changes nothing: the configuration is read at the start only; restart to apply it")
		}
	})
	return func() {
		signal.Stop(hangups)
		close(hangups)
		logging.Wait()
	}
}

// command is what a subcommand may touch.
type command struct {
	getenv     func(string) string
	stdin      io.Reader
	stdout     io.Writer
	stderr     io.Writer
	configPath string
}

// usageError is a mistake in the command line, not in the work.
type usageError struct{ error }

// run is the whole program: everything it touches is handed to it, so that a test can.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &command{getenv: getenv, stdin: stdin, stdout: stdout, stderr: stderr}
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "freeagent-proxy: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintln(stderr, "Run `freeagent-proxy --help` for the commands, `freeagent-proxy COMMAND --help` for one.")
		return exitUsage
	}
	return exitFailed
}

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "freeagent-proxy",
		Short: "Call FreeAgent's API by plain HTTP, without a credential",
		Long: `freeagent-proxy stands between your programs and FreeAgent's API. They call it by
plain HTTP without a credential; it attaches the access token, renews it, and
paces all of them together under FreeAgent's limits.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{errors.New("name a command: " + "serve, authorize, accounts, clients, check, demo, simulate, keygen, healthcheck, version or completion")}
		},
	}
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(c.serveCommand(), c.authorizeCommand(), c.accountsCommand(), c.clientsCommand(), c.checkCommand(),
		c.simulateCommand(), c.demoCommand(), c.keygenCommand(), c.healthcheckCommand(), c.versionCommand(), c.completionCommand(), c.manCommand())
	return root
}

// configFlag adds --config to a command that reads the configuration.
func (c *command) configFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.configPath, "config", "",
		"configuration `FILE` (default $FREEAGENT_PROXY_CONFIG, then config.yaml if present, then the environment alone)")
	completeFlag(cmd, "config", configurationFiles)
	return cmd
}

func (c *command) loadConfig() (Config, error) { return loadConfig(c.configPath, c.getenv) }

func noArgs(cmd *cobra.Command, args []string) error { return usage(cobra.NoArgs(cmd, args)) }

func oneArg(cmd *cobra.Command, args []string) error { return usage(cobra.ExactArgs(1)(cmd, args)) }

func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}
