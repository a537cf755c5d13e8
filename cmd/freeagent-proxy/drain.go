package main

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

// drainMargin is what shutting down may take beyond the longest upstream call.
const drainMargin = 5 * time.Second

// drain ends in the order that loses nothing: no new connections, answers for all who wait, the
// answers of what was sent upstream, grants that are not stored yet, the limiter's state.
func (s *server) drain(ctx context.Context) error {
	s.ready.shut()
	s.proxy.Drain()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Upstream.Timeout+drainMargin)
	defer cancel()
	var ending sync.WaitGroup
	errs := make([]error, len(s.http)+2)
	for i, server := range s.http {
		ending.Go(func() { errs[i] = shutDown(ctx, server) })
	}
	ending.Go(func() { errs[len(s.http)] = s.limiter.Close() })
	ending.Go(func() { errs[len(s.http)+1] = s.tokens.Close(ctx) })
	ending.Wait()
	err := errors.Join(append(errs, s.closeOutcomes(ctx), s.store.Close())...)
	if err == nil {
		s.log.Info("stopped; nothing was left behind")
	} else {
		s.log.Error("stopped, but not everything could be finished", zap.Error(err))
	}
	return err
}

// closeOutcomes stores what became of writes, for as long as the margin at most: it is what must not be lost.
func (s *server) closeOutcomes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainMargin)
	defer cancel()
	return s.outcomes.Close(ctx)
}

// shutDown lets a server's requests finish until ctx ends, then cuts them off.
func shutDown(ctx context.Context, server *http.Server) error {
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(errors.New("requests were cut off"), server.Close())
	}
	return nil
}

// close undoes a newServer that failed half-way.
func (s *server) close(ctx context.Context) {
	for _, l := range s.listen {
		_ = l.Close()
	}
	if s.tokens != nil {
		_ = s.tokens.Close(ctx)
	}
	if s.limiter != nil {
		_ = s.limiter.Close()
	}
	if s.outcomes != nil {
		_ = s.outcomes.Close(ctx)
	}
	if s.store != nil {
		_ = s.store.Close()
	}
}
