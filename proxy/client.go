package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Names that no configured client has.
const (
	Anonymous = "anonymous" // everyone who may connect, if no clients are configured
	Operator  = "operator"  // who comes in at the operator's own entrance
)

// Self is the name of another one: the proxy, which asks FreeAgent something itself; see ForSelf.
const Self = "freeagent-proxy"

// methods are FreeAgent's, and PATCH, which it does not document. A client that sends bytes
// after `Content-Length: 0` makes its next request begin with them ("nullDELETE"): refused, not forwarded.
var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch}

// freeAgentHosts are whom programs name that take us for an HTTP proxy, whichever upstream we have: FreeAgent's API
// and its sandbox (https://dev.freeagent.com/docs/introduction).
var freeAgentHosts = []string{"api.freeagent.com", "api.sandbox.freeagent.com"}

// admit keeps out what no program of ours sends: unknown methods, names that are
// not ours (DNS rebinding), and requests that a web page makes a browser send. A
// client that has shown a key or a certificate may call us by any name.
func (p *Proxy) admit(x *exchange, r *http.Request, shown bool) error {
	switch {
	case r.Method == http.MethodConnect:
		return errConnect
	case !slices.Contains(methods, r.Method):
		return errMethod
	case !shown && !p.answersTo(x, r):
		return errHost
	case isCrossSite(r):
		return errCrossSite
	}
	return nil
}

// answersTo reports whether the request's Host is one of ours. No Host at all is an
// HTTP/1.0 program, never a browser.
func (p *Proxy) answersTo(x *exchange, r *http.Request) bool {
	if r.Host == "" {
		return true
	}
	host := canonicalHost(r.Host)
	if isLoopbackHost(host) || x.settings.hosts[host] {
		return true
	}
	if isAbsolute(r.RequestURI) && (host == canonicalHost(p.config.Upstream.Host) || slices.Contains(freeAgentHosts, host)) {
		return true // a program that takes us for an HTTP proxy names whom it wants
	}
	return host == connectedTo(r)
}

func isLoopbackHost(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// connectedTo is the address of ours that the client dialled, without port.
func connectedTo(r *http.Request) string {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return ""
	}
	return canonicalHost(local.String())
}

// canonicalHost is a Host header's name alone: lower case, without port, brackets,
// zone and the root's trailing dot.
func canonicalHost(hostport string) string {
	host := hostport
	if strings.Contains(hostport, ":") {
		if h, _, err := net.SplitHostPort(hostport); err == nil {
			host = h
		}
	}
	host, _, _ = strings.Cut(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), "%")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// isCrossSite reports whether a browser says that another origin's page made it send the
// request. As in http.CrossOriginProtection, but for safe methods too: a page has no
// business in reading invoices either. One sign is enough, whatever the other one says. Programs send neither header.
func isCrossSite(r *http.Request) bool {
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "" && site != "same-origin" && site != "none" { // none: typed into the address bar
			return true
		}
	}
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		return false
	}
	origin, err := url.Parse(origins[0])
	return err != nil || len(origins) > 1 || !strings.EqualFold(origin.Host, r.Host)
}
