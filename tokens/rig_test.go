package tokens_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"freeagent-proxy/tokens"
)

const account = "acme"

// rig is a Manager with all that it works with.
type rig struct {
	*tokens.Manager
	t      *testing.T
	agent  *freeAgent
	store  *faulty
	events *events
	app    tokens.App
	mu     sync.Mutex
}

// newRig makes a Manager that speaks with a freeAgent in the same process, for synctest.
// change adapts the Config.
func newRig(t *testing.T, change ...func(*tokens.Config)) *rig {
	t.Helper()
	agent := newFreeAgent()
	return newRigOn(t, agent, newMemory(), agent.endpoint(), change...)
}

func newRigOn(t *testing.T, agent *freeAgent, store tokens.Store, endpoint *tokens.Endpoint, change ...func(*tokens.Config)) *rig {
	t.Helper()
	r := &rig{t: t, agent: agent, store: newFaulty(store), events: new(events), app: app}
	cfg := tokens.Config{
		Store:    r.store,
		Endpoint: endpoint,
		App: func(name string) (tokens.App, bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.app, name != "unknown"
		},
		Observe: func(e tokens.Event) {
			r.events.add(e)
			r.Status(e.Account) // which it may
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	r.Manager = tokens.New(cfg)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = r.Close(ctx)
	})
	return r
}

// authorised gives the account a grant with an access token that nobody uses yet, for one refresh.
func (r *rig) authorised() {
	r.t.Helper()
	if err := r.Import(context.Background(), account, r.agent.grant()); err != nil {
		r.t.Fatalf("Import: %v", err)
	}
}

// inUse is authorised, with a token that is in use.
func (r *rig) inUse() tokens.Token {
	r.t.Helper()
	r.authorised()
	return r.token()
}

// token expects a good token within a minute.
func (r *rig) token() tokens.Token {
	r.t.Helper()
	token, err := r.tokenWithin(time.Minute)
	if err != nil {
		r.t.Fatalf("Token: %v", err)
	}
	return token
}

func (r *rig) tokenWithin(d time.Duration) (tokens.Token, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return r.Token(ctx, account)
}

func (r *rig) renewWithin(d time.Duration, resource string, rejected tokens.Token) (tokens.Token, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return r.Renew(ctx, attempt(resource, rejected))
}

// attempt is one that was sent now.
func attempt(resource string, token tokens.Token) tokens.Attempt {
	return tokens.Attempt{Account: account, Token: token, Sent: time.Now(), Resource: resource, Request: resource}
}

// refreshes expects that many refresh requests so far.
func (r *rig) refreshes(want int) {
	r.t.Helper()
	if got := r.agent.count(); got != want {
		r.t.Errorf("%d refresh requests, want %d", got, want)
	}
}

// state expects a state, and returns the status.
func (r *rig) state(want tokens.State) tokens.Status {
	r.t.Helper()
	got := r.Status(account)
	if got.State != want {
		r.t.Errorf("state %q (%s), want %q", got.State, got.Reason, want)
	}
	return got
}

// stored expects a stored grant.
func (r *rig) stored() tokens.Grant {
	r.t.Helper()
	g, err := r.store.Store.Load(context.Background(), account)
	if err != nil {
		r.t.Fatalf("stored grant: %v", err)
	}
	return g
}

func (r *rig) setApp(a tokens.App) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.app = a
}

// sleep lets synctest's time pass and everything settle.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// events collects what the Manager tells.
type events struct {
	mu  sync.Mutex
	all []tokens.Event
}

func (e *events) add(event tokens.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

func (e *events) count(kind tokens.EventKind) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, event := range e.all {
		if event.Kind == kind {
			n++
		}
	}
	return n
}

// expect fails unless each kind was told.
func (e *events) expect(t *testing.T, kinds ...tokens.EventKind) {
	t.Helper()
	for _, kind := range kinds {
		if e.count(kind) == 0 {
			t.Errorf("no event %q; told: %s", kind, e)
		}
	}
}

func (e *events) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var b strings.Builder
	for _, event := range e.all {
		fmt.Fprintf(&b, "%v; ", event)
	}
	return b.String()
}

// bearer is the number of the access token: 3 for "Bearer s3cr3t-access-3=".
func bearer(t *testing.T, token tokens.Token) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscanf(token.Authorization(), "Bearer "+secret+"-access-%d=", &n); err != nil {
		t.Fatalf("token %q: %v", token.Authorization(), err)
	}
	return n
}

// gaps are the pauses between moments, after the first.
func gaps(at []time.Time) []time.Duration {
	var d []time.Duration
	for i := range at[1:] {
		d = append(d, at[i+1].Sub(at[i]))
	}
	return d
}

// most is how many of the moments at most lie within one window.
func most(at []time.Time, window time.Duration) int {
	best := 0
	for i, from := range at {
		n := 0
		for _, t := range at[i:] {
			if t.Sub(from) < window {
				n++
			}
		}
		best = max(best, n)
	}
	return best
}
