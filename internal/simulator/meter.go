package simulator

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// meter counts what arrives and decides what is over a limit. It counts always,
// in every window, refused or not; the limits are a second, separate count.
type meter struct {
	epoch time.Time // with its monotonic reading: counting survives a change of the clock

	mu        sync.Mutex
	rules     rules
	since     time.Time
	latest    int64 // arrival
	total     int64
	refused   int64 // with 429
	users     map[userKey]*counter
	sources   map[string]*counter
	refreshes map[string]*counter // by user
	tokens    tokenCounts
	auth      map[string]int64 // requests by what their Authorization was
	denied    int64            // API answers with 401
}

// userKey is what FreeAgent's per-user limit counts by. Source and App are
// empty unless the switches make them part of it.
type userKey struct{ user, subdomain, source, app string }

// rules are the switches that the meter reads under its own lock.
type rules struct {
	user, source, refresh []Window
	test                  Window
	userAndTest           []Window // what a user's counters count in: TestLimit's window comes last
	enforcement           string
	countRejected         bool
	toBoundary            bool
	refreshCounts         bool
}

// counter is one key's two counts: what arrived, and what the limits hold against it.
type counter struct {
	requests, refused int64
	seen, charged     *tally
}

// limited says that a request is over the limit.
type limited struct {
	window     Window
	retryAfter time.Duration
}

func (l limited) message() string {
	return fmt.Sprintf("You must not exceed %d requests per %s seconds", l.window.Requests,
		strconv.FormatFloat(time.Duration(l.window.Per).Seconds(), 'f', -1, 64))
}

func newMeter(cfg Config) *meter {
	m := &meter{epoch: time.Now()}
	m.configure(cfg)
	m.reset()
	return m
}

// configure takes over new switches. Other windows begin a new count, for the
// old one cannot answer for them.
func (m *meter) configure(cfg Config) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.rules
	m.rules = rules{
		user: slices.Clone(cfg.UserLimits), source: slices.Clone(cfg.SourceLimits), refresh: slices.Clone(cfg.RefreshLimits),
		test: cfg.TestLimit, enforcement: cfg.Enforcement, countRejected: cfg.CountRejected,
		toBoundary: cfg.RetryAfter == RetryAfterBoundary, refreshCounts: cfg.TokenEndpointCounts,
	}
	m.rules.userAndTest = append(slices.Clone(m.rules.user), m.rules.test)
	if !slices.Equal(old.user, m.rules.user) || !slices.Equal(old.source, m.rules.source) ||
		!slices.Equal(old.refresh, m.rules.refresh) || old.test != m.rules.test {
		m.clear()
	}
}

// reset begins a new count of everything.
func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clear()
}

func (m *meter) clear() {
	m.since = m.epoch.Add(time.Since(m.epoch))
	m.total, m.refused, m.denied = 0, 0, 0
	m.users, m.sources, m.refreshes = map[userKey]*counter{}, map[string]*counter{}, map[string]*counter{}
	m.tokens = tokenCounts{}
	m.auth = map[string]int64{}
}

// stamp is the time of an arrival. Stamps rise: one of which we hear late counts as of the one before.
func (m *meter) stamp(came time.Time) int64 {
	m.latest = max(m.latest, m.epoch.Add(came.Sub(m.epoch)).UnixNano())
	return m.latest
}

// arrival is what the meter must know of a request.
type arrival struct {
	came   time.Time
	source string
	user   *userKey // nil: nobody's
	shown  string   // as its authorization; "" when it needs none
	test   bool     // X-RateLimit-Test
}

// arrive counts a request and returns the limit that it is over, if any: the
// source's first. Refused requests are charged to nobody unless CountRejected.
func (m *meter) arrive(a arrival) *limited {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.stamp(a.came)
	m.total++
	if a.shown != "" {
		m.auth[a.shown]++
	}
	counters := []*counter{counterOf(m.sources, a.source, m.rules.source)}
	limit := m.over(counters[0], m.rules.source, at)
	if a.user != nil {
		u := counterOf(m.users, *a.user, m.rules.userAndTest)
		counters = append(counters, u)
		if limit == nil && a.test {
			limit = m.overWindow(u, len(m.rules.user), m.rules.test, at)
		} else if limit == nil {
			limit = m.over(u, m.rules.user, at)
		}
	}
	m.settle(counters, limit, at)
	return limit
}

// refresh counts a refresh by user and returns the limit that it is over, if any.
func (m *meter) refresh(came time.Time, user string, key userKey) *limited {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.stamp(came)
	counters := []*counter{counterOf(m.refreshes, user, m.rules.refresh)}
	limit := m.over(counters[0], m.rules.refresh, at)
	if m.rules.refreshCounts {
		u := counterOf(m.users, key, m.rules.userAndTest)
		counters = append(counters, u)
		if limit == nil {
			limit = m.over(u, m.rules.user, at)
		}
	}
	m.settle(counters, limit, at)
	if limit != nil {
		m.tokens.limited++
	}
	return limit
}

// settle enters the request in all its counters.
func (m *meter) settle(counters []*counter, limit *limited, at int64) {
	for _, c := range counters {
		c.requests++
		c.seen.add(at)
		if limit == nil || m.rules.countRejected {
			c.charged.add(at)
		}
		if limit != nil {
			c.refused++
		}
	}
	if limit != nil {
		m.refused++
	}
}

func (m *meter) over(c *counter, windows []Window, at int64) *limited {
	for i, w := range windows {
		if limit := m.overWindow(c, i, w, at); limit != nil {
			return limit
		}
	}
	return nil
}

func (m *meter) overWindow(c *counter, i int, w Window, at int64) *limited {
	aligned := m.rules.enforcement == EnforceAligned
	if m.rules.enforcement == EnforceOff || c.charged.count(i, at, aligned) < w.Requests {
		return nil
	}
	retryAfter := time.Duration(w.Per)
	if m.rules.toBoundary {
		retryAfter = time.Duration(c.charged.room(i, at, aligned))
	}
	return &limited{window: w, retryAfter: retryAfter}
}

func counterOf[K comparable](counters map[K]*counter, key K, windows []Window) *counter {
	c := counters[key]
	if c == nil {
		c = &counter{seen: newTally(windows), charged: newTally(windows)}
		counters[key] = c
	}
	return c
}
