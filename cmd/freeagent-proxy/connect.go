package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"freeagent-proxy/internal/admin"
	"freeagent-proxy/tokens"
)

// provePatience is how long the admin page waits for the store to show that it could keep a grant.
const provePatience = 10 * time.Second

// beginConnect is admin.Config's Begin.
func (s *server) beginConnect(ctx context.Context, account, redirectURI, state string) (string, error) {
	app, ok := s.app(account)
	if !ok {
		return "", admin.ErrUnknown
	}
	if err := s.proveConnect(ctx, account); err != nil {
		return "", err
	}
	return newEndpoint(s.config()).ApproveURL(app, redirectURI, state), nil
}

// finishConnect is admin.Config's Finish. What it keeps serves here at once, and at the other replicas as soon as they hear of it.
func (s *server) finishConnect(ctx context.Context, account, redirectURI, code string) error {
	if err := s.proveConnect(ctx, account); err != nil { // the code is good for once
		return err
	}
	switch err := s.tokens.Exchange(ctx, account, code, redirectURI); {
	case errors.Is(err, tokens.ErrUnknownAccount):
		return admin.ErrUnknown
	case errors.Is(err, tokens.ErrClosed):
		return errors.New("the proxy is shutting down")
	case errors.Is(err, tokens.ErrReauthorize):
		return fmt.Errorf("%w: %w", admin.ErrRefused, err)
	case errors.Is(err, tokens.ErrUnavailable):
		return fmt.Errorf("%w: %w", admin.ErrTrouble, err)
	case errors.Is(err, tokens.ErrStore):
		return fmt.Errorf("%w: %w", admin.ErrUnsaved, err)
	default:
		return err
	}
}

// proveConnect is Prove, in the page's errors.
func (s *server) proveConnect(ctx context.Context, account string) error {
	ctx, cancel := context.WithTimeout(ctx, provePatience)
	defer cancel()
	if err := (writer{s.tokens, s.store}).Prove(ctx, account); err != nil {
		return fmt.Errorf("%w: %w", admin.ErrStore, err)
	}
	return nil
}

// observeAdmin tells what was done at the admin page, and from where.
func observeAdmin(log logbook) func(admin.Event) {
	return func(e admin.Event) {
		log := log.With(zap.Stringer("from", e.Source))
		if e.Account != "" {
			log = log.With(zap.String("account", e.Account))
		}
		if e.Err != nil {
			log = log.With(zap.Error(e.Err))
		}
		switch e.Kind {
		case admin.EventBegun:
			log.Info("the admin page sends its user to FreeAgent, to approve")
		case admin.EventConnected:
			log.Info("the account was connected by the admin page")
		case admin.EventNotConnected:
			log.Warn("the account was not connected by the admin page; press Connect again when what the error names is mended")
		case admin.EventWrongPassword:
			log.Warn("a wrong password at the admin page; if it was none of yours, see who that is, guesses are slowed down")
		}
	}
}
