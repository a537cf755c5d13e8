package main

import (
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"freeagent-proxy/limiter"
	"freeagent-proxy/proxy"
)

// ClientConfig is one program that may call, or several that are treated as one: how it is known, and what it may do.
type ClientConfig struct {
	// KeySHA256 is the SHA-256 of its key, in lower-case hex; a list while a key is being replaced. One of KeySHA256,
	// Listen, CIDRs and Certificate must be given. Default none.
	KeySHA256 []string `yaml:"key_sha256"`
	// Listen is a listener of its own: host:port, or unix:/path. Who comes in there is this client. Default none.
	Listen string `yaml:"listen"`
	// CIDRs are networks or addresses that it calls from. Default none.
	CIDRs []string `yaml:"cidrs"`
	// Certificate is the common name, a DNS name or a URI of its TLS certificate. Default none.
	Certificate string `yaml:"certificate"`
	// Accounts are those that it may use. Default all.
	Accounts []string `yaml:"accounts"`
	// ReadOnly lets it GET and HEAD alone. Default false.
	ReadOnly bool `yaml:"read_only"`
	// Methods are those that it may use; GET includes HEAD. Default all.
	Methods []string `yaml:"methods"`
	// Paths are those that it may use, each with all below it; a * ends a segment. Default all.
	Paths []string `yaml:"paths"`
	// Subdomain is the X-Subdomain of all its requests. Default: what it sends itself.
	Subdomain string `yaml:"subdomain"`
	// URLs says what becomes of FreeAgent's URLs in answers and requests: rewrite or passthrough. Default rewrite.
	URLs string `yaml:"urls"`
	// Weight is its part of the turns among the clients that wait, 1 to 1000. Default 1.
	Weight int `yaml:"weight"`
	// Share is the most of an account's budget that it may use, above 0 and up to 1. Default 1.
	Share float64 `yaml:"share"`
	// MaxWait is how long its requests may wait for their turn, 0s to 1h. Default: that of limits.
	MaxWait *time.Duration `yaml:"max_wait"`
}

// setDefaults is what holds before the file is read.
func (c *ClientConfig) setDefaults() { c.URLs, c.Weight, c.Share = "rewrite", 1, 1 }

// known reports whether anything tells the client from others.
func (c ClientConfig) known() bool {
	return len(c.KeySHA256) > 0 || c.Listen != "" || len(c.CIDRs) > 0 || c.Certificate != ""
}

// wait is how long the client's requests may wait for their turn.
func (c Config) wait(client ClientConfig) time.Duration {
	if client.MaxWait != nil {
		return *client.MaxWait
	}
	return c.Limits.MaxWait
}

var (
	clientName    = regexp.MustCompile(`^[a-z0-9._-]{1,63}$`)
	keyDigest     = regexp.MustCompile(`^[0-9a-f]{64}$`)
	subdomainName = regexp.MustCompile(`^[A-Za-z0-9-]{1,63}$`)
	// pathPattern takes what FreeAgent's paths are made of, and a * at the end of a segment.
	pathPattern = regexp.MustCompile(`^/v2(/[A-Za-z0-9_.:-]*\*?)+$`)
)

// reservedClients are the names that the log and the limits use for others.
var reservedClients = []string{"anonymous", "operator", proxy.Self, "refresh", limiter.Unknown}

// httpMethods are those that the proxy lets in.
var httpMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"}

func (c Config) validateClients(p *problems) {
	for i, cidr := range c.TrustedProxies {
		validateNetwork(p, p.item("trusted_proxies", i), cidr)
	}
	marks := uniqueMarks{p, map[string]string{}}
	listeners := append(slices.Clone(c.Listen), c.Admin.Listen)
	for _, name := range slices.Sorted(maps.Keys(c.Clients)) {
		client, key := c.Clients[name], joinKey("clients", name)
		switch {
		case !clientName.MatchString(name):
			p.add(key, "a client's name is 1 to 63 of a-z, 0-9, '.', '_' and '-'")
		case slices.Contains(reservedClients, name):
			p.add(key, "this name has a meaning of its own in the log; choose another one")
		case !client.known():
			p.add(key, "nothing tells it from others; give it key_sha256, listen, cidrs or certificate. `freeagent-proxy clients new %s` makes a key", name)
		}
		c.validateIdentity(p, key, client, marks)
		if client.Listen != "" {
			validateOwnListener(p, joinKey(key, "listen"), client.Listen, listeners)
			listeners = append(listeners, client.Listen)
		}
		c.validatePolicy(p, key, client)
	}
}

// uniqueMarks finds what two clients cannot both be known by.
type uniqueMarks struct {
	*problems
	owners map[string]string // by mark: the key of the client that has it
}

func (m uniqueMarks) claim(key, client, mark, what string) {
	if owner, taken := m.owners[mark]; taken {
		m.add(key, "%s belongs to %s already; keep one of the two", what, owner)
		return
	}
	m.owners[mark] = client
}

func (c Config) validateIdentity(p *problems, key string, client ClientConfig, marks uniqueMarks) {
	for i, digest := range client.KeySHA256 {
		// It is not repeated: it may be the key itself.
		if at := p.item(joinKey(key, "key_sha256"), i); !keyDigest.MatchString(digest) {
			p.add(at, "must be the key's SHA-256 in 64 lower-case hex digits, as `freeagent-proxy clients new NAME` prints it")
		} else {
			marks.claim(at, key, "key "+digest, "this key")
		}
	}
	for i, cidr := range client.CIDRs {
		if at := p.item(joinKey(key, "cidrs"), i); validateNetwork(p, at, cidr) {
			prefix, _ := parseNetwork(cidr)
			marks.claim(at, key, "network "+prefix.String(), "this network")
		}
	}
	if client.Certificate != "" {
		marks.claim(joinKey(key, "certificate"), key, "certificate "+client.Certificate, "this name")
		if c.TLS.ClientCA == "" {
			p.add(joinKey(key, "certificate"), "no program is asked for its certificate; set tls.client_ca")
		}
	}
}

func validateOwnListener(p *problems, key, address string, others []string) {
	if socket, ok := strings.CutPrefix(address, unixPrefix); ok {
		validateSocket(p, key, socket)
	} else if host, ok := validateAddress(p, key, address); ok && !isLoopback(host) {
		p.note(key, "whoever reaches %s is this client, with all that it may do", address)
	}
	if slices.ContainsFunc(others, func(other string) bool { return collide(address, other) }) {
		p.add(key, "%q is taken by another of the configuration's listeners; choose another port", address)
	}
}

// collide reports whether two addresses cannot both be listened on: the same one, or one port of every interface.
func collide(a, b string) bool {
	if anyPort(a) {
		return false
	}
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	everywhere := isUnspecified(hostA) || isUnspecified(hostB)
	return a == b || errA == nil && errB == nil && portA == portB && (hostA == hostB || everywhere)
}

func isUnspecified(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

func (c Config) validatePolicy(p *problems, key string, client ClientConfig) {
	some := func(setting string, list []string, valid func(at, text string)) {
		at := joinKey(key, setting)
		if list != nil && len(list) == 0 {
			p.add(at, "the list is empty; leave it out to allow all of them")
		}
		for i, text := range list {
			valid(p.item(at, i), text)
		}
	}
	some("accounts", client.Accounts, func(at, name string) {
		if _, ok := c.Accounts[name]; !ok {
			p.add(at, "there is no account %q; name one of %q", name, slices.Sorted(maps.Keys(c.Accounts)))
		}
	})
	some("methods", client.Methods, func(at, method string) { oneOf(p, at, method, httpMethods...) })
	some("paths", client.Paths, func(at, path string) {
		if !pathPattern.MatchString(path) || strings.Contains(path, "//") || hasDots(path) {
			p.add(at, "%q is not a path of FreeAgent's API; write it like /v2/invoices, with * for what ends a segment, as in /v2/invoices/*/pdf", path)
		}
	})
	if s := client.Subdomain; s != "" && !subdomainName.MatchString(s) {
		p.add(joinKey(key, "subdomain"), "%q is not a subdomain; it is 1 to 63 letters, digits and hyphens", s)
	}
	oneOf(p, joinKey(key, "urls"), client.URLs, "rewrite", "passthrough")
	if client.Weight < 1 || client.Weight > 1000 {
		p.add(joinKey(key, "weight"), "%d must be from 1 to 1000", client.Weight)
	}
	if !(client.Share > 0 && client.Share <= 1) {
		p.add(joinKey(key, "share"), "%v must be above 0 and at most 1, such as 0.8", client.Share)
	}
	within(p, joinKey(key, "max_wait"), c.wait(client), 0, time.Hour)
}

// hasDots reports whether a path has a segment that climbs or stays.
func hasDots(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool { return s == "." || s == ".." })
}

func validateNetwork(p *problems, key, cidr string) (ok bool) {
	prefix, err := parseNetwork(cidr)
	switch {
	case err != nil:
		p.add(key, "%q is not a network; write it like 10.1.7.0/24, or a single address", cidr)
	case prefix != prefix.Masked():
		p.add(key, "%q has bits behind its length; write %s", cidr, prefix.Masked())
	default:
		return true
	}
	return false
}

// ipv4Mapped is how many bits of an IPv6 address stand before the IPv4 address in it: ::ffff:10.1.7.0.
const ipv4Mapped = 128 - 32

// parseNetwork reads a network in CIDR notation, or one address.
func parseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if mapped := prefix.Bits() - ipv4Mapped; err == nil && prefix.Addr().Is4In6() && mapped >= 0 {
		return netip.PrefixFrom(prefix.Addr().Unmap(), mapped), nil
	}
	return prefix, err
}
