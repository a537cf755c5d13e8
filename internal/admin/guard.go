package admin

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// Who may come in. Three rules hold on every address, loopback or not, and the password comes on top of them:
//   - The Host is one of ours. Else a web page could point a name of its own at us (DNS rebinding) and read along.
//   - What a browser marks as another site's doing is refused, but for following a link to the page, which tells the other site
//     nothing, and FreeAgent's redirect back, which brings a state that only this browser can have.
//   - What changes something must come from the page itself, and say so.

// contentPolicy lets a page load what is ours and nothing else. Browsers hold the redirects of a form against form-action, too, so it
// names where Connect leads; FreeAgent sends those who are not logged in on to another of its hosts.
func contentPolicy(freeAgent *url.URL) string {
	forms := "'self'"
	if freeAgent != nil {
		forms += " " + freeAgent.Scheme + "://" + freeAgent.Host
		const domain = "freeagent.com"
		if strings.HasSuffix(freeAgent.Hostname(), "."+domain) {
			forms += " https://*." + domain
		}
	}
	return "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
		"form-action " + forms + "; frame-ancestors 'none'; base-uri 'none'"
}

// protect sets what every answer carries.
func (h *handler) protect(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", h.policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
	if isLoopbackHost(canonicalHost(r.Host)) || h.isSecure(r) { // elsewhere browsers only complain of it
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
	}
}

// admit refuses who calls us by a foreign name, and what another site's page makes a browser send.
func (h *handler) admit(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case !h.answersTo(r):
		refuse(w, http.StatusMisdirectedRequest,
			"This is not one of the proxy's names. Use its address, or add the name to allowed_hosts or as admin.public_url in its configuration.")
	case isForeign(r, h.origins(r)) && !isNavigation(r):
		refuse(w, http.StatusForbidden, "A page of another site made this request. Open the proxy's own page and do it there.")
	default:
		return true
	}
	return false
}

// answersTo reports whether the request's Host is one of ours. Without one (HTTP/1.0) it is no browser.
func (h *handler) answersTo(r *http.Request) bool {
	if r.Host == "" {
		return true
	}
	host := canonicalHost(r.Host)
	if h.hosts[host] || isLoopbackHost(host) {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && host == canonicalHost(local.String())
}

func isLoopbackHost(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// canonicalHost is a name alone: lower case, without port, brackets, zone and the root's dot.
func canonicalHost(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host, _, _ = strings.Cut(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), "%")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// origins are those of the page: as this request reached it, and as browsers reach it through a reverse proxy, which may have put
// another Host.
func (h *handler) origins(r *http.Request) []string {
	origins := []string{"http://" + r.Host, "https://" + r.Host}
	if h.PublicURL != nil {
		origins = append(origins, h.PublicURL.String())
	}
	return origins
}

// isForeign reports whether a browser says that another origin's page made it send the request. One sign is enough. Another
// port of this machine is the same site to a browser, and another origin to us.
func isForeign(r *http.Request, ours []string) bool {
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "same-origin" && site != "none" { // none: typed, or a bookmark
			return true
		}
	}
	for _, origin := range r.Header["Origin"] {
		if !isOneOf(origin, ours) {
			return true
		}
	}
	return len(r.Header["Origin"]) > 1
}

func isOneOf(origin string, ours []string) bool {
	for _, own := range ours {
		if strings.EqualFold(origin, own) {
			return true
		}
	}
	return false
}

// isNavigation reports whether the browser is about to show the answer as a page of its own. Then nobody but its user sees it. By plain
// HTTP off loopback browsers do not say so; FreeAgent's redirect comes in all the same, if perhaps with FreeAgent's Origin, for it
// is worth nothing without this browser's state.
func isNavigation(r *http.Request) bool {
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	back := r.URL.Path == callbackPath
	return r.Method == http.MethodGet && (back || r.URL.Path == "/") && (mode == "navigate" && dest == "document" || back && mode == "")
}

// isOwn reports whether the browser says that our own page sent this. Programs that send neither header are none of those that
// press buttons.
func (h *handler) isOwn(r *http.Request) bool {
	said := r.Header.Get("Sec-Fetch-Site") == "same-origin" || r.Header.Get("Origin") != ""
	return said && !isForeign(r, h.origins(r))
}

// base is scheme and host by which the browser reached us. Its Host was found to be ours.
func (h *handler) base(r *http.Request) string {
	if p := h.PublicURL; p != nil && (canonicalHost(r.Host) == canonicalHost(p.Host) || r.Header.Get("Origin") == p.String()) {
		return p.String()
	}
	hostport := r.Host
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && hostport == "" {
		hostport = local.String() // HTTP/1.0
	}
	host := canonicalHost(hostport)
	if _, port, err := net.SplitHostPort(hostport); err == nil && port != "" {
		return "http://" + net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return "http://" + host
}
