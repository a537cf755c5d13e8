// Command freeagent-proxy lets programs call FreeAgent's API by plain HTTP, without
// a credential. It is the only package that knows all the others: flags, configuration, wiring.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Set by the linker; see the Makefile, and builtFrom for a binary that go build alone has made.
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
	os.Exit(run(ctx, os.Args[1:], environment(), os.Stdin, os.Stdout, os.Stderr))
}

// environment is os.Getenv, but that what systemd says to this process alone is taken out of what programs inherit that it may
// start: they would speak to systemd in our name.
func environment() (getenv func(string) string) {
	ours := map[string]string{}
	for _, name := range notifyVariables {
		ours[name] = os.Getenv(name)
		_ = os.Unsetenv(name)
	}
	return func(name string) string {
		if value, ok := ours[name]; ok {
			return value
		}
		return os.Getenv(name)
	}
}

// hangUps tells of each SIGHUP until stop is called, which then does not end the process any more. Several that come while one is dealt
// with are one. Windows has none.
func hangUps() (hangUps <-chan os.Signal, stop func()) {
	came := make(chan os.Signal, 1)
	signal.Notify(came, syscall.SIGHUP)
	return came, func() {
		signal.Stop(came)
		close(came)
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
	out := &output{Writer: stdout}
	c := &command{getenv: getenv, stdin: stdin, stdout: out, stderr: stderr}
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.err
	}
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

// output is where a command writes what it was asked for. What could not be written fails the command when it is over, so that none
// has to look: a key that is shown only once must not be lost in silence on a full disk.
type output struct {
	io.Writer
	err error // the first
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil {
		err = fmt.Errorf("the output could not be written: %w", err)
		o.err = cmp.Or(o.err, err)
	}
	return n, err
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
			return usageError{errors.New("name a command: " + "serve, authorize, accounts, clients, check, status, demo, simulate, keygen, healthcheck, version or completion")}
		},
	}
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(c.serveCommand(), c.authorizeCommand(), c.accountsCommand(), c.clientsCommand(), c.checkCommand(),
		c.statusCommand(), c.simulateCommand(), c.demoCommand(), c.keygenCommand(), c.healthcheckCommand(), c.versionCommand(), c.completionCommand(), c.manCommand())
	return root
}

const configUsage = "configuration `FILE` (default $FREEAGENT_PROXY_CONFIG, then config.yaml if present, then the environment alone)"

// configFlag adds --config to a command that reads the configuration.
func (c *command) configFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.configPath, "config", "", configUsage)
	completeFlag(cmd, "config", configurationFiles)
	return cmd
}

func (c *command) loadConfig() (Config, error) { return loadConfig(c.configPath, c.getenv) }

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && cmd.Flags().Lookup("config") != nil && !cmd.HasSubCommands() {
		return usageError{fmt.Errorf("%s takes no %q; a configuration file is named by --config FILE", cmd.Name(), args[0])}
	}
	return usage(cobra.NoArgs(cmd, args))
}

func oneArg(cmd *cobra.Command, args []string) error { return usage(cobra.ExactArgs(1)(cmd, args)) }

func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}
