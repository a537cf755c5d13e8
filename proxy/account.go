package proxy

import (
	"net/http"
	"strings"
	"time"

	"freeagent-proxy/limiter"
)

// Account is one FreeAgent user's authorisation, as requests may name it.
type Account struct {
	Name    string
	Default bool             // serves requests that name no account
	API     []limiter.Window // its own budget; a practice's, for each subdomain
	// Practice says that the user is an accountancy practice's: X-Subdomain names one of its clients' companies, and
	// FreeAgent counts each by itself (https://dev.freeagent.com/docs/accountancy_practice_api).
	Practice bool
	// RateLimitTest lets X-RateLimit-Test through, by which a client asks the sandbox for 5 requests a
	// minute (https://dev.freeagent.com/docs/introduction). Whoever sets it gives API as low a window.
	RateLimitTest bool
}

// account is an Account with what each of its requests needs, made once.
type account struct {
	Account
	egress []limiter.Budget // of the address we leave from; none or one
}

// egressKey is the budget of the address we leave from, shared by all accounts.
const egressKey = "egress"

// APIBudget is the budget that an account's requests are counted in.
func APIBudget(account string, windows []limiter.Window) limiter.Budget {
	return limiter.Budget{Key: "api/" + account, Windows: windows}
}

// subdomainPart and clientPart come between the parts of the keys of other budgets of an account:
// api/ACCOUNT/subdomain/SUBDOMAIN/client/CLIENT. A Redis Cluster keeps all of an account in one slot.
const (
	subdomainPart = "/subdomain/"
	clientPart    = "/client/"
)

// BudgetAccount is the account whose requests to FreeAgent's API a budget counts, of whichever subdomain or client.
func BudgetAccount(key string) (account string, ok bool) {
	rest, ok := strings.CutPrefix(key, "api/")
	account, _, _ = strings.Cut(rest, "/")
	return account, ok
}

// BudgetIsShare reports whether a budget is the part of another one that a client may use.
func BudgetIsShare(key string) bool { return strings.Contains(key, clientPart) }

// EgressBudget is the budget of everything that leaves for FreeAgent, with some permits
// left to requests of less headroom.
func EgressBudget(windows []limiter.Window, headroom int) limiter.Budget {
	return limiter.Budget{Key: egressKey, Windows: windows, Headroom: headroom}
}

// BudgetSubdomain is the subdomain whose requests a budget counts, all clients' together, if it is one of that account's.
func BudgetSubdomain(key, account string) (subdomain string, ok bool) {
	subdomain, ok = strings.CutPrefix(key, APIBudget(account, nil).Key+subdomainPart)
	return subdomain, ok && !strings.Contains(subdomain, "/")
}

// egressHeadroom is what API requests leave to refreshes of the per-address budget, in
// permits a window: one in fifty (20 of FreeAgent's 1,000), so that traffic never starves the token.
func egressHeadroom(windows []limiter.Window) int {
	smallest := 0
	for i, w := range windows {
		if i == 0 || w.Requests < smallest {
			smallest = w.Requests
		}
	}
	return smallest / 50
}

func (s *settings) openAccounts(accounts []Account, egress []limiter.Window) {
	for _, a := range accounts {
		opened := &account{Account: a}
		if len(egress) > 0 {
			opened.egress = []limiter.Budget{EgressBudget(egress, egressHeadroom(egress))}
		}
		s.accounts[a.Name] = opened
	}
}

// counted is the budgets of a client's requests: the account's comes first, in whose queue they wait. A
// practice has one for each subdomain; see companies for how many there may be.
func (a *access) counted(c *client, subdomain string) []limiter.Budget {
	name := a.Name
	if a.Practice && subdomain != "" {
		name += subdomainPart + subdomain
	}
	all := make([]limiter.Budget, 0, 3)
	all = append(all, APIBudget(name, a.API))
	if a.share != nil {
		all = append(all, APIBudget(name+clientPart+c.Name, a.share))
	}
	return append(all, a.egress...)
}

// told is what a client hears of the budgets that its requests are counted in: of all but the address's.
func (a *access) told(budgets []limiter.Budget) *rateLimit {
	own := budgets[:len(budgets)-len(a.egress)]
	return newRateLimit(own[0], own[1:]...)
}

// shareOf is a part of all windows, of each one request at least; nil if that is all of them.
func shareOf(windows []limiter.Window, share float64) []limiter.Window {
	if share <= 0 || share >= 1 {
		return nil
	}
	part := make([]limiter.Window, len(windows))
	for i, w := range windows {
		const rounding = 1e-9 // 0.29 of 100 is 28.999999999999996
		part[i] = limiter.Window{Requests: max(1, int(float64(w.Requests)*share+rounding)), Per: w.Per}
	}
	return part
}

// passage is where a request goes: for whom, to which account and company, counted in what.
type passage struct {
	client    *client
	account   *account
	weight    int
	subdomain string // X-Subdomain, if it is ours to say
	budgets   []limiter.Budget
	rateLimit *rateLimit
}

// route finds the account that a request is for, which its client may use: the one its path names, else its
// X-FreeAgent-Account, else the client's only or default one; and the company.
func (s *settings) route(r *http.Request, t target, c *client) (passage, error) {
	name := t.account
	if name == "" {
		name = strings.TrimSpace(r.Header.Get("X-Freeagent-Account"))
	}
	found := c.fallback
	if name != "" {
		found = c.accounts[name]
	}
	switch {
	case found != nil:
	case name == "":
		return passage{}, errAccountRequired
	case c == s.clients.anonymous:
		return passage{}, errUnknownAccount
	default: // whether there is such an account is not for this client to know
		return passage{}, &forbidden{c.Name, "may use no account of this name", "accounts"}
	}
	subdomain, err := c.company(r, found.account)
	if err != nil {
		return passage{}, err
	}
	to := passage{c, found.account, found.weight, subdomain, found.budgets, found.rateLimit}
	if found.Practice && subdomain != strings.ToLower(c.Subdomain) {
		to.budgets = found.counted(c, subdomain)
		to.rateLimit = found.told(to.budgets)
	}
	return to, nil
}

// company is the X-Subdomain that goes upstream in the client's place, in lower case, since what is counted
// here must be what FreeAgent counts. "": the client's headers stay as they are.
func (c *client) company(r *http.Request, a *account) (string, error) {
	asked := r.Header["X-Subdomain"]
	if fixed := c.Subdomain; fixed != "" {
		for _, other := range asked {
			if !strings.EqualFold(other, fixed) {
				return "", &forbidden{c.Name, "may use no subdomain but its own", "subdomain"}
			}
		}
		return strings.ToLower(fixed), nil
	}
	if !a.Practice || len(asked) == 0 || len(asked) == 1 && asked[0] == "" {
		return "", nil
	}
	if len(asked) > 1 || !isSubdomain(asked[0]) {
		return "", errSubdomain
	}
	return strings.ToLower(asked[0]), nil
}

// isSubdomain reports whether a text can be one label of a host's name.
func isSubdomain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != '-' && !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 63
}

// wait is how long a request may wait for its turn: as long as its client's may, which
// `Prefer: wait=N` (RFC 7240, seconds) may shorten.
func (c *client) wait(r *http.Request) time.Duration {
	if asked, ok := preferredWait(r.Header["Prefer"]); ok && asked < c.MaxWait {
		return asked
	}
	return c.MaxWait
}
