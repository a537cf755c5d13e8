package simulator

import (
	"maps"
	"net/http"
	"sync"
	"time"
)

// Request is one request below /v2 as it arrived; GET /_sim/requests. The
// secrets in it are a simulator's, so nothing is left out.
type Request struct {
	Seq    int64     `json:"seq"`  // 1, 2, 3 … in the order of arrival
	Time   time.Time `json:"time"` // never before that of the one before
	Source string    `json:"source"`
	Proto  string    `json:"proto"`
	Method string    `json:"method"`
	// Target is the request-target of the request line, byte for byte.
	Target string `json:"target"`
	// Header has canonical names (net/http keeps no others); Host is among them.
	Header     http.Header `json:"header"`
	BodyBytes  int64       `json:"body_bytes"`
	BodySHA256 string      `json:"body_sha256"` // lower-case hex; of nothing when there was no body
	// Status is what was answered; 0 while it runs, or when no answer was given.
	Status int `json:"status"`
	// Acted tells whether FreeAgent did what was asked, whatever the answer said afterwards.
	Acted bool `json:"acted"`
	// Fault is the kind of the fault that befell it, if any.
	Fault string `json:"fault,omitempty"`
}

// requestLog keeps the last requests. An entry is made when the request
// arrives and completed before its answer leaves, so that a client that has the
// answer finds the whole entry.
type requestLog struct {
	mu   sync.Mutex
	seq  int64
	last time.Time  // the latest entry's
	ring []*Request // by seq modulo its length
}

func newRequestLog(size int) *requestLog { return &requestLog{ring: make([]*Request, size)} }

func (l *requestLog) begin(r *http.Request, source string, at time.Time) *Request {
	e := &Request{
		Time: at, Source: source, Proto: r.Proto, Method: r.Method, Target: r.RequestURI,
		Header: maps.Clone(r.Header), BodySHA256: emptySHA256,
	}
	if r.Host != "" {
		e.Header["Host"] = []string{r.Host}
	}
	if len(r.TransferEncoding) > 0 {
		e.Header["Transfer-Encoding"] = r.TransferEncoding // net/http takes it out of the header, as it does Host
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Seq = l.seq
	if at.Before(l.last) {
		e.Time = l.last
	}
	l.last = e.Time
	l.ring[e.Seq%int64(len(l.ring))] = e
	return e
}

// update changes an entry while others may read it.
func (l *requestLog) update(e *Request, f func(*Request)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(e)
}

// since returns copies of the entries after seq that are still kept, oldest first.
func (l *requestLog) since(seq int64) []Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := []Request{}
	for i := max(seq, l.seq-int64(len(l.ring))) + 1; i <= l.seq; i++ {
		if e := l.ring[i%int64(len(l.ring))]; e != nil && i > 0 {
			list = append(list, *e)
		}
	}
	return list
}

// resize keeps the newest entries that fit.
func (l *requestLog) resize(size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if size == len(l.ring) {
		return
	}
	ring := make([]*Request, size)
	for i := max(0, l.seq-int64(min(size, len(l.ring)))) + 1; i <= l.seq; i++ {
		ring[i%int64(size)] = l.ring[i%int64(len(l.ring))]
	}
	l.ring = ring
}

// clear forgets all entries; numbers go on rising, so that nobody's since is ever ahead of them.
func (l *requestLog) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.ring)
}
