package proxy

import (
	"net/http"
	"net/netip"
)

// What the fuzz tests call without a socket between.
var (
	PreferredWait = preferredWait
	RetryAfter    = retryAfter
	CanonicalHost = canonicalHost
)

// ClientAddress is where a request with these header lines comes from.
func ClientAddress(trusted []netip.Prefix, remote string, header http.Header) netip.Addr {
	c := &clients{trusted: trusted}
	return c.address(&http.Request{RemoteAddr: remote, Header: header})
}

// ParseTarget is parseTarget with its parts as results.
func ParseTarget(requestURI string) (account, path, query string, hasQuery bool, err error) {
	t, err := parseTarget(requestURI)
	return t.account, t.path, t.query, t.hasQuery, err
}
