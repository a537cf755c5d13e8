package proxy

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// urls rewrites the URLs of one exchange, both ways: FreeAgent's answers are full of absolute ones, which would lead
// programs around us, and what programs send back must name FreeAgent again. It knows one origin, the configured
// upstream, and finds it where a value begins with it. A nil urls rewrites nothing.
type urls struct {
	proxy   *Proxy
	public  *url.URL // how programs reach us, as configured; may be nil
	account string
	prefix  string // /accounts/NAME if the path chose the account, so that a rewritten URL does as well; else empty
	outward wanted // what is rewritten in answers: exactly what FreeAgent writes
	plain   rewrittenBody
	zipped  int // URLs that were rewritten in an answer that is zipped
}

// rewriter decides whether an exchange's URLs are rewritten, and to what the client's are.
func (p *Proxy) rewriter(x *exchange, r *http.Request, t target, c *client) *urls {
	if c.Passthrough {
		return nil
	}
	origin, prefix := p.clientOrigin(x, r), ""
	if t.account != "" {
		prefix = accountPrefix(t.account)
	}
	if origin == "" || origin+prefix == p.origin[0] {
		return nil
	}
	x.rewrite.proxy, x.rewrite.public, x.rewrite.account, x.rewrite.prefix = p, x.settings.publicURL, x.account, prefix
	x.rewrite.outward = wanted{origins: p.origin, with: origin + prefix}
	return &x.rewrite
}

func accountPrefix(name string) string { return "/accounts/" + name }

// clientOrigin is scheme and host by which the client reaches us; empty if that cannot be told, or cannot be
// written into JSON and XML as it is. A program that takes us for an HTTP proxy names
// FreeAgent; with http: it does not try to tunnel.
func (p *Proxy) clientOrigin(x *exchange, r *http.Request) string {
	host, scheme := clientHost(r), "http://"
	switch {
	case isAbsolute(r.RequestURI):
	case x.settings.publicURL != nil:
		return x.settings.publicURL.Scheme + "://" + x.settings.publicURL.Host
	case r.TLS != nil:
		scheme = "https://"
	}
	if last := p.lastOrigin.Load(); last != nil && last.scheme == scheme && last.host == host {
		return last.origin
	}
	if !isPlainHost(host) {
		return ""
	}
	made := &clientOrigin{scheme, host, scheme + host}
	p.lastOrigin.Store(made)
	return made.origin
}

// clientOrigin is by which scheme and host a client reached us. Most reach us by the same.
type clientOrigin struct{ scheme, host, origin string }

// clientHost is the host that the client names, else (HTTP/1.0) the address it connected to, each with its port.
func clientHost(r *http.Request) string {
	if r.Host != "" {
		return r.Host
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		return local.String()
	}
	return ""
}

// maxHost is the longest host with a port that there is in the DNS.
const maxHost = 253 + len(":65535")

func isPlainHost(host string) bool {
	for i := range len(host) {
		c := host[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && strings.IndexByte("-._:[]", c) < 0 {
			return false
		}
	}
	return host != "" && len(host) <= maxHost
}

// upstreamOrigin begins FreeAgent's URLs: scheme and host as it writes them, in lower case and without the port that the scheme implies.
func upstreamOrigin(upstream *url.URL) string {
	host := strings.ToLower(upstream.Host)
	switch upstream.Scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return upstream.Scheme + "://" + host
}

// inward is what is rewritten in requests: all that means us, whichever of our names it was had from, and with
// the account's prefix or without.
func (u *urls) inward(r *http.Request) *wanted {
	w := &wanted{anyCase: true, prefix: accountPrefix(u.account), with: u.proxy.origin[0]}
	hosts := []string{clientHost(r)}
	if public := u.public; public != nil && !strings.EqualFold(public.Host, hosts[0]) {
		hosts = append(hosts, public.Host)
	}
	for _, host := range hosts {
		for _, scheme := range []string{"http://", "https://"} {
			if origin := strings.ToLower(scheme + host); isPlainHost(host) && origin != w.with {
				w.origins = append(w.origins, origin)
			}
		}
	}
	return w
}

// query rewrites the values of a request's query.
func (u *urls) query(r *http.Request, query string) string {
	if u == nil || !mayHoldURL(query) {
		return query
	}
	return string(rewrite(&formScanner{wanted: u.inward(r)}, []byte(query)))
}

// mayHoldURL says whether any value begins as a URL may.
func mayHoldURL(query string) bool {
	for i := range len(query) - 1 {
		if c := query[i+1]; query[i] == '=' && (c == 'h' || c == 'H' || c == '%') {
			return true
		}
	}
	return false
}

// reads says whether a request's body is looked at: not one in a multipart form, which holds files, nor a compressed one.
func (u *urls) reads(r *http.Request) bool {
	return u != nil && requestKind(r.Header.Get("Content-Type")) != kindOther && r.Header.Get("Content-Encoding") == ""
}

// request reads a request's body with its URLs rewritten.
func (u *urls) request(r *http.Request, body io.Reader, window []byte) *rewritten {
	return &rewritten{source: body, window: window, choose: func(head []byte) scanner {
		f, told := requestFormat(r.Header.Get("Content-Type"), head)
		if !told {
			return nil
		}
		return f.scanner(u.inward(r))
	}}
}
