package main

import (
	"go.uber.org/zap"

	"freeagent-proxy/limiter"
	"freeagent-proxy/tokens"
)

// logbook is where events go: into the log, and into what /metrics counts.
type logbook struct {
	*zap.Logger
	counts *counts
}

// observeTokens tells what happens to accounts: once a change, with what to do where a person must act. What goes on as it was is
// told at level debug.
func observeTokens(log logbook) func(tokens.Event) {
	var told troubles
	return func(e tokens.Event) {
		log.counts.token(e)
		if told.again(e) {
			log.Debug("still so: "+string(e.Kind), zap.String("account", e.Account), zap.Error(e.Err), zap.Time("next_try", e.Next))
			return
		}
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
			log.Warn("no new token for now; the grant is kept and tried again. If it lasts, see to what the error names")
		case tokens.EventSeedRefused:
			log.Warn("FreeAgent refuses the configured refresh token; the stored grant goes on. If the app's client id and secret are right, FREEAGENT_REFRESH_TOKEN can be unset")
		case tokens.EventSeedTrouble:
			log.Warn("the configured refresh token could not be tried, and is tried again; the stored grant goes on. If it lasts, see to what the error names")
		case tokens.EventSuperseded:
			log.Warn("refreshed tokens were dropped, since the grant was replaced or removed meanwhile; nothing to do")
		default:
			log.Info("grant " + string(e.Kind))
		}
	}
}

// observeStore logs what does not work in Redis although nothing fails because of it.
func observeStore(log logbook) func(string, error) {
	return func(what string, err error) {
		log.counts.degraded.set(storePart(what), err != nil)
		if err == nil {
			log.Info("the store is whole again", zap.String("part", what))
			return
		}
		log.Warn("a part of the store does not work; grants are safe in the others, see to it", zap.String("part", what), zap.Error(err))
	}
}

// observeOutcomes tells whether what became of writes with an Idempotency-Key can be stored.
func observeOutcomes(log logbook) func(error) {
	return func(err error) {
		log.counts.degraded.set(partIdempotency, err != nil)
		if err == nil {
			log.Info("writes with an Idempotency-Key are served again; all outcomes are stored")
			return
		}
		log.Warn("outcomes of writes cannot be stored; those with an Idempotency-Key are refused until they can, see to the store", zap.Error(err))
	}
}

// observeLimiter tells what happens to budgets.
func observeLimiter(log logbook) func(limiter.Event) {
	return func(e limiter.Event) {
		log.counts.limit(e)
		switch e.Kind {
		case limiter.BudgetPaused:
			log.Warn("FreeAgent answered 429 although we counted; nothing is sent until it says. If it comes again, look for another program that uses the same FreeAgent user or address",
				zap.String("budget", e.Key), zap.Duration("pause", e.For))
		case limiter.BudgetShrunk:
			log.Warn("FreeAgent's limit was reached before ours: another program uses the same FreeAgent user; the budget shrinks to what is left, and grows back in ten minutes. Let that program call the proxy, too, or lower limits.api",
				zap.String("budget", e.Key))
		case limiter.RedisLost:
			log.Warn("Redis cannot be reached; this replica goes on within its share of the limits; see to Redis, since tokens cannot be renewed without it", zap.Error(e.Err))
		case limiter.ReplicaSilent:
			log.Warn("another replica cannot reach Redis and may go on alone; its share of the limits is left to it until it is back, for an hour at most; see to it")
		case limiter.JournalDamaged:
			log.Warn("the limiter's journal is damaged; requests wait as if its budgets were used up. Nothing to do, unless the disk fails", zap.Error(e.Err))
		case limiter.JournalFailed:
			log.Error("the limiter's journal cannot be written; see to the disk, since a restart would forget what was used", zap.Error(e.Err))
		default:
			log.Info(string(e.Kind))
		}
	}
}

// observeTurns tells when writes that happen one at a time do so in each process only.
func observeTurns(log logbook) func(error) {
	return func(err error) {
		log.counts.degraded.set(partOneAtATime, err != nil)
		if err == nil {
			log.Info("writes happen one at a time over all processes again")
			return
		}
		log.Warn("Redis cannot be asked whose turn it is; writes happen one at a time in each process, and FreeAgent may give two the same reference; see to Redis",
			zap.Error(err))
	}
}
