package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"

	"freeagent-proxy/internal/admin"
	"freeagent-proxy/tokens"
)

// companyNames learns what the accounts' companies are called at FreeAgent, for the operator to know them by. It asks behind
// his back: whoever looks gets what is known, and finds more the next time.
type companyNames struct {
	// ask asks FreeAgent. errNotAsked: the question did not get that far.
	ask func(ctx context.Context, account string) (name string, err error)

	mu      sync.Mutex
	known   map[string]companyName // by account
	asking  int                    // how many questions are on their way
	closed  bool
	running sync.WaitGroup
}

// companyName is what is known of one.
type companyName struct {
	name string
	next time.Time // not asked again before then
}

const (
	// nameLasts is for how long a name is not asked for again, and neither is one that FreeAgent did not tell.
	nameLasts = 24 * time.Hour
	// nameRetry is the pause after a question that FreeAgent did not get.
	nameRetry = time.Minute
	// maxAsking is how many questions are on their way at a time: of many accounts some are asked for at each look.
	maxAsking = 5
	// namePatience bounds one question.
	namePatience = 30 * time.Second
	// maxCompanyName is the longest name that is shown, in characters.
	maxCompanyName = 100
)

// errNotAsked: no budget or no token, so that nothing was sent.
var errNotAsked = errors.New("not sent to FreeAgent")

// of is the company's name as far as it is known. may says that FreeAgent can be asked for it now.
func (c *companyNames) of(account string, may bool) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.known[account]
	if may && !c.closed && c.asking < maxAsking && !time.Now().Before(known.next) {
		c.keep(account, known.name, nameLasts)
		c.asking++
		asked := c.known[account]
		c.running.Go(func() { c.learn(account, asked) })
	}
	return known.name
}

// learn asks. What was known when it did is void if it was forgotten meanwhile.
func (c *companyNames) learn(account string, asked companyName) {
	ctx, cancel := context.WithTimeout(context.Background(), namePatience)
	defer cancel()
	name, err := c.ask(ctx, account)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asking--
	switch {
	case c.known[account] != asked:
	case err == nil:
		c.keep(account, name, nameLasts)
	case errors.Is(err, errNotAsked):
		c.keep(account, asked.name, nameRetry)
	}
}

// forget lets an account's company be asked for anew: it may be another one.
func (c *companyNames) forget(account string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, account)
}

// keep notes a name. c.mu is held.
func (c *companyNames) keep(account, name string, lasts time.Duration) {
	if c.known == nil {
		c.known = make(map[string]companyName)
	}
	c.known[account] = companyName{name, time.Now().Add(lasts)}
}

// close asks no more. What is on its way ends by itself, and is not worth waiting for.
func (c *companyNames) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		c.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(time.Second):
	}
}

// observeGrants is observeTokens, and lets an account's company be asked for anew when it may be another one.
func (s *server) observeGrants() func(tokens.Event) {
	tell := observeTokens(s.log)
	return func(e tokens.Event) {
		if e.Kind == tokens.EventAuthorized || e.Kind == tokens.EventRemoved {
			s.names.forget(e.Account)
		}
		tell(e)
	}
}

// ample reports whether a budget would not miss a permit: nobody waits for one, and at least half of each window is left.
func ample(b admin.Budget) bool {
	for _, w := range b.Windows {
		if 2*w.Remaining < w.Requests {
			return false
		}
	}
	return b.Queue == 0 && b.PausedUntil == nil
}

// askCompanyName asks FreeAgent by way of the proxy, at its own entrance: counted, and never waiting.
func askCompanyName(ctx context.Context, proxy http.Handler, account string) (name string, err error) {
	target := "/accounts/" + url.PathEscape(account) + "/v2/company"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+target, nil)
	if err != nil {
		return "", fmt.Errorf("ask for the company's name: %w", err)
	}
	req.RequestURI = target
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Prefer", "wait=0")
	got := heldAnswer{header: make(http.Header), status: http.StatusOK}
	if err := got.of(proxy, req); err != nil {
		return "", err
	}
	switch ours := got.header.Get("Proxy-Status") != ""; {
	case ours && (got.status == http.StatusTooManyRequests || got.status == http.StatusServiceUnavailable):
		return "", errNotAsked
	case got.status != http.StatusOK:
		return "", fmt.Errorf("ask for the company's name: status %d", got.status)
	}
	var answer struct{ Company struct{ Name string } }
	if err := json.Unmarshal(got.body.Bytes(), &answer); err != nil {
		return "", fmt.Errorf("read the company: %w", err)
	}
	return oneLine(answer.Company.Name, maxCompanyName), nil
}

// oneLine is a text that others made, fit for a line of a page or a terminal: nothing in it moves a cursor, and it is of so many
// characters at most.
func oneLine(text string, most int) string {
	plain := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text))
	if len(plain) > most {
		plain = append(plain[:most-1], '…')
	}
	return strings.TrimSpace(string(plain))
}

// heldAnswer is a ResponseWriter for an answer that this process reads itself.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// maxHeld is how much of an answer is held.
const maxHeld = 64 << 10

// of lets a handler answer.
func (a *heldAnswer) of(handler http.Handler, req *http.Request) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			if fault != http.ErrAbortHandler {
				panic(fault)
			}
			err = errors.New("the answer broke off")
		}
	}()
	handler.ServeHTTP(a, req)
	return nil
}

// Header is that of http.ResponseWriter.
func (a *heldAnswer) Header() http.Header { return a.header }

// WriteHeader is that of http.ResponseWriter.
func (a *heldAnswer) WriteHeader(status int) { a.status = status }

// Write is that of http.ResponseWriter.
func (a *heldAnswer) Write(p []byte) (int, error) {
	if a.body.Len()+len(p) > maxHeld {
		return 0, errors.New("the answer is longer than a company is")
	}
	return a.body.Write(p)
}
