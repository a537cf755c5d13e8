package proxy

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ClientAddress is where a request comes from, behind trusted proxies too, at whichever listener it came in. Invalid if it
// has no address, as at a unix socket.
func (p *Proxy) ClientAddress(r *http.Request) netip.Addr {
	return p.settings.Load().clients.address(r)
}

// address is where the client calls from: the connection's own address or, if that is a trusted proxy's, the nearest
// one behind it that is not. Forwarded and X-Forwarded-For must agree if both are there: a proxy that writes
// one of them passes on the other as the client made it up. What cannot be read counts for nothing.
func (c *clients) address(r *http.Request) netip.Addr {
	connection := parseNode(r.RemoteAddr)
	if !c.trusts(connection) {
		return connection
	}
	listed, named := r.Header["X-Forwarded-For"], r.Header["Forwarded"]
	var client netip.Addr
	switch {
	case len(named) == 0 && len(listed) == 0:
		return connection
	case len(named) == 0:
		client = c.nearest(listedHops(listed))
	case len(listed) == 0:
		client = c.nearest(forwardedHops(named))
	default:
		if client = c.nearest(forwardedHops(named)); client != c.nearest(listedHops(listed)) {
			return connection
		}
	}
	if !client.IsValid() {
		return connection
	}
	return client
}

func (c *clients) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(c.trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// nearest is the last hop that is no trusted proxy, or the first if all are. Invalid if one on the way there is.
func (c *clients) nearest(hops []netip.Addr) netip.Addr {
	for i, hop := range slices.Backward(hops) {
		if i == 0 || !c.trusts(hop) {
			return hop
		}
	}
	return netip.Addr{}
}

// listedHops reads X-Forwarded-For lines. A hop that cannot be read is invalid, in its place.
func listedHops(lines []string) []netip.Addr {
	var hops []netip.Addr
	for _, line := range lines {
		for node := range strings.SplitSeq(line, ",") {
			hops = append(hops, parseNode(strings.TrimSpace(node)))
		}
	}
	return hops
}

// forwardedHops reads Forwarded lines (RFC 7239). A hop that does not say for whom, or hides it, is invalid, in its place. With
// a quote that is not closed there are none: a client could swallow by it what the proxy adds.
func forwardedHops(lines []string) []netip.Addr {
	var hops []netip.Addr
	for _, line := range lines {
		if strings.Count(line, `"`)%2 != 0 {
			return nil
		}
		for _, element := range splitUnquoted(line, ',') {
			var hop netip.Addr
			for _, pair := range splitUnquoted(element, ';') {
				name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
				if strings.EqualFold(name, "for") {
					hop = parseNode(strings.Trim(value, `"`))
				}
			}
			hops = append(hops, hop)
		}
	}
	return hops
}

// splitUnquoted cuts a text at each separator that is not within quotes.
func splitUnquoted(text string, separator rune) []string {
	var parts []string
	begin, quoted := 0, false
	for i, r := range text {
		if r == '"' {
			quoted = !quoted
		}
		if r == separator && !quoted {
			parts = append(parts, text[begin:i])
			begin = i + 1
		}
	}
	return append(parts, text[begin:])
}

// parseNode reads an address, perhaps in brackets, perhaps with a port. Invalid if it is none.
func parseNode(node string) netip.Addr {
	if addrPort, err := netip.ParseAddrPort(node); err == nil {
		return addrPort.Addr().Unmap().WithZone("")
	}
	addr, _ := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(node, "["), "]"))
	return addr.Unmap().WithZone("")
}
