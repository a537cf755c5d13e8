package proxy

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
