package main

import (
	"encoding/base64"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// unixPrefix marks a listen address that is a socket's path.
const unixPrefix = "unix:"

// validate reports every value that cannot be used, and whatever does not fit together.
func (c Config) validate(p *problems) {
	c.validateListeners(p)
	c.validateTLS(p)
	c.validateHosts(p)
	c.validateUpstream(p)
	c.validateRedis(p)
	if c.Store.File == "" && !c.Store.Redis.given() {
		p.add("store.file", "no folder to keep grants in; set store.file, or STATE_DIRECTORY, XDG_STATE_HOME or HOME in the environment")
	}
	c.validateKeys(p)
	c.validateAccounts(p)
	c.validateClients(p)
	c.validateLimits(p)
	c.validateWrites(p)
	c.validateTracing(p)
	oneOf(p, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(p, "log.format", c.Log.Format, "json", "console")
}

func oneOf(p *problems, key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.add(key, "%q must be one of %s", value, strings.Join(allowed, ", "))
	}
}

// within checks a duration's range, both ends allowed.
func within(p *problems, key string, value, least, most time.Duration) {
	if value < least || value > most {
		p.add(key, "%s must be from %s to %s", value, least, most)
	}
}

func (c Config) validateListeners(p *problems) {
	if len(c.Listen) == 0 {
		p.add("listen", "the list is empty; leave it out for 127.0.0.1:8080")
	}
	for i, address := range c.Listen {
		key := p.item("listen", i)
		if socket, ok := strings.CutPrefix(address, unixPrefix); ok {
			validateSocket(p, key, socket)
		} else if name, ok := inheritedName(address); ok {
			c.validateInherited(p, key, address, name)
		} else if host, ok := validateAddress(p, key, address); ok && !isLoopback(host) && len(c.Clients) == 0 {
			p.add(key, "%q is reachable from other machines, which needs named clients; add clients, or listen on 127.0.0.1", address)
		}
		if slices.Contains(c.Listen[:i], address) && !anyPort(address) {
			p.add(key, "%q is in the list twice; keep one", address)
		}
	}
	if c.MaxConnections < 1 || c.MaxConnections > 1_000_000 {
		p.add("max_connections", "%d must be from 1 to 1000000", c.MaxConnections)
	}
	host, ok := validateAddress(p, "admin.listen", c.Admin.Listen)
	if ok && !isLoopback(host) && c.Admin.Password.Reveal() == "" && !p.has("admin.password_file") {
		p.add("admin.password_env", "missing: %q is reachable from other machines; name the environment variable, or with password_file the file, that holds a password, or listen on 127.0.0.1", c.Admin.Listen)
	}
	if c.Store.Redis.given() && anyPort(c.Admin.Listen) {
		p.note("admin.listen", "%s", portUntold)
	}
	if slices.Contains(c.Listen, c.Admin.Listen) && !anyPort(c.Admin.Listen) {
		p.add("admin.listen", "%q is in listen too; choose another port for one of them", c.Admin.Listen)
	}
	c.validateAdminURL(p)
}

func (c Config) validateAdminURL(p *problems) {
	const key = "admin.public_url"
	switch u := c.Admin.PublicURL; {
	case u == nil:
	case u.Scheme != "http" && u.Scheme != "https" || !bare(u):
		p.add(key, "must be http:// or https:// and a host, without path or query; the redirect URI is this and /callback")
	case !isLoopback(u.Hostname()) && isLoopbackAddress(c.Admin.Listen) && c.Admin.Password.Reveal() == "" && !p.has("admin.password_file"):
		p.add("admin.password_env", "missing: by admin.public_url the page is reachable from other machines; name the environment variable that holds a password, or the file (admin.password_file)")
	}
}

func isLoopbackAddress(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && isLoopback(host)
}

// validateAddress takes host:port apart; an empty host is every interface.
func validateAddress(p *problems, key, address string) (host string, ok bool) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		p.add(key, "%q is not an address; write host:port such as 127.0.0.1:8080", address)
		return "", false
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		p.add(key, "%q has no usable port; it is a number from 0 to 65535, where 0 is any free one", address)
		return "", false
	}
	return host, true
}

func validateSocket(p *problems, key, path string) {
	switch {
	case path == "":
		p.add(key, "no path behind unix:; write unix:/run/freeagent-proxy.sock")
	case len(path) > maxSocketPath:
		p.add(key, "the socket's path is %d bytes long; choose one of at most %d, all that a socket's address takes", len(path), maxSocketPath)
	}
}

// validateInherited: a name is what systemd takes as one, and who takes all sockets leaves none for a name.
func (c Config) validateInherited(p *problems, key, address, name string) {
	switch {
	case address != inheritedPrefix && (name == "" || strings.ContainsAny(name, ": \t")):
		p.add(key, "%q is no name of a socket; write systemd, or systemd: and the FileDescriptorName= of the socket unit", address)
	case name != "" && slices.Contains(c.Listen, inheritedPrefix):
		p.add(key, "systemd alone takes all sockets already; keep that, or only names")
	}
}

// anyPort says that the system chooses the port: such addresses never collide.
func anyPort(address string) bool {
	_, port, err := net.SplitHostPort(address)
	return err == nil && strings.Trim(port, "0") == ""
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// hostName is a DNS name, with the underscores that some machines have.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)

func (c Config) validateHosts(p *problems) {
	for i, host := range c.AllowedHosts {
		if _, err := netip.ParseAddr(host); err != nil && !hostName.MatchString(host) {
			p.add(p.item("allowed_hosts", i), "%q is not a host name; write it without scheme, port and path, such as freeagent.internal", host)
		}
	}
	if u := c.PublicURL; u != nil && (u.Scheme != "http" && u.Scheme != "https" || !bare(u)) {
		p.add("public_url", "must be http:// or https:// and a host, without path or query; programs append /v2/… to it")
	}
}

func (c Config) validateUpstream(p *problems) {
	const key = "upstream.base_url"
	switch u := c.Upstream.BaseURL; {
	case u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())):
		p.add(key, "must begin with https://, because the access token goes there; http:// is for loopback only")
	case !bare(u):
		p.add(key, "must be scheme and host only, such as https://api.freeagent.com; /v2/… comes from the client's request")
	}
	within(p, "upstream.timeout", c.Upstream.Timeout, time.Second, 10*time.Minute)
	if strings.ContainsFunc(c.Upstream.UserAgent, func(r rune) bool { return r < ' ' || r > '~' }) {
		p.add("upstream.user_agent", "a header takes printable ASCII only")
	}
}

// bare says that the URL is scheme, host and perhaps port, and nothing else.
func bare(u *url.URL) bool {
	port := u.Port()
	if _, err := strconv.ParseUint(port, 10, 16); err != nil && port != "" {
		return false
	}
	return *u == url.URL{Scheme: u.Scheme, Host: u.Host}
}

func (c Config) validateKeys(p *problems) {
	seen := map[string]string{}
	for i, k := range c.Encryption.Keys {
		key := itemKey("encryption.keys", i)
		if first, again := seen[k.ID]; again && k.ID != "" {
			p.add(joinKey(key, "id"), "%q is the id of %s too; each key needs its own", k.ID, first)
		} else {
			seen[k.ID] = key
		}
		// A secret that is missing has its problem already.
		if text := k.Key.Reveal(); text != "" && !isEncryptionKey(text) {
			p.add(key, "the key must be 32 random bytes in standard base64 (44 characters), as `freeagent-proxy keygen` prints one")
		}
	}
}

func isEncryptionKey(text string) bool {
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	return err == nil && len(key) == 32
}

// accountName keeps accounts fit for URLs, headers and file names.
var accountName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func (c Config) validateAccounts(p *problems) {
	if len(c.Apps) == 0 {
		p.add("apps", "none; add the app that is registered at https://dev.freeagent.com")
	}
	if len(c.Accounts) == 0 {
		p.add("accounts", "none; add one such as acme: {app: main}")
	}
	var marked []string
	for name, account := range c.Accounts {
		key := joinKey("accounts", name)
		if !accountName.MatchString(name) {
			p.add(key, "an account's name is 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit")
		}
		if _, ok := c.Apps[account.App]; !ok && account.App != "" && len(c.Apps) > 0 {
			p.add(joinKey(key, "app"), "there is no app %q; name one of %q", account.App, slices.Sorted(maps.Keys(c.Apps)))
		}
		if account.Default {
			marked = append(marked, joinKey(key, "default"))
		}
	}
	if len(marked) > 1 {
		for _, key := range marked {
			p.add(key, "%d accounts are marked default; keep one", len(marked))
		}
	}
}

func (c Config) validateLimits(p *problems) {
	for key, windows := range map[string][]WindowConfig{
		"limits.api": c.Limits.API, "limits.refresh": c.Limits.Refresh, "limits.egress": c.Limits.Egress,
	} {
		if len(windows) == 0 {
			p.add(key, "the list is empty; leave it out for FreeAgent's own limits")
		}
		for i, w := range windows {
			if w.Requests < 1 || w.Requests > 100_000 {
				p.add(joinKey(itemKey(key, i), "requests"), "%d must be from 1 to 100000", w.Requests)
			}
			within(p, joinKey(itemKey(key, i), "per"), w.Per, 100*time.Millisecond, 24*time.Hour)
		}
	}
	within(p, "limits.guard", c.Limits.Guard, 0, time.Minute)
	within(p, "limits.max_wait", c.Limits.MaxWait, 0, time.Hour)
}
