package proxy

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// notForUpstream are request headers that stop here: credentials and cookies of clients,
// what they say to us, and what would tell FreeAgent about the network behind us, or ask it to
// read one method as another; X-Forwarded-… and Sec-… (a browser's) are not listed one by one.
// Hop-by-hop headers are ReverseProxy's business, but for those that it puts back. A name with an underscore
// is dropped too, as nginx does: behind it an application would read X_Subdomain as X-Subdomain.
var notForUpstream = map[string]bool{
	"Authorization": true, "Cookie": true, "Cookie2": true, "X-Api-Key": true,
	"X-Freeagent-Account": true, "Prefer": true, "X-Request-Id": true,
	// Go's transport takes an idempotency key as leave to send a POST again by itself.
	"Idempotency-Key": true, "X-Idempotency-Key": true,
	"Expect": true, "Te": true, "Http2-Settings": true,
	"Forwarded": true, "Via": true, "X-Real-Ip": true, "True-Client-Ip": true, "X-Client-Ip": true, "X-Cluster-Client-Ip": true,
	"Origin": true, "Referer": true,
	"X-Http-Method-Override": true, "X-Http-Method": true, "X-Method-Override": true,
	"X-Original-Url": true, "X-Rewrite-Url": true,
}

// stopsHere says whether a header of FreeAgent's goes no further: HSTS would lock clients out of a plain-HTTP proxy, cookies are
// FreeAgent's load balancer's, and Proxy-Status, X-Request-Id and what is left of the budget are ours to say.
func stopsHere(name string) bool {
	switch name {
	case "Strict-Transport-Security", "Set-Cookie", "Alt-Svc", "Proxy-Status", "Proxy-Authenticate", requestIDHeader, replayedHeader,
		policyHeader, rateLimitHeader, "Ratelimit-Limit", "Ratelimit-Remaining", "Ratelimit-Reset":
		return true
	}
	return false
}

// FreeAgent's X-Request-Id travels under another name, since the client's has ours.
const requestIDHeader, theirRequestIDHeader = "X-Request-Id", "X-Freeagent-Request-Id"

// cleanRequest makes the headers that travel upstream. Authorization is set for each attempt.
func (p *Proxy) cleanRequest(h http.Header, rateLimitTest bool) {
	for name := range h {
		if notForUpstream[name] || strings.HasPrefix(name, "X-Forwarded") || strings.HasPrefix(name, "Sec-") || strings.Contains(name, "_") {
			delete(h, name)
		}
	}
	if !rateLimitTest {
		delete(h, "X-Ratelimit-Test")
	}
	if theirs := h.Get("User-Agent"); theirs == "" || p.config.UserAgent != "" {
		h["User-Agent"] = []string{p.userAgent(theirs)}
	}
}

// userAgent is never empty: FreeAgent requires one, and several clients send none.
func (p *Proxy) userAgent(theirs string) string {
	ours := p.config.UserAgent
	switch {
	case theirs == "" && ours == "":
		return "freeagent-proxy/" + p.config.Version
	case theirs == "" || ours == "":
		return theirs + ours
	default:
		return theirs + " " + ours
	}
}

// passHeaders gives the client what it gets of FreeAgent's headers.
func passHeaders(to, from http.Header) {
	for name, values := range from {
		if !stopsHere(name) {
			to[name] = values
		}
	}
	if theirs, ok := from[requestIDHeader]; ok {
		to[theirRequestIDHeader] = theirs
	}
}

// preferredWait reads `wait=N` (RFC 7240) from Prefer header lines, in seconds.
func preferredWait(lines []string) (time.Duration, bool) {
	for _, line := range lines {
		for preference := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			value, _, _ = strings.Cut(value, ";")
			seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 31)
			if err == nil {
				return time.Duration(seconds) * time.Second, true
			}
		}
	}
	return 0, false
}

// wantsXML reports whether the client speaks XML: by what it accepts most, or, when that leaves it
// open, by what it sends.
func wantsXML(r *http.Request) bool {
	accept := strings.ToLower(strings.Join(r.Header["Accept"], ","))
	xml, json := accepted(accept, "xml"), accepted(accept, "json")
	switch {
	case xml.q > 0 && json.q > 0:
		return xml.q > json.q || xml.q == json.q && xml.at < json.at
	case xml.q > 0:
		// A browser lists XML among many; a program that speaks it asks for it alone.
		return !strings.Contains(accept, "text/html")
	case json.q > 0:
		return false
	}
	return slices.ContainsFunc(r.Header["Content-Type"], func(v string) bool {
		return strings.Contains(strings.ToLower(v), "xml")
	})
}

// preference is how much a client likes a format (RFC 9110, section 12.4.2), and where in its list it says so.
type preference struct {
	q  float64 // 0: not at all
	at int
}

// accepted finds the media range of a format, such as "json", that an Accept header prefers.
func accepted(accept, format string) preference {
	var best preference
	at := 0
	for item := range strings.SplitSeq(accept, ",") {
		mediaRange, parameters, _ := strings.Cut(item, ";")
		if q := quality(parameters); strings.Contains(mediaRange, format) && q > best.q {
			best = preference{q, at}
		}
		at++
	}
	return best
}

// quality is the weight among a media range's parameters; 1 if it has none that can be read.
func quality(parameters string) float64 {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if strings.TrimSpace(name) != "q" {
			continue
		}
		if q, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
			return q
		}
	}
	return 1
}
