package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"freeagent-proxy/internal/admin"
	"freeagent-proxy/limiter"
	"freeagent-proxy/tokens"
)

// readiness is what /readyz says beside the accounts' state.
type readiness struct{ closing atomic.Bool }

func (r *readiness) shut() { r.closing.Store(true) }

// adminHandler serves the operator: the page, what probes ask, and what Prometheus keeps.
func (s *server) adminHandler() http.Handler {
	s.exposed = s.metricsHandler()
	s.renewPage()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*s.page.Load()).ServeHTTP(w, r) })
}

// renewPage makes the operator's page as the configuration that holds wants it. Whoever is at FreeAgent to connect an account has to
// begin anew, and it is forgotten who guessed passwords.
func (s *server) renewPage() {
	cfg := s.config()
	page := admin.New(admin.Config{
		Status:    func(_ context.Context, person bool) admin.Status { return s.status(person) },
		Begin:     s.beginConnect,
		Finish:    s.finishConnect,
		FreeAgent: cfg.Upstream.BaseURL,
		Password:  cfg.Admin.Password.Reveal(),
		PublicURL: cfg.Admin.PublicURL,
		Hosts:     cfg.hosts(),
		Source:    s.proxy.ClientAddress,
		Observe:   observeAdmin(s.log),
		Open: map[string]http.Handler{
			"/healthz": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") }),
			"/readyz":  http.HandlerFunc(s.readyz),
			"/metrics": s.exposed,
		},
	})
	s.page.Store(&page)
}

// samePage says whether the operator's page stays as it is.
func samePage(a, b Config) bool {
	return a.Admin.Password.Reveal() == b.Admin.Password.Reveal() && urlText(a.Admin.PublicURL) == urlText(b.Admin.PublicURL) && slices.Equal(a.hosts(), b.hosts())
}

func urlText(u *url.URL) string {
	if u == nil {
		return ""
	}
	return u.String()
}

// adminURL is where the operator's page is, on this machine.
func (s *server) adminURL() string { return "http://" + s.admin.String() + "/" }

func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if reason := s.notReady(); reason != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, reason)
		return
	}
	fmt.Fprintln(w, "ready")
}

// notReady says why requests could not be served now, or nothing. It does not wait: an access token that
// has ended while nobody called is renewed behind the answer, so that the next probe finds one.
func (s *server) notReady() string {
	if s.ready.closing.Load() {
		return "shutting down"
	}
	cfg := s.config()
	names := slices.Sorted(maps.Keys(cfg.Accounts))
	if fallback, ok := cfg.DefaultAccount(); ok {
		names = []string{fallback}
	}
	for _, name := range names {
		if _, ok := s.tokens.TokenNow(name); ok && s.tokens.Status(name).Usable {
			return s.notCounting()
		}
	}
	s.warmSome(names)
	return fmt.Sprintf("account %s: %s", names[0], cmp.Or(s.tokens.Status(names[0]).Reason, "getting an access token"))
}

// notCounting says why no request is sent although there are tokens, or nothing.
func (s *server) notCounting() string {
	if shared, ok := s.limiter.(*limiter.Redis); ok && !shared.Begun() {
		return "what was used of the limits is not known before Redis has been seen for some seconds; requests wait for that"
	}
	return ""
}

// maxWarm is how many accounts a token is got for at a time, where none is the default: any one makes the proxy ready, and there may be
// hundreds that nobody calls.
const maxWarm = 3

// warmSome gets tokens for some of the accounts that have none: those first that can have one, then those in trouble, then those that
// another process may have authorised; of those that are alike any, so that each has its turn.
func (s *server) warmSome(names []string) {
	order := []tokens.State{tokens.StateOK, tokens.StateTrouble}
	alike := map[tokens.State][]string{}
	for _, i := range rand.Perm(len(names)) {
		state := s.tokens.Status(names[i]).State
		if !slices.Contains(order, state) {
			order = append(order, state)
		}
		alike[state] = append(alike[state], names[i])
	}
	for _, state := range order {
		for _, name := range alike[state] {
			if !s.warm(name) {
				return
			}
		}
	}
}

// warming is the accounts that a token is being got for.
type warming struct {
	mu   sync.Mutex
	busy map[string]bool
}

// begin reports whether there is room for one more; begun: it was not among them.
func (w *warming) begin(account string) (begun, room bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.busy[account]:
		return false, true
	case len(w.busy) >= maxWarm:
		return false, false
	case w.busy == nil:
		w.busy = map[string]bool{}
	}
	w.busy[account] = true
	return true, true
}

func (w *warming) end(account string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.busy, account)
}

// warm gets an account a token, behind the caller's back, if it can have one. false: enough are being got. The manager sees to it
// that many calls cost one refresh; but each would wait for it, and anybody may probe, as often as he likes.
func (s *server) warm(account string) bool {
	begun, room := s.warming.begin(account)
	if begun {
		go func() {
			defer s.warming.end(account)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, _ = s.tokens.Token(ctx, account)
		}()
	}
	return room
}
