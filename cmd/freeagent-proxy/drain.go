package main

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"freeagent-proxy/proxy"
)

// drainMargin is what shutting down may take beyond the longest upstream call.
const drainMargin = 5 * time.Second

// drain ends in the order that loses nothing: no new connections, answers for all who wait, the
// answers of what was sent upstream, grants that are not stored yet, the limiter's state. The operator sees it, and /readyz
// says it, until then.
func (s *server) drain(ctx context.Context) error {
	s.ready.shut()
	s.proxy.Drain()
	for _, w := range s.proxy.Unfinished() {
		s.log.Info("a write is at FreeAgent; its answer is waited for", about(w)...)
	}
	ctx, cancel := context.WithTimeout(ctx, s.config().Upstream.Timeout+drainMargin)
	defer cancel()
	var ending sync.WaitGroup
	errs := make([]error, len(s.http)+3)
	left := sync.OnceFunc(s.nameUnfinished)
	for i, server := range s.http {
		if server != s.operator {
			ending.Go(func() { errs[i] = shutDown(ctx, server, left) })
		}
	}
	ending.Go(func() { errs[len(s.http)] = s.limiter.Close() })
	ending.Go(func() { errs[len(s.http)+1] = s.tokens.Close(ctx) })
	ending.Go(func() { errs[len(s.http)+2] = s.turns.Close(ctx) })
	ending.Go(s.names.close)
	ending.Wait()
	err := errors.Join(append(errs, shutDown(ctx, s.operator, left), s.closeOutcomes(ctx), s.store.Close())...)
	s.closeTracing(ctx)
	if err == nil {
		s.log.Info("stopped; nothing was left behind")
	} else {
		s.log.Error("stopped, but not everything could be finished; see to what the error names before the next start", zap.Error(err))
	}
	return err
}

// nameUnfinished names the writes that are left when there is no more time: nobody else knows of them.
func (s *server) nameUnfinished() {
	for _, w := range s.proxy.Unfinished() {
		s.log.Error("a write is left without its answer; FreeAgent may have acted on it, so look before sending it again", about(w)...)
	}
}

// about is what the log says of a write, in the access log's words.
func about(w proxy.Write) []zap.Field {
	return []zap.Field{
		zap.String("request_id", w.RequestID), zap.String("client", w.Client), zap.String("account", w.Account),
		zap.String("method", w.Method), zap.String("path", w.Path), zap.Time("sent", w.Sent),
	}
}

// closeOutcomes stores what became of writes, for as long as the margin at most: it is what must not be lost.
func (s *server) closeOutcomes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainMargin)
	defer cancel()
	return s.outcomes.Close(ctx)
}

// shutDown lets a server's requests finish until ctx ends, then says so by left and cuts them off.
func shutDown(ctx context.Context, server *http.Server, left func()) error {
	if err := server.Shutdown(ctx); err != nil {
		left()
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
	if s.turns != nil {
		_ = s.turns.Close(ctx)
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
	s.closeTracing(ctx)
}
