package main

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"freeagent-proxy/internal/outcomes"
	"freeagent-proxy/internal/turns"
	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
	"freeagent-proxy/tokens"
)

func (c *command) serveCommand() *cobra.Command {
	return c.configFlag(&cobra.Command{
		Use:   "serve",
		Short: "Run the proxy",
		Long: `Runs the proxy until SIGINT or SIGTERM. Without a configuration file it serves one account
named "default", from FREEAGENT_CLIENT_ID, FREEAGENT_CLIENT_SECRET and, if set, FREEAGENT_REFRESH_TOKEN and
FREEAGENT_BASE_URL.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.serve(cmd.Context()) },
	})
}

func (c *command) serve(ctx context.Context) error {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	if c.getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	log, flush := newLogger(c.stderr, cfg.Log)
	defer flush()
	defer outliveHangups(log)()
	// net/http's transport tells the global logger what it finds odd about answers.
	restore, err := zap.RedirectStdLogAt(log, zap.DebugLevel)
	if err != nil {
		return fmt.Errorf("redirect the standard logger: %w", err)
	}
	defer restore()
	log.Info("starting", zap.String("version", version), zap.Stringer("upstream", cfg.Upstream.BaseURL),
		zap.String("store", cfg.Store.name()), zap.Int("accounts", len(cfg.Accounts)))
	s, err := newServer(ctx, cfg, log)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// gcPercent lets the heap grow to five times what lives on it, which is a few megabytes: collecting at
// Go's default of twice costs more CPU than the proxy's own work on a request. Request bodies, the only
// large thing on the heap, are bounded by package proxy.
const gcPercent = 400

// server is a running proxy: the parts, in the order in which they are made.
type server struct {
	cfg     Config
	log     logbook
	store   tokens.Store
	watch   func(context.Context) // hears of what other processes store; nil: there are none
	limiter interface {
		proxy.Limiter
		UsedBy(b limiter.Budget) []map[string]int
		PausedUntil(key string) time.Time
		Waiting(key string) int
		Close() error
	}
	turns interface {
		proxy.Turns
		Close(ctx context.Context) error
	}
	tokens  *tokens.Manager
	proxy   *proxy.Proxy
	http    []*http.Server
	listen  []net.Listener // one for each of http
	httpLog *stdlog.Logger
	ready   readiness

	outcomes *outcomes.Book // of writes with an Idempotency-Key
}

// newServer builds the parts and binds the listeners; run serves them.
func newServer(ctx context.Context, cfg Config, log *zap.Logger) (_ *server, err error) {
	s := &server{cfg: cfg, log: logbook{log, newCounts(cfg)}}
	if s.httpLog, err = zap.NewStdLogAt(log, zap.DebugLevel); err != nil {
		return nil, fmt.Errorf("make the HTTP servers' log: %w", err)
	}
	defer func() {
		if err != nil {
			s.close(ctx)
		}
	}()
	for _, note := range cfg.Notes {
		log.Warn("configuration note", zap.String("note", note))
	}
	if err = s.openStores(); err != nil {
		return nil, err
	}
	s.tokens = tokens.New(tokens.Config{
		Store:    s.store,
		Endpoint: newEndpoint(cfg),
		App:      s.app,
		Permit:   s.refreshPermit,
		Observe:  observeTokens(s.log),
		Alone:    cfg.Store.Redis.given() && cfg.Limits.Replicas == 1,
	})
	s.proxy = s.newProxy()
	if err = s.bind(); err != nil {
		return nil, err
	}
	return s, withWayOut(s.loadGrants(ctx))
}

// openStores makes what must survive this process: the grants, and what was used of the limits.
func (s *server) openStores() (err error) {
	if s.cfg.Store.Redis.given() {
		return s.openShared()
	}
	if s.store, err = openStore(s.cfg); err != nil {
		return err
	}
	local, err := limiter.NewLocal(limiter.Config{
		Guard:   s.cfg.Limits.Guard,
		Journal: filepath.Join(s.cfg.Store.File, "limits"),
		Observe: observeLimiter(s.log),
	})
	if err != nil {
		return err
	}
	s.limiter = local
	s.turns = turns.NewLocal()
	s.outcomes, err = outcomes.OpenFile(filepath.Join(s.cfg.Store.File, "writes"), s.outcomesConfig())
	return err
}

func (s *server) app(account string) (tokens.App, bool) {
	_, ok := s.cfg.Accounts[account]
	return s.cfg.app(account), ok
}

// refreshPermit is leave for one token request: FreeAgent allows an account 15 a minute, and
// counts them into those of our address.
func (s *server) refreshPermit(ctx context.Context, account string) (sent, release func(), err error) {
	wait := time.Minute
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	permit, err := s.limiter.Take(ctx, limiter.Request{
		Budgets: []limiter.Budget{
			{Key: "refresh/" + account, Windows: windows(s.cfg.Limits.Refresh)},
			proxy.EgressBudget(windows(s.cfg.Limits.Egress), 0),
		},
		Client:  "refresh",
		MaxWait: wait,
	})
	if err != nil {
		return nil, nil, err
	}
	return permit.Sent, permit.Release, nil
}

func windows(configured []WindowConfig) []limiter.Window {
	made := make([]limiter.Window, len(configured))
	for i, w := range configured {
		made[i] = limiter.Window{Requests: w.Requests, Per: w.Per}
	}
	return made
}

// loadGrants reads what is stored and takes in a seed. What cannot be read keeps nobody else from being
// served; it is tried again, and never overwritten. But if nothing can be read, we had better not start.
func (s *server) loadGrants(ctx context.Context) error {
	names := slices.Sorted(maps.Keys(s.cfg.Accounts))
	if err := s.tokens.Start(ctx, names); err != nil {
		var unread []tokens.Status
		read := 0
		for _, name := range names {
			switch status := s.tokens.Status(name); status.State {
			case tokens.StateTrouble:
				unread = append(unread, status)
			case tokens.StateOK:
				read++
			}
		}
		if s.cfg.Store.Redis.given() {
			s.log.Error("grants cannot be read from Redis; it is tried again until they can, see to Redis", zap.Error(err))
			unread = nil
		} else if read == 0 || ctx.Err() != nil {
			return err
		}
		for _, status := range unread {
			s.log.Error("a stored grant cannot be read; the other accounts are served. Put back the key or the file that the reason names",
				zap.String("account", status.Account), zap.String("reason", status.Reason))
		}
	}
	if seed := s.cfg.seed(); seed != "" {
		account, _ := s.cfg.DefaultAccount()
		if err := s.tokens.Seed(ctx, account, seed); err != nil {
			s.log.Error("FREEAGENT_REFRESH_TOKEN could not be compared with what is stored; see to the store, it is tried again",
				zap.String("account", account), zap.Error(err))
		}
	}
	return nil
}

// sealing is what both stores do.
type sealing interface{ Sealer() *tokens.Sealer }

// outcomesConfig is for either store.
func (s *server) outcomesConfig() outcomes.Config {
	return outcomes.Config{
		Sealer: s.store.(sealing).Sealer(), Degraded: observeOutcomes(s.log), WaitReplicas: s.cfg.Store.Redis.WaitReplicas,
	}
}

// newProxy builds the handler that programs talk to.
func (s *server) newProxy() *proxy.Proxy {
	hosts := slices.Clone(s.cfg.AllowedHosts)
	if s.cfg.PublicURL != nil {
		hosts = append(hosts, s.cfg.PublicURL.Host)
	}
	return proxy.New(proxy.Config{
		Upstream:  s.cfg.Upstream.BaseURL,
		Timeout:   s.cfg.Upstream.Timeout,
		UserAgent: s.cfg.Upstream.UserAgent,
		Version:   version,
		Accounts:  proxyAccounts(s.cfg),
		PublicURL: s.cfg.PublicURL,
		Hosts:     hosts,
		Clients:   proxyClients(s.cfg),
		MaxWait:   s.cfg.Limits.MaxWait,
		Egress:    windows(s.cfg.Limits.Egress),
		Tokens:    s.tokens,
		Limiter:   s.limiter,
		Log:       s.log.Logger,
		Sealer:    s.store.(sealing).Sealer(),
		Outcomes:  s.outcomes,

		OneAtATime:     s.cfg.Writes.OneAtATime,
		Turns:          s.turns,
		TrustedProxies: networks(s.cfg.TrustedProxies),
	})
}

// rateLimitTest is what FreeAgent allows who sends X-RateLimit-Test (https://dev.freeagent.com/docs/introduction).
var rateLimitTest = limiter.Window{Requests: 5, Per: time.Minute}

func proxyAccounts(cfg Config) []proxy.Account {
	fallback, _ := cfg.DefaultAccount()
	var accounts []proxy.Account
	for name, a := range cfg.Accounts {
		api := windows(cfg.Limits.API)
		if a.RateLimitTest {
			api = append(api, rateLimitTest)
		}
		accounts = append(accounts, proxy.Account{Name: name, Default: name == fallback, API: api, Practice: a.Practice, RateLimitTest: a.RateLimitTest})
	}
	return accounts
}

// start runs the server in the background; stop drains it and waits.
func (s *server) start(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

// run serves until ctx ends, then drains.
func (s *server) run(ctx context.Context) error {
	var serving errgroup.Group
	failed, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	for i, server := range s.http {
		serving.Go(func() error {
			err := serveOn(server, s.listen[i])
			if !errors.Is(err, http.ErrServerClosed) {
				fail(fmt.Errorf("serve on %s: %w", s.listen[i].Addr(), err))
			}
			return nil
		})
	}
	if s.watch != nil {
		serving.Go(func() error { s.watch(failed); return nil })
	}
	<-failed.Done()
	s.log.Info("shutting down; what was sent to FreeAgent is finished, what waits is answered 503")
	err := s.drain(context.WithoutCancel(ctx))
	_ = serving.Wait()
	if ctx.Err() == nil {
		return errors.Join(context.Cause(failed), err)
	}
	return err
}
