package proxy

import (
	"slices"
	"sync"
	"time"
)

// Write is a write that was passed on to FreeAgent and has no answer yet.
type Write struct {
	RequestID string
	Client    string
	Account   string
	Method    string
	Path      string // without the query
	Sent      time.Time
}

// writes is those that are under way.
type writes struct {
	mu   sync.Mutex
	sent map[*exchange]time.Time
}

func newWrites() *writes { return &writes{sent: make(map[*exchange]time.Time)} }

func (w *writes) begin(x *exchange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent[x] = time.Now()
}

func (w *writes) end(x *exchange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.sent, x)
}

// Unfinished is the writes of which nobody knows yet what FreeAgent made of them, the oldest first.
func (p *Proxy) Unfinished() []Write {
	p.writes.mu.Lock()
	defer p.writes.mu.Unlock()
	var all []Write
	for x, sent := range p.writes.sent {
		all = append(all, Write{x.requestID, x.client, x.account, x.method, x.path, sent})
	}
	slices.SortFunc(all, func(a, b Write) int { return a.Sent.Compare(b.Sent) })
	return all
}
