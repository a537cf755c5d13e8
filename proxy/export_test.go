package proxy

import (
	"net/http"

	"freeagent-proxy/limiter"
)

// RateLimitHeaders is what a client is told of the budgets.
func RateLimitHeaders(from Limiter, api limiter.Budget, share ...limiter.Budget) func(http.Header) {
	l := newRateLimit(api, share...)
	return func(h http.Header) { l.tell(h, from) }
}

// What the fuzz tests call without a socket between.
var (
	PreferredWait = preferredWait
	RetryAfter    = retryAfter
	CanonicalHost = canonicalHost
)

// ParseTarget is parseTarget with its parts as results.
func ParseTarget(requestURI string) (account, path, query string, hasQuery bool, err error) {
	t, err := parseTarget(requestURI)
	return t.account, t.path, t.query, t.hasQuery, err
}
