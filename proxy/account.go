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
	API     []limiter.Window // its own budget
	// RateLimitTest lets X-RateLimit-Test through, by which a client asks the sandbox for 5 requests a
	// minute (https://dev.freeagent.com/docs/introduction). Whoever sets it gives API as low a window.
	RateLimitTest bool
}

// account is an Account with what each of its requests needs, made once.
type account struct {
	Account
	budgets   []limiter.Budget
	rateLimit *rateLimit
}

// egressKey is the budget of the address we leave from, shared by all accounts.
const egressKey = "egress"

// APIBudget is the budget that an account's requests are counted in.
func APIBudget(account string, windows []limiter.Window) limiter.Budget {
	return limiter.Budget{Key: "api/" + account, Windows: windows}
}

// EgressBudget is the budget of everything that leaves for FreeAgent, with some permits
// left to requests of less headroom.
func EgressBudget(windows []limiter.Window, headroom int) limiter.Budget {
	return limiter.Budget{Key: egressKey, Windows: windows, Headroom: headroom}
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

func (p *Proxy) openAccounts(accounts []Account, egress []limiter.Window) {
	for _, a := range accounts {
		opened := &account{Account: a, budgets: []limiter.Budget{APIBudget(a.Name, a.API)}}
		if len(egress) > 0 {
			opened.budgets = append(opened.budgets, EgressBudget(egress, egressHeadroom(egress)))
		}
		opened.rateLimit = newRateLimit(opened.budgets[0])
		p.accounts[a.Name] = opened
		if a.Default || len(accounts) == 1 {
			p.fallback = opened
		}
	}
}

// route finds the account that a request is for: the one its path names, else its
// X-FreeAgent-Account, else the default.
func (p *Proxy) route(r *http.Request, t target) (*account, error) {
	name := t.account
	if name == "" {
		name = strings.TrimSpace(r.Header.Get("X-Freeagent-Account"))
	}
	if name == "" {
		if p.fallback == nil {
			return nil, errAccountRequired
		}
		return p.fallback, nil
	}
	found, ok := p.accounts[name]
	if !ok {
		return nil, errUnknownAccount
	}
	return found, nil
}

// wait is how long a request may wait for its turn: the configured limit, which
// `Prefer: wait=N` (RFC 7240, seconds) may shorten.
func (p *Proxy) wait(r *http.Request) time.Duration {
	if asked, ok := preferredWait(r.Header["Prefer"]); ok && asked < p.config.MaxWait {
		return asked
	}
	return p.config.MaxWait
}
