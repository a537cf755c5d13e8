// Package simulator is FreeAgent as far as it is known, on a local port: its
// OAuth endpoints, its limits, its resources with their habits, its errors, and
// faults on request. It counts what arrives at the wire, so that a test can say
// what a client really did, and it is public (`freeagent-proxy simulate`): people
// test their own programs with it.
//
// Nobody has FreeAgent's source. What is documented or was recorded is built in;
// what is unknown, or told in two ways, is a switch in Config whose zero value
// is the likelier reading. docs/simulator.md lists them. Sources in comments: "docs"
// is dev.freeagent.com/docs, "thread" a thread of api-discuss.freeagent.com, "recorded"
// what sandbox cassettes of the freeagentrb library hold.
//
// A request below /v2 goes through the steps of serve: counted and limited when
// its headers have arrived (a limit protects the application from requests, not
// from what they carry), read whole, befallen by faults, answered. What an answer
// says is a value until it is sent, as JSON or XML; so a fault can let FreeAgent act
// and then change, delay or drop what it said. The log of requests and all
// counts are complete before the answer leaves.
//
// Everything below /_sim is the simulator's own: neither counted nor limited.
package simulator

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// Simulator is one FreeAgent. It is an http.Handler, safe for concurrent use.
type Simulator struct {
	initial  Config // what /_sim/reset goes back to
	cfg      atomic.Pointer[Config]
	changing sync.Mutex // held while cfg is replaced

	grants *grants
	meter  *meter
	log    *requestLog
	writes *writes
	faults *faults
	data   *data
	static *staticHeaders

	families   map[string]family // by name
	references map[string]string // attribute → family

	inFlight, maxInFlight atomic.Int64
	buffers               sync.Pool // *[]byte of copyBuffer
	gzips                 sync.Pool // *gzip.Writer
}

// New makes a simulator. It panics if a switch has a value that it cannot have,
// as that is a mistake in the program; Configure returns such an error.
func New(cfg Config) *Simulator {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		panic(fmt.Sprintf("simulator.New: %v", err))
	}
	s := &Simulator{
		initial: cfg,
		grants:  newGrants(),
		meter:   newMeter(cfg),
		log:     newRequestLog(cfg.RequestLog),
		writes:  newWrites(),
		faults:  &faults{},
		data:    newData(),
		static:  newStaticHeaders(),

		families: families(), references: referenceFields(),
	}
	s.cfg.Store(&cfg)
	return s
}

// ServeHTTP answers everything. It does not use http.ServeMux, which would
// redirect the doubled slashes that FreeAgent puts up with.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := foldSlashes(r.URL.EscapedPath())
	switch {
	case path == "/_sim" || strings.HasPrefix(path, "/_sim/"):
		s.control(w, r, path)
	case path == "/":
		about(w)
	default:
		s.serve(w, r, path)
	}
}

// serve is the life of a request to FreeAgent.
func (s *Simulator) serve(w http.ResponseWriter, r *http.Request, path string) {
	c := s.begin(w, r, path)
	defer s.inFlight.Add(-1)
	limit := s.count(c)
	if err := s.readBody(c); err != nil {
		hangUp() // the client broke off: there is nobody to answer
	}
	if limit == nil && c.path == tokenPath {
		limit = s.countRefresh(c)
	}
	if limit != nil {
		s.send(c, limit.reply())
		return
	}
	s.send(c, s.answer(c))
}

// answer lets the request be answered, and faults befall it. It does not return when there is no answer.
func (s *Simulator) answer(c *call) reply {
	p := s.faults.plan(c.r.Method, c.path)
	if kind := p.kind(); kind != "" {
		s.log.update(c.entry, func(e *Request) { e.Fault = kind })
	}
	c.sleep(p.before)
	if p.strikes(false) {
		return s.struck(c, *p.strike, reply{})
	}
	rep := s.act(c)
	s.log.update(c.entry, func(e *Request) { e.Acted = rep.acted })
	if c.r.Method == http.MethodPost && c.isAPI() {
		s.writes.record(c.write(), rep.acted)
	}
	c.sleep(p.after)
	if p.strikes(true) {
		return s.struck(c, *p.strike, rep)
	}
	return rep
}

// act is what FreeAgent itself does.
func (s *Simulator) act(c *call) reply {
	switch {
	case c.cfg.MaxBody > 0 && c.bodyBytes > c.cfg.MaxBody:
		return gatewayError(http.StatusRequestEntityTooLarge)
	case c.path == approvePath:
		return s.approve(c)
	case c.path == decisionPath:
		return s.decide(c)
	case c.path == tokenPath:
		return s.token(c)
	case c.isAPI():
		return s.resource(c)
	}
	return c.fail(notFound())
}

// Config returns the switches as they are now.
func (s *Simulator) Config() Config { return *s.cfg.Load() }

// Configure replaces all switches; change what Config returned. Windows that
// differ from before start a new count.
func (s *Simulator) Configure(cfg Config) error {
	return s.configure(func(Config) (Config, error) {
		cfg = cfg.withDefaults()
		return cfg, cfg.validate()
	})
}

func (s *Simulator) configure(change func(Config) (Config, error)) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	cfg, err := change(*s.cfg.Load())
	if err != nil {
		return err
	}
	s.meter.configure(cfg)
	s.log.resize(cfg.RequestLog)
	s.cfg.Store(&cfg)
	return nil
}

// Authorize makes a grant for user as if the person had approved, and returns
// its refresh token. Any client may use it; "" is Config.User.
func (s *Simulator) Authorize(user string) (refreshToken string) { return s.authorize(user).refresh }

// AccessToken makes a grant for user as Authorize does, and returns its access token.
func (s *Simulator) AccessToken(user string) string { return s.authorize(user).access }

func (s *Simulator) authorize(user string) pair {
	cfg := s.cfg.Load()
	if user == "" {
		user = cfg.User
	}
	return s.grants.authorize(user, "", cfg)
}

// RevokeAccess revokes the access tokens of a user, or of all users with "".
func (s *Simulator) RevokeAccess(user string) { s.grants.revoke(user, true, false) }

// RevokeRefresh revokes the refresh tokens of a user, or of all users with "".
func (s *Simulator) RevokeRefresh(user string) { s.grants.revoke(user, false, true) }

// RevokeAll revokes all tokens of a user, or of all users with "".
func (s *Simulator) RevokeAll(user string) { s.grants.revoke(user, true, true) }

// Fault arms a fault and returns its id.
func (s *Simulator) Fault(f Fault) (int, error) {
	f, err := s.faults.add(f)
	return f.ID, err
}

// Faults lists the armed faults with their hits.
func (s *Simulator) Faults() []Fault { return s.faults.snapshot() }

// ClearFaults removes all faults. A request that one of them holds is not let go.
func (s *Simulator) ClearFaults() { s.faults.clear(0) }

// Requests returns the logged requests after seq since; 0 for all that are kept.
func (s *Simulator) Requests(since int64) []Request { return s.log.since(since) }

// Stats returns what was counted since the last reset.
func (s *Simulator) Stats() Stats {
	stats := s.meter.stats()
	stats.InFlight, stats.MaxInFlight = s.inFlight.Load(), s.maxInFlight.Load()
	stats.FaultsApplied = s.faults.count(false)
	stats.Writes = s.writes.snapshot()
	return stats
}

// ResetStats begins a new count. The limits begin anew with it, as they count on the same arrivals.
func (s *Simulator) ResetStats() {
	s.meter.reset()
	s.writes.reset()
	s.faults.count(true)
	s.maxInFlight.Store(s.inFlight.Load())
}

// Reset makes it as new: switches, tokens, records, faults, counts and log.
func (s *Simulator) Reset() {
	// The switches it was made with are known to be valid.
	_ = s.Configure(s.initial)
	s.faults.clear(0)
	s.grants.reset()
	s.data.reset()
	s.log.clear()
	s.ResetStats()
}

// enter counts a request that is in flight from now on.
func (s *Simulator) enter() {
	n := s.inFlight.Add(1)
	for {
		most := s.maxInFlight.Load()
		if n <= most || s.maxInFlight.CompareAndSwap(most, n) {
			return
		}
	}
}

// foldSlashes turns //v2//company into /v2/company; a trailing slash goes too.
func foldSlashes(path string) string {
	if strings.Contains(path, "//") {
		path = "/" + strings.Join(strings.FieldsFunc(path, func(r rune) bool { return r == '/' }), "/")
	}
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	return path
}
