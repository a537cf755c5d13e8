package proxy

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"freeagent-proxy/limiter"
)

// The headers of draft-ietf-httpapi-ratelimit-headers (from its 8th version on, in structured fields), in the form in which
// net/http keeps names. RateLimit-Policy lists all windows, RateLimit the one of which least is left.
const (
	policyHeader    = "Ratelimit-Policy"
	rateLimitHeader = "Ratelimit"
)

// rateLimit is what a client is told of the budgets that it may use up.
type rateLimit struct {
	budgets []limiter.Budget
	names   []string // of all their windows, in order
	policy  []string // the header's value
}

// newRateLimit is for an account's budget, and for a client's share of it where it has one.
func newRateLimit(api limiter.Budget, share ...limiter.Budget) *rateLimit {
	l := &rateLimit{budgets: append([]limiter.Budget{api}, share...)}
	var policies []string
	for i, b := range l.budgets {
		for _, w := range b.Windows {
			name := windowName(w.Per)
			if i > 0 {
				name = "share-" + name
			}
			if slices.Contains(l.names, name) { // as with X-RateLimit-Test's five a minute
				name += "-" + strconv.Itoa(w.Requests)
			}
			l.names = append(l.names, name)
			policies = append(policies, `"`+name+`";q=`+strconv.Itoa(w.Requests)+`;w=`+strconv.FormatInt(wholeSeconds(w.Per), 10))
		}
	}
	if len(policies) > 0 {
		l.policy = []string{strings.Join(policies, ", ")}
	}
	return l
}

// windowName is how a window is called: "minute", or by its length.
func windowName(per time.Duration) string {
	switch per {
	case time.Second:
		return "second"
	case time.Minute:
		return "minute"
	case time.Hour:
		return "hour"
	case 24 * time.Hour:
		return "day"
	}
	return per.String()
}

// wholeSeconds rounds up.
func wholeSeconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

// tell writes the headers; room is for what it asks, and value for what is told. t is when more becomes available: the oldest request then leaves its window.
func (l *rateLimit) tell(h http.Header, from Limiter, room []limiter.Usage, value []string) {
	if len(l.names) == 0 {
		return
	}
	usage := from.AppendUsage(room, l.budgets...)
	least := 0
	for i, u := range usage {
		if u.Remaining < usage[least].Remaining || u.Remaining == usage[least].Remaining && u.Reset > usage[least].Reset {
			least = i
		}
	}
	var text [64]byte
	b := append(text[:0], '"')
	b = append(b, l.names[least]...)
	b = append(b, `";r=`...)
	b = strconv.AppendInt(b, int64(usage[least].Remaining), 10)
	b = append(b, `;t=`...)
	b = strconv.AppendInt(b, wholeSeconds(usage[least].Reset), 10)
	h[policyHeader] = l.policy
	value[0] = string(b)
	h[rateLimitHeader] = value
}
