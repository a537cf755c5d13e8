package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"freeagent-proxy/internal/simulator"
)

// cell is one request of a program, and what it was told.
type cell struct {
	*matrix
	affliction
	method  string
	keyed   bool
	nth     int
	account string
	path    string
	body    string // "": one that says which cell it is
	told    []told // first the request itself, then the same again, under its key
	running *told  // to the same while the first was under way
}

// told is what a program got.
type told struct {
	status      int // 0: no answer
	cut         bool
	body        string
	proxyStatus string
	replayed    bool
	retryAfter  string
}

// run sends the request; if it has a key that counts, through another replica again and again.
func (c *cell) run() {
	c.arm()
	first := make(chan told, 1)
	go func() { first <- c.send(c.nth) }()
	if c.Kind == simulator.FaultStall && c.isKeyed() {
		eventually(c.t, "a request that stalls", func() bool {
			return slices.ContainsFunc(c.sim.Faults(), func(f simulator.Fault) bool { return f.Match.PathPrefix == c.path && f.Hits > 0 })
		})
		meanwhile := c.send(c.nth + 1)
		c.running = &meanwhile
	}
	c.told = append(c.told, <-first)
	if c.isKeyed() {
		c.told = append(c.told, c.send(c.nth+1), c.send(c.nth+2))
	}
}

// arm lets the fault wait for the cell's request.
func (c *cell) arm() {
	if c.Kind != "" {
		c.Match = simulator.Match{Method: c.method, PathPrefix: c.path, Times: c.times}
		c.world.fault(c.Fault)
	}
}

// send sends the cell's request to one of the replicas.
func (c *cell) send(replica int) told {
	var body io.Reader
	if c.method == "POST" || c.method == "PUT" || c.method == "PATCH" {
		body = strings.NewReader(cmp.Or(c.body, fmt.Sprintf(`{"name":"cell %d"}`, c.nth)))
	}
	req, err := http.NewRequest(c.method, c.urls[replica%len(c.urls)]+c.path, body)
	if err != nil {
		c.t.Error(err)
		return told{}
	}
	req.Header.Set("X-FreeAgent-Account", c.account)
	if c.keyed {
		req.Header.Set("Idempotency-Key", fmt.Sprint(c.prefix, "cell-", c.nth))
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return told{body: err.Error()}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return told{
		resp.StatusCode, err != nil, sameURLs(string(text)),
		resp.Header.Get("Proxy-Status"), resp.Header.Get("Idempotency-Replayed") == "true", resp.Header.Get("Retry-After"),
	}
}

// judge compares what the program was told, and what arrived at FreeAgent, with the tables.
func (c *cell) judge(arrived []simulator.Request) {
	acted := 0
	for _, r := range arrived {
		if r.Acted {
			acted++
		}
	}
	var wrong []string
	for _, p := range c.applies() {
		complaint := c.breach(p, len(arrived), acted)
		if complaint == "" {
			wrong = nil
			break
		}
		wrong = append(wrong, complaint)
	}
	if wrong != nil {
		c.t.Errorf("%s: %s\n\tit was told %+v", c, strings.Join(wrong, "; or: "), c.told[0])
	}
	if !c.isRead() && acted > 1 {
		c.t.Errorf("%s: FreeAgent acted %d times", c, acted)
	}
	c.judgeKey()
}

// breach says how a promise was broken.
func (c *cell) breach(p promise, arrived, acted int) string {
	first, want := c.told[0], promise{status: 200}
	if c.method == "POST" {
		want.status = 201
	}
	sendings, actions := c.times+1, 1 // it went well at last
	if c.After {
		actions = sendings
	}
	switch {
	case c.Kind == "" || c.Kind == simulator.FaultLatency:
		sendings, actions = 1, 1
	case p.cut:
		sendings, actions, want.cut = 1, 1, true
	case p.again < c.times:
		sendings, actions = p.again+1, 0
		if c.After {
			actions = sendings
		}
		want.status, want.says = cmp.Or(p.status, c.Status, http.StatusOK), p.says
	}
	switch {
	case first.status != want.status || first.cut != want.cut:
		return fmt.Sprintf("status %d, cut off %v; want %d, %v", first.status, first.cut, want.status, want.cut)
	case !strings.Contains(first.proxyStatus, want.says):
		return fmt.Sprintf("Proxy-Status %q, want %q", first.proxyStatus, want.says)
	case want.says == "" && strings.Contains(first.proxyStatus, "it may have acted"):
		return fmt.Sprintf("Proxy-Status %q", first.proxyStatus)
	case arrived != sendings:
		return fmt.Sprintf("it arrived %d times, want %d", arrived, sendings)
	case acted != actions && !c.isRead():
		return fmt.Sprintf("FreeAgent acted %d times, want %d", acted, actions)
	}
	return ""
}

// judgeKey compares what the same request was told.
func (c *cell) judgeKey() {
	if c.running != nil {
		if complaint := c.breachOfKey(keyRunning, *c.running); complaint != "" {
			c.t.Errorf("%s: the same meanwhile: %s", c, complaint)
		}
	}
	for i, again := range c.told[1:] {
		var wrong []string
		for _, row := range c.keysOf() {
			complaint := c.breachOfKey(row, again)
			if complaint == "" {
				wrong = nil
				break
			}
			wrong = append(wrong, complaint)
		}
		if wrong != nil {
			c.t.Errorf("%s: the same again, time %d: %s\n\tat first %+v\n\tthen %+v", c, i+1, strings.Join(wrong, "; or: "), c.told[0], again)
		}
	}
}

// keysOf is the rows that speak of the cell's key.
func (c *cell) keysOf() []string {
	for _, p := range c.applies() {
		if p.again > 0 && p.again >= c.times {
			return []string{keyAnswered} // it went well at last
		}
	}
	return c.keys
}

// breachOfKey says how what a row of the table for keys promises was broken.
func (c *cell) breachOfKey(row string, again told) string {
	cells := c.underKey[row]
	if len(cells) != 2 {
		c.t.Fatalf("docs/writes.md has no row %q", row)
	}
	first := c.told[0]
	switch parseKept(c.t, cells[0]) {
	case replayed:
		if again.status != first.status || again.body != first.body || !again.replayed || again.cut {
			return fmt.Sprintf("not the answer, again: %d %s", again.status, again.body)
		}
	case conflict:
		words := ""
		if i := strings.LastIndex(cells[0], ": "); i >= 0 {
			words = strings.Trim(cells[0][i+2:], `"`)
		} else if strings.Contains(cells[0], "names the status") {
			words = "with status 201"
		}
		later := strings.Contains(cells[0], "`Retry-After: 2`")
		if again.status != http.StatusConflict || later != (again.retryAfter == "2") || !strings.Contains(again.body, words) {
			return fmt.Sprintf("want 409, %q; got %d, Retry-After %q, %s", cells[0], again.status, again.retryAfter, again.body)
		}
	case resent:
		if again.status/100 != 2 || again.replayed {
			return fmt.Sprintf("it was not sent: %d %s", again.status, again.body)
		}
	}
	return ""
}

// applies are the promises of which one must hold for a cell.
func (c *cell) applies() (all []promise) {
	for _, row := range c.rows {
		if row == rowCut && c.isKeyed() {
			row = rowCutKey
		}
		cells := c.promises[row]
		if len(cells) != 2 {
			c.t.Fatalf("docs/writes.md has no row %q", row)
		}
		column := 1
		if c.isRead() {
			column = 0
		}
		all = append(all, parsePromise(c.t, cells[column]))
	}
	return all
}

func (c *cell) user() string {
	if c.account == account {
		return "owner"
	}
	return c.account
}

func (c *cell) isRead() bool  { return c.method == "GET" || c.method == "HEAD" }
func (c *cell) isKeyed() bool { return c.keyed && c.method == "POST" }

// String names the cell.
func (c *cell) String() string {
	when, key := "before", "without a key"
	if c.After {
		when = "after"
	}
	if c.keyed {
		key = "with a key"
	}
	return fmt.Sprintf("%s %s, %s %d %s, %d times", c.method, key, cmp.Or(c.Kind, "nothing"), c.Status, when, c.times)
}
