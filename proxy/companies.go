package proxy

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// companies tells those of practices that FreeAgent knows from names that programs make up. Each name has budgets of its own, which
// the limiter keeps until what was counted in them is over: so there may be only so many of names that FreeAgent has not shown to know.
type companies struct {
	mu      sync.RWMutex
	known   map[company]bool
	strange map[asker]map[string]time.Time // by subdomain: when it was last asked for
}

// company is one of a practice's.
type company struct{ account, subdomain string }

// asker is a client, at an account. Each has a bound of its own: who makes names up takes no room from others.
type asker struct{ account, client string }

const (
	// maxStrange is how many a client may have of them at an account: more than the clients of most practices, of which each is one
	// only until its first answer, and some 10 MB of budgets.
	maxStrange = 1000
	// maxKnown is how many are remembered: more than all practices of an installation have, should FreeAgent answer to any name.
	maxKnown = 20_000
)

// strangeCompanyError: there are too many that FreeAgent does not know to try one more.
type strangeCompanyError struct{ retryAfter time.Duration }

func (e *strangeCompanyError) Error() string {
	return fmt.Sprintf("the client has tried %d other names of companies that FreeAgent has not shown to know", maxStrange)
}

func newCompanies() *companies {
	return &companies{known: map[company]bool{}, strange: map[asker]map[string]time.Time{}}
}

// admit lets a request for a company go on. strange: learn is to be told how FreeAgent answers it.
func (c *companies) admit(to passage) (strange bool, err error) {
	if !to.account.Practice || to.subdomain == "" || to.client.Subdomain != "" { // the operator knows what he has configured
		return false, nil
	}
	c.mu.RLock()
	known := c.known[company{to.account.Name, to.subdomain}]
	c.mu.RUnlock()
	if known {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	who := asker{to.account.Name, to.client.Name}
	now, tried := time.Now(), c.strange[who]
	if tried == nil {
		tried = map[string]time.Time{}
		c.strange[who] = tried
	}
	if _, again := tried[to.subdomain]; !again && len(tried) >= maxStrange {
		if wait := forgetOlder(tried, now.Add(-to.account.longest())); wait > 0 {
			return false, &strangeCompanyError{wait}
		}
	}
	tried[to.subdomain] = now
	return true, nil
}

// forgetOlder drops what is older than a moment, and returns in how long the next one will be; 0: something was dropped.
func forgetOlder(tried map[string]time.Time, than time.Time) time.Duration {
	before, oldest := len(tried), time.Time{}
	for subdomain, at := range tried {
		switch {
		case !at.After(than):
			delete(tried, subdomain)
		case oldest.IsZero() || at.Before(oldest):
			oldest = at
		}
	}
	if len(tried) < before {
		return 0
	}
	return oldest.Sub(than)
}

// longest is the longest of an account's windows.
func (a *account) longest() time.Duration {
	var longest time.Duration
	for _, w := range a.API {
		longest = max(longest, w.Per)
	}
	return longest
}

// learn takes in how a request was answered: FreeAgent knows a company for which it does something.
func (c *companies) learn(to passage, x *exchange) {
	if !x.upstream || x.status < http.StatusOK || x.status >= http.StatusBadRequest {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxKnown {
		return
	}
	c.known[company{to.account.Name, to.subdomain}] = true
	delete(c.strange[asker{to.account.Name, to.client.Name}], to.subdomain)
}
