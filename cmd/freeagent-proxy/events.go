package main

import (
	"go.uber.org/zap"

	"freeagent-proxy/limiter"
	"freeagent-proxy/tokens"
)

// observeTokens logs what happens to accounts: once a change, with what to do where a person must act.
func observeTokens(log *zap.Logger) func(tokens.Event) {
	return func(e tokens.Event) {
		log := log.With(zap.String("account", e.Account))
		if e.Err != nil {
			log = log.With(zap.Error(e.Err))
		}
		if !e.Next.IsZero() {
			log = log.With(zap.Time("next_try", e.Next))
		}
		switch e.Kind {
		case tokens.EventRefused:
			log.Error("FreeAgent refuses the grant; run `freeagent-proxy authorize` for this account, or correct the app's client id and secret")
		case tokens.EventUnsaved:
			log.Error("the newest tokens could not be stored and serve from memory; see to the store before the proxy stops")
		case tokens.EventTrouble:
			log.Warn("no new token for now; the grant is kept and tried again")
		case tokens.EventSeedRefused:
			log.Warn("FreeAgent refuses the configured refresh token; the stored grant goes on. If the app's client id and secret are right, FREEAGENT_REFRESH_TOKEN can be unset")
		case tokens.EventSeedTrouble:
			log.Warn("the configured refresh token could not be tried, and is tried again; the stored grant goes on")
		case tokens.EventSuperseded:
			log.Warn("refreshed tokens were dropped, since the grant was replaced or removed meanwhile; nothing to do")
		default:
			log.Info("grant " + string(e.Kind))
		}
	}
}

// observeLimiter logs what happens to budgets.
func observeLimiter(log *zap.Logger) func(limiter.Event) {
	return func(e limiter.Event) {
		switch e.Kind {
		case limiter.BudgetPaused:
			log.Warn("FreeAgent answered 429 although we counted; another program seems to use the same FreeAgent user",
				zap.String("budget", e.Key), zap.Duration("pause", e.For))
		case limiter.JournalDamaged:
			log.Warn("the limiter's journal is damaged; requests wait as if its budgets were used up", zap.Error(e.Err))
		case limiter.JournalFailed:
			log.Error("the limiter's journal cannot be written; see to the disk, since a restart would forget what was used", zap.Error(e.Err))
		default:
			log.Info(string(e.Kind))
		}
	}
}
