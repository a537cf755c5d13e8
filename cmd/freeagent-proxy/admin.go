package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// readiness is what /readyz says beside the accounts' state.
type readiness struct{ closing atomic.Bool }

func (r *readiness) shut() { r.closing.Store(true) }

// adminHandler serves the operator: /healthz says that we live, /readyz that requests would be
// answered, /metrics what Prometheus keeps.
func (s *server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if reason := s.notReady(); reason != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, reason)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", s.metricsHandler())
	mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(s.status())
	})
	return mux
}

// notReady says why requests could not be served now, or nothing. It does not wait: an access token that
// has ended while nobody called is renewed behind the answer, so that the next probe finds one.
func (s *server) notReady() string {
	if s.ready.closing.Load() {
		return "shutting down"
	}
	names := slices.Sorted(maps.Keys(s.config().Accounts))
	if fallback, ok := s.config().DefaultAccount(); ok {
		names = []string{fallback}
	}
	var reason string
	for _, name := range names {
		if _, ok := s.tokens.TokenNow(name); ok && s.tokens.Status(name).Usable {
			return ""
		}
		go s.warm(name)
		if reason == "" {
			reason = fmt.Sprintf("account %s: %s", name, cmp.Or(s.tokens.Status(name).Reason, "getting an access token"))
		}
	}
	return reason
}

// warm gets an account a token if it can have one. The manager sees to it that many calls cost one refresh.
func (s *server) warm(account string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = s.tokens.Token(ctx, account)
}
