package proxy

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"freeagent-proxy/limiter"
)

// Client is a program that calls us, as the configuration names it. Its zero policy forbids nothing.
type Client struct {
	Name string

	// What it is known by; see identify.
	Keys        [][sha256.Size]byte // SHA-256 digests of its keys
	Networks    []netip.Prefix      // that it calls from
	Certificate string              // a name in its verified certificate: common name, DNS name or URI

	// What it may do. Empty means all.
	Accounts  []string
	ReadOnly  bool     // GET and HEAD
	Methods   []string // GET lets HEAD in, too
	Paths     []string // see pathPattern
	Subdomain string   // the one X-Subdomain that it may use, sent whether it names it or not

	// How it is served.
	Passthrough bool          // FreeAgent's URLs are not rewritten, in either direction
	Weight      int           // its part of the turns among all clients that wait, in proportion; 0: no other client is expected
	Share       float64       // the most of an account's budget that it may use, above 0; 0 and 1 are all of it
	MaxWait     time.Duration // how long its requests may wait for their turn
}

// client is a Client with what each of its requests needs, made once.
type client struct {
	Client
	accounts map[string]*access // that it may use
	fallback *access            // for requests that name no account; nil if they must
	methods  []string           // nil: all
	paths    []pathPattern
}

// access is what a client's requests need of one account.
type access struct {
	*account
	weight int              // the client's, or 0 where no other client is expected
	share  []limiter.Window // what the client may use of the account's windows; nil: all
	// Of requests for no subdomain but the client's own:
	budgets   []limiter.Budget
	rateLimit *rateLimit
}

// openClient makes a client. Accounts that are not configured are none.
func (s *settings) openClient(c Client) *client {
	opened := &client{Client: c, accounts: make(map[string]*access), methods: allowedMethods(c)}
	for _, path := range c.Paths {
		opened.paths = append(opened.paths, newPathPattern(path))
	}
	for name, account := range s.accounts {
		if len(c.Accounts) == 0 || slices.Contains(c.Accounts, name) {
			a := &access{account: account, weight: c.Weight, share: shareOf(account.API, c.Share)}
			a.budgets = a.counted(opened, strings.ToLower(c.Subdomain))
			a.rateLimit = a.told(a.budgets)
			opened.accounts[name] = a
		}
	}
	for _, a := range opened.accounts {
		if a.Default || len(opened.accounts) == 1 {
			opened.fallback = a
		}
	}
	return opened
}

// weigh takes their weight from clients that have an account, or a company of a practice, to themselves: nobody else is
// expected, so that the limiter needs to keep no room.
func (c *clients) weigh() {
	all, free, fixed := make(map[string]int), make(map[string]int), make(map[string]int)
	for _, one := range c.named {
		for name, a := range one.accounts {
			all[name]++
			if company := a.only(one); company == "" {
				free[name]++
			} else {
				fixed[name+subdomainPart+company]++
			}
		}
	}
	for _, one := range c.named {
		for name, a := range one.accounts {
			reach := all[name]
			if company := a.only(one); company != "" {
				reach = free[name] + fixed[name+subdomainPart+company]
			}
			if reach == 1 {
				a.weight = 0
			}
		}
	}
}

// only is the one company of a practice that a client may use; "": all, or it is no practice.
func (a *access) only(c *client) string {
	if !a.Practice {
		return ""
	}
	return strings.ToLower(c.Subdomain)
}

func allowedMethods(c Client) []string {
	var allowed []string
	for _, method := range methods {
		named := slices.Contains(c.Methods, method) || method == http.MethodHead && slices.Contains(c.Methods, http.MethodGet)
		if len(c.Methods) == 0 || named {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == len(methods) {
		return nil
	}
	return allowed
}

// forbidden is a request that its client's policy refuses.
type forbidden struct {
	client  string
	may     string // what the client may, or may not
	setting string // that says so
}

func (e *forbidden) Error() string {
	return fmt.Sprintf("client %q %s (%s)", e.client, e.may, e.setting)
}

// permits reports whether the client may send this at all, to whichever account: nil, or *forbidden.
func (c *client) permits(method string, t target) error {
	switch {
	case c.ReadOnly && !isRead(method):
		return &forbidden{c.Name, "may only read", "read_only"}
	case c.methods != nil && !slices.Contains(c.methods, method):
		return &forbidden{c.Name, "may not use " + method, "methods"}
	case c.paths != nil && !c.reaches(t):
		return &forbidden{c.Name, "may not use this path", "paths"}
	}
	return nil
}

// reaches reports whether one of the client's patterns covers the path as the upstream reads it: decoded, slashes
// folded, without dot segments (parseTarget lets none in). What another round of decoding would
// change, and what some servers take for a slash or an end, is covered by none.
func (c *client) reaches(t target) bool {
	path, err := decodedPath(t.path)
	odd := func(r rune) bool { return r == '%' || r == '\\' || r < ' ' || r == 0x7f }
	if err != nil || strings.ContainsFunc(path, odd) {
		return false
	}
	segments := segmentsOf(path)
	return slices.ContainsFunc(c.paths, func(p pathPattern) bool { return p.covers(segments) })
}

// pathPattern is a path such as /v2/invoices, cut at its slashes. It covers the path itself and all below it. A `*` at
// the end of a segment stands for the rest of that segment, so `*` alone is any one: /v2/invoices/*/pdf,
// /v2/bank_*. Upper and lower case differ, as they do at FreeAgent.
type pathPattern []string

func newPathPattern(path string) pathPattern { return segmentsOf(path) }

func segmentsOf(path string) []string { return strings.Split(strings.Trim(path, "/"), "/") }

func (p pathPattern) covers(segments []string) bool {
	if len(segments) < len(p) {
		return false
	}
	for i, want := range p {
		begin, open := strings.CutSuffix(want, "*")
		if open && (len(segments[i]) == 0 || !strings.HasPrefix(segments[i], begin)) || !open && segments[i] != want {
			return false
		}
	}
	return true
}
