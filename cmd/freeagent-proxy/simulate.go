package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"freeagent-proxy/internal/simulator"
)

func (c *command) simulateCommand() *cobra.Command {
	var listen, switches string
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Run a simulated FreeAgent, to test programs with",
		Long: `Runs FreeAgent as far as it is known on a local port, until SIGINT or SIGTERM. Any client id and
secret will do, and any redirect URI on localhost. What is not known of FreeAgent is a switch: set
it here, or while it runs by POST /_sim/config. GET /_sim/ lists what else can be done.`,
		Example: `  freeagent-proxy simulate --listen 127.0.0.1:9000 --switches '{"rotation": "lenient", "auto_approve": true}'`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.simulate(cmd.Context(), listen, switches) },
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8090", "`ADDRESS` to listen on")
	cmd.Flags().StringVar(&switches, "switches", "{}", "switches as a `JSON` object, named as in POST /_sim/config")
	return cmd
}

func (c *command) simulate(ctx context.Context, listen, switches string) error {
	var cfg simulator.Config
	decoder := json.NewDecoder(strings.NewReader(switches))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&cfg); err != nil {
		return usageError{fmt.Errorf("--switches: %w", err)}
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return usageError{errors.New("--switches: more than one JSON object")}
	}
	freeagent := simulator.New(simulator.Config{})
	if err := freeagent.Configure(cfg); err != nil {
		return usageError{fmt.Errorf("--switches: %w", err)}
	}
	running, err := freeagent.Start(listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, `FreeAgent is simulated at
%s
What can be done with it: curl %[1]s/_sim/
To use it, run this, open http://127.0.0.1:8081/ in a browser, and press Connect:
FREEAGENT_BASE_URL=%[1]s FREEAGENT_CLIENT_ID=any FREEAGENT_CLIENT_SECRET=any freeagent-proxy serve
`, running.URL())
	<-ctx.Done()
	return running.Close()
}
