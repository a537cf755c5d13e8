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
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"freeagent-proxy/internal/outcomes"
	"freeagent-proxy/internal/tracing"
	"freeagent-proxy/internal/turns"
	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
	"freeagent-proxy/tokens"
)

func (c *command) serveCommand() *cobra.Command {
	return c.configFlag(&cobra.Command{
		Use:   "serve",
		Short: "Run the proxy",
		Long: `Runs the proxy until SIGINT or SIGTERM. SIGHUP makes it read its configuration anew.

Programs connect to listen (127.0.0.1:8080). A browser on admin.listen (http://127.0.0.1:8081/) shows how it
stands, and connects accounts to FreeAgent.

Without a configuration file it serves one account named "default", from FREEAGENT_CLIENT_ID,
FREEAGENT_CLIENT_SECRET and, if set, FREEAGENT_REFRESH_TOKEN and FREEAGENT_BASE_URL.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.serve(cmd.Context()) },
	})
}

func (c *command) serve(ctx context.Context) error {
	hangUps, stopHangUps := hangUps()
	load := c.pinConfig()
	cfg, err := load()
	if err != nil {
		stopHangUps()
		return err
	}
	if c.getenv("GOGC") == "" && c.getenv("GOMEMLIMIT") == "" {
		ballast := make([]byte, ballast)
		defer runtime.KeepAlive(ballast)
	}
	log, flush := newLogger(c.stderr, cfg.Log)
	defer flush()
	defer redirectStdLog(log.Logger)()
	log.Info("starting", zap.String("version", version), zap.Stringer("upstream", cfg.Upstream.BaseURL),
		zap.String("store", cfg.Store.name()), zap.Int("accounts", len(cfg.Accounts)))
	s, err := newServer(ctx, cfg, log.Logger)
	if err != nil {
		stopHangUps()
		return err
	}
	s.access = log.access
	s.notify = newNotifier(c.getenv, log.Logger)
	r := &reloader{server: s, load: load, level: log.level}
	var reloading sync.WaitGroup
	reloading.Go(func() { r.run(hangUps) })
	defer reloading.Wait()
	defer stopHangUps()
	return s.run(ctx)
}

// ballast, in bytes, is never touched, so that it takes up no memory, but Go's collector, which runs whenever the heap has doubled,
// counts it. Over the few megabytes that live on the heap it would run every few hundred requests, which costs more CPU than the
// proxy's own work on them. The garbage of many accounts or of long bodies is no more for it.
const ballast = 32 << 20

// server is a running proxy: the parts, in the order in which they are made.
type server struct {
	current atomic.Pointer[Config] // see config
	log     logbook
	store   tokens.Store
	watch   func(context.Context) // hears of what other processes store; nil: there are none
	limiter interface {
		proxy.Limiter
		Statement(b limiter.Budget) limiter.Statement
		InUse(most int, match func(key string) bool) []string
		UsedBy(b limiter.Budget) []map[string]int
		PausedUntil(key string) time.Time
		Waiting(key string) int
		Standings() []limiter.Standing
		Close() error
	}
	turns interface {
		proxy.Turns
		Close(ctx context.Context) error
	}
	tokens   *tokens.Manager
	proxy    *proxy.Proxy
	http     []*http.Server
	listen   []net.Listener // one for each of http
	httpLog  *stdlog.Logger
	access   *accessLog                   // nil: there is none
	operator *http.Server                 // of http: the operator's, which ends last
	admin    net.Addr                     // of the operator's listener
	page     atomic.Pointer[http.Handler] // what it shows
	exposed  http.Handler                 // /metrics
	gates    []*gate                      // of those for programs
	ready    readiness
	warming  warming

	outcomes *outcomes.Book // of writes with an Idempotency-Key

	started      time.Time
	incidents    *incidents
	names        *companyNames
	certificates *certificates     // nil: programs reach us without TLS
	own          map[string]string // the listeners of clients' own, by client: as they were bound
	reloads      *reloads
	notify       *notifier         // nil: nobody wants to know
	tracing      *tracing.Provider // nil: off
}

// config is the configuration that holds now. Of a request, or of one look at it, it is asked once.
func (s *server) config() Config { return *s.current.Load() }

// newServer builds the parts and binds the listeners; run serves them.
func newServer(ctx context.Context, cfg Config, log *zap.Logger) (_ *server, err error) {
	s := &server{started: time.Now(), incidents: new(incidents), own: map[string]string{}, reloads: newReloads()}
	s.current.Store(&cfg)
	log = s.incidents.keep(log)
	s.names = &companyNames{ask: func(ctx context.Context, account string) (string, error) {
		return askCompanyName(ctx, s.proxy.ForSelf(), account)
	}}
	s.log = logbook{log, newCounts(cfg)}
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
		Observe:  s.observeGrants(),
		Alone:    cfg.Store.Redis.given() && cfg.Limits.Replicas == 1,
	})
	s.openTracing()
	s.proxy = proxy.New(s.proxyConfig())
	if err = s.bind(); err != nil {
		return nil, err
	}
	return s, withWayOut(s.loadGrants(ctx))
}

// openStores makes what must survive this process: the grants, and what was used of the limits.
func (s *server) openStores() (err error) {
	if s.config().Store.Redis.given() {
		return s.openShared()
	}
	if s.store, err = openStore(s.config()); err != nil {
		return err
	}
	local, err := limiter.NewLocal(limiter.Config{
		Guard:   s.config().Limits.Guard,
		Journal: filepath.Join(s.config().Store.File, "limits"),
		Observe: observeLimiter(s.log),
	})
	if err != nil {
		return err
	}
	s.limiter = local
	s.turns = turns.NewLocal()
	s.outcomes, err = outcomes.OpenFile(filepath.Join(s.config().Store.File, "writes"), s.outcomesConfig())
	return err
}

func (s *server) app(account string) (tokens.App, bool) {
	cfg := s.config()
	_, ok := cfg.Accounts[account]
	return cfg.app(account), ok
}

// refreshPermit is leave for one token request: FreeAgent allows an account 15 a minute, and
// counts them into those of our address.
func (s *server) refreshPermit(ctx context.Context, account string) (sent, release func(), err error) {
	wait := time.Minute
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	limits := s.config().Limits
	permit, err := s.limiter.Take(ctx, limiter.Request{
		Budgets: []limiter.Budget{
			refreshBudget(account, windows(limits.Refresh)),
			proxy.EgressBudget(windows(limits.Egress), 0),
		},
		Client:  "refresh",
		MaxWait: wait,
	})
	if err != nil {
		return nil, nil, err
	}
	return permit.Sent, permit.Release, nil
}

// refreshBudget is the budget of an account's token requests.
func refreshBudget(account string, windows []limiter.Window) limiter.Budget {
	return limiter.Budget{Key: "refresh/" + account, Windows: windows}
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
	names := slices.Sorted(maps.Keys(s.config().Accounts))
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
		if s.config().Store.Redis.given() {
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
	if seed := s.config().seed(); seed != "" {
		account, _ := s.config().DefaultAccount()
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
		Sealer: s.store.(sealing).Sealer(), Degraded: observeOutcomes(s.log), WaitReplicas: s.config().Store.Redis.WaitReplicas,
	}
}

// proxyConfig is what the handler is made of that programs talk to.
func (s *server) proxyConfig() proxy.Config {
	cfg := s.config()
	return proxy.Config{
		Upstream:  cfg.Upstream.BaseURL,
		Timeout:   cfg.Upstream.Timeout,
		UserAgent: cfg.Upstream.UserAgent,
		Version:   version,
		Accounts:  proxyAccounts(cfg),
		PublicURL: cfg.PublicURL,
		Hosts:     cfg.hosts(),
		Clients:   proxyClients(cfg),
		MaxWait:   cfg.Limits.MaxWait,
		Egress:    windows(cfg.Limits.Egress),
		Tokens:    s.tokens,
		Limiter:   s.limiter,
		Log:       s.log.Logger,
		Served:    s.served,
		Sealer:    s.store.(sealing).Sealer(),
		Now:       s.store.Now,
		Outcomes:  s.outcomes,

		OneAtATime:     cfg.Writes.OneAtATime,
		Turns:          s.turns,
		TrustedProxies: networks(cfg.TrustedProxies),
		Tracer:         s.tracer(),
	}
}

// served tells all who count or report what became of a request. It is called for each of them: nothing may wait, or allocate.
func (s *server) served(r *proxy.Served) {
	s.access.write(r)
	s.incidents.served(r)
	s.log.counts.request(r)
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
	defer s.notify.attend(s.standing)()
	<-failed.Done()
	defer s.notify.stopping()()
	s.log.Info("shutting down; what was sent to FreeAgent is finished, what waits is answered 503")
	err := s.drain(context.WithoutCancel(ctx))
	_ = serving.Wait()
	if ctx.Err() == nil {
		return errors.Join(context.Cause(failed), err)
	}
	return err
}
