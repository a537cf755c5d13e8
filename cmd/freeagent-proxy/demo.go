package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"freeagent-proxy/internal/simulator"
)

// The demo's limits are FreeAgent's in miniature, so that pacing can be watched.
const (
	demoRequests = 20
	demoPer      = 2 * time.Second
	demoGuard    = 500 * time.Millisecond // on a busy machine a request may be so late at FreeAgent
	demoBurst    = 50
)

func (c *command) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show the main job against a simulated FreeAgent",
		Long: `Starts a simulated FreeAgent and an authorised proxy, sends real requests through it, step by
step, then stays up until SIGINT so that you can try by hand, the admin page in a browser included. It
needs nothing installed, and leaves nothing behind.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.demo(cmd.Context()) },
	}
}

func (c *command) demo(ctx context.Context) error {
	folder, err := os.MkdirTemp("", "freeagent-proxy-demo-*")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer os.RemoveAll(folder)
	perUser := []simulator.Window{{Requests: demoRequests, Per: simulator.Duration(demoPer)}}
	freeagent := simulator.New(simulator.Config{UserLimits: perUser})
	running, err := freeagent.Start("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer running.Close()
	upstream, err := url.Parse(running.URL())
	if err != nil {
		return fmt.Errorf("parse the simulator's address: %w", err)
	}
	cfg := demoConfig(upstream, folder, freeagent.Authorize("owner"))
	s, err := newServer(ctx, cfg, zap.NewNop())
	if err != nil {
		return err
	}
	stop := s.start(ctx)
	t := &tour{out: c.stdout, proxy: "http://" + s.listen[0].Addr().String(), freeagent: freeagent}
	err = t.run(ctx)
	if err == nil {
		t.invite(running.URL(), s.adminURL())
		<-ctx.Done()
		t.say("\nStopping.")
	}
	ended := stop()
	if ctx.Err() != nil {
		return nil // interrupted, which is how a demo ends
	}
	return errors.Join(err, ended)
}

// demoConfig is an operator's configuration of one account, with the store in folder.
func demoConfig(upstream *url.URL, folder, refreshToken string) Config {
	cfg := defaultConfig(func(string) string { return "" })
	cfg.Listen, cfg.Admin.Listen = []string{freeOr("127.0.0.1:8080")}, "127.0.0.1:0"
	cfg.Upstream.BaseURL = upstream
	cfg.Store.File = folder
	cfg.Apps = map[string]AppConfig{"demo": {ClientID: "demo", ClientSecret: newSecret("demo-secret")}}
	cfg.Accounts = map[string]AccountConfig{"demo": {App: "demo", Default: true}}
	cfg.Limits.API = []WindowConfig{{Requests: demoRequests, Per: demoPer}}
	cfg.Limits.Guard = demoGuard
	cfg.Seed = newSecret(refreshToken)
	return cfg
}

// freeOr is the address, or one with any port when that one is in use.
func freeOr(address string) string {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = listener.Close()
	return address
}

// tour is the guided run: a program's requests, and what FreeAgent saw of them.
type tour struct {
	out       io.Writer
	proxy     string
	freeagent *simulator.Simulator
	steps     int
}

func (t *tour) say(format string, args ...any) { fmt.Fprintf(t.out, format+"\n", args...) }

func (t *tour) step(title string) {
	t.steps++
	t.say("\n%d. %s", t.steps, title)
}

func (t *tour) run(ctx context.Context) error {
	t.say("A simulated FreeAgent and freeagent-proxy are running on this machine. What follows are real")
	t.say("requests of a program that has no FreeAgent credential, at")
	t.say("%s", t.proxy)
	for _, step := range []func(context.Context) error{t.list, t.create, t.cure, t.pace} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (t *tour) list(ctx context.Context) error {
	t.step("Read: the proxy attaches the access token")
	answer, err := t.ask(ctx, http.MethodGet, "/v2/contacts", "", http.StatusOK)
	if err != nil {
		return err
	}
	t.say("   program:   GET /v2/contacts, without an Authorization header")
	t.say("   FreeAgent: saw %s", t.lastAuthorization())
	t.say("   answer:    %d %s", answer.status, answer.body)
	return nil
}

func (t *tour) create(ctx context.Context) error {
	t.step("Write: the body arrives whole, the answer comes back")
	contact := `{"contact":{"first_name":"Ada","last_name":"Lovelace"}}`
	answer, err := t.ask(ctx, http.MethodPost, "/v2/contacts", contact, http.StatusCreated)
	if err != nil {
		return err
	}
	t.say("   program:   POST /v2/contacts %s", contact)
	t.say("   answer:    %d, Location: %s", answer.status, answer.header.Get("Location"))
	return nil
}

func (t *tour) cure(ctx context.Context) error {
	t.step("Cure: FreeAgent revokes the access token behind the proxy's back")
	before := t.freeagent.Stats()
	t.freeagent.RevokeAccess("owner")
	answer, err := t.ask(ctx, http.MethodGet, "/v2/company", "", http.StatusOK)
	if err != nil {
		return err
	}
	after := t.freeagent.Stats()
	t.say("   program:   GET /v2/company")
	t.say("   FreeAgent: times that it answered 401: %d; tokens that it then issued: %d",
		after.Unauthorized-before.Unauthorized, after.Tokens.Refreshes-before.Tokens.Refreshes)
	t.say("   answer:    %d: the proxy renewed the token and sent the request again; the program saw no 401", answer.status)
	return nil
}

func (t *tour) pace(ctx context.Context) error {
	t.step(fmt.Sprintf("Pace: %d requests at once, where FreeAgent allows %d in %s", demoBurst, demoRequests, demoPer))
	before := t.freeagent.Stats().RateLimited
	began := time.Now()
	asking, ctx := errgroup.WithContext(ctx)
	for range demoBurst {
		asking.Go(func() error {
			_, err := t.ask(ctx, http.MethodGet, "/v2/company", "", http.StatusOK)
			return err
		})
	}
	if err := asking.Wait(); err != nil {
		return err
	}
	stats := t.freeagent.Stats()
	t.say("   answers:   %d times 200, in %s: the proxy lets them wait for their turn", demoBurst, time.Since(began).Round(100*time.Millisecond))
	t.say("   FreeAgent: at most %d requests in any %s, and %d times 429", stats.Users[0].Windows[0].MaxSliding, demoPer, stats.RateLimited-before)
	return nil
}

// invite ends the tour.
func (t *tour) invite(freeagent, page string) {
	t.say("\nNow try it yourself:\n")
	t.say("   curl -i %s/v2/contacts", t.proxy)
	t.say("\nThe admin page, in a browser on this machine: how the account stands, what is left of the")
	t.say("limits and who spent it, and the button that connects the account to FreeAgent:\n")
	t.say("   %s", page)
	t.say("\nWhat the simulated FreeAgent has counted:\n")
	t.say("   curl %s/_sim/stats", freeagent)
	t.say("\nREADME.md says how to start with the real FreeAgent. Press Ctrl-C to stop.")
}

// answer is what the program got.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends one request and insists on the status that shows the job done.
func (t *tour) ask(ctx context.Context, method, path, body string, want int) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, t.proxy+path, strings.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("make the demo's request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("send the demo's request: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return answer{}, fmt.Errorf("read the demo's answer: %w", err)
	}
	var compact bytes.Buffer
	if json.Compact(&compact, text) == nil {
		text = compact.Bytes()
	}
	if resp.StatusCode != want {
		return answer{}, fmt.Errorf("%s %s: status %d, want %d: %s", method, path, resp.StatusCode, want, text)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}, nil
}

// lastAuthorization is what the last request carried, without the token.
func (t *tour) lastAuthorization() string {
	seen := t.freeagent.Requests(0)
	scheme, token, _ := strings.Cut(seen[len(seen)-1].Header.Get("Authorization"), " ")
	return fmt.Sprintf("Authorization: %s, with a token of %d characters", scheme, len(token))
}
