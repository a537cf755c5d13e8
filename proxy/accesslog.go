package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"runtime/debug"
	"strings"
	"time"

	"go.uber.org/zap"

	"freeagent-proxy/limiter"
)

// StatusClientGone is logged and counted, never sent: the client left before its answer (nginx's 499).
const StatusClientGone = 499

// exchange is one request and its answer: the ResponseWriter that all steps write to,
// and what the access log says of it.
type exchange struct {
	http.ResponseWriter
	control   http.ResponseController
	idle      time.Duration // how long the client may take none of the answer
	moved     time.Time     // when the deadline for that was last set
	came      time.Time     // when something of FreeAgent's answer last came
	began     time.Time
	requestID string
	told      *[2]string // the values of headers of ours: X-Request-Id, RateLimit
	method    string
	path      string // see loggedPath
	client    string
	account   string
	budgets   []limiter.Budget // that it is counted in, once that is known
	settings  *settings        // by which it is judged
	debug     *zap.Logger      // what wants to know each decision; nil: nobody
	rateLimit *rateLimit       // what the client is told of them
	reason    string           // why we refused, or how the transfer ended
	status    int              // 0 until the header is written
	took      time.Duration    // until the end of the answer; known when it is logged
	waited    time.Duration    // for permits and tokens
	attempts  int
	tally     Tally
	keyed     *keyed  // nil: it has no idempotency key
	urls      *urls   // nil: URLs pass as they are
	traced    *traced // nil: tracing is off
	upstream  bool    // the answer is FreeAgent's
	unread    bool    // the request has a body that was not read to its end
	served    Served
	usage     [4]limiter.Usage

	// What the steps need, made once and used again; see newExchange.
	sending sending
	rewrite urls
}

// newExchange makes one for the pool. The parts of it that cost something to make are each exchange's own, but
// outlive it. Nothing may hold on to an exchange when its request is answered.
func (p *Proxy) newExchange() any {
	x := new(exchange)
	s := &x.sending
	s.reverse = httputil.ReverseProxy{
		Rewrite:        s.rewrite,
		ModifyResponse: s.receive,
		ErrorHandler:   func(_ http.ResponseWriter, _ *http.Request, err error) { s.err = err },
		BufferPool:     p.buffers,
		ErrorLog:       discard, // what ends a transfer is in the access log
	}
	return x
}

func (p *Proxy) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := p.exchanges.Get().(*exchange)
	x.ResponseWriter, x.control = w, *http.NewResponseController(w)
	x.settings, x.debug = p.settings.Load(), p.listening()
	x.idle, x.began = p.config.Timeout, time.Now()
	x.requestID, x.method, x.path = requestID(r), r.Method, loggedPath(r.RequestURI)
	x.unread = r.ContentLength != 0
	x.told = &[...]string{x.requestID, ""} // not x's own: who reads the header may do so when x serves another request
	w.Header()["X-Request-Id"] = x.told[:1:1]
	p.inFlight.Add(1)
	if p.config.Tracer != nil {
		p.trace(x, r)
	}
	return x
}

// loggedPath is the path as the client sent it, without the query, which may hold secrets: also one whose
// question mark a program has encoded with the rest, and a fragment, which is never to be sent.
func loggedPath(requestURI string) string {
	path := originForm(requestURI)
	if !strings.ContainsAny(path, "?#%") {
		return path
	}
	for _, end := range []string{"?", "#", "%3F", "%3f"} {
		path, _, _ = strings.Cut(path, end)
	}
	return path
}

// finish tells what became of the request, whatever happened, and answers a panic of ours.
func (p *Proxy) finish(x *exchange, r *http.Request) {
	fault := recover()
	if fault != nil && fault != http.ErrAbortHandler {
		p.config.Log.Error("request handler panicked; please report this with the stack",
			zap.String("request_id", x.requestID), zap.Any("panic", fault), zap.ByteString("stack", debug.Stack()))
		begun := x.status != 0
		p.refuse(x, r, fmt.Errorf("%w: %v", errInternal, fault))
		fault = nil
		if begun {
			fault = http.ErrAbortHandler // what has begun must not look whole
		}
	}
	if fault == http.ErrAbortHandler && x.reason == "" {
		x.reason = "client broke off the answer"
	}
	if x.reason == "" && !isRead(x.method) && presence(r).Err() != nil {
		x.reason = "client had left, or closed its half of the connection, before the answer"
	}
	x.took = time.Since(x.began)
	x.explainAnswer()
	p.tell(x)
	p.inFlight.Add(-1)
	x.traced.end(x)
	if fault != nil {
		// The server drops the connection, so that the client sees a truncated answer as one. What it has of it must
		// leave first: a client that sees nothing at all may send a write again by itself.
		_ = x.control.Flush()
		panic(fault)
	}
	reverse, spare := x.sending.reverse, x.sending.spare
	*x = exchange{}
	x.sending.reverse, x.sending.spare = reverse, spare
	p.exchanges.Put(x)
}

// extend gives the client another while to take some of the answer; each write does. net/http takes the deadline off the
// connection behind each answer, so it is never one of an earlier request that holds.
func (x *exchange) extend() {
	if x.came.IsZero() {
		x.came = time.Now()
	} // else it was a moment ago: what comes is written at once, and so is what came before the header behind that
	if x.came.Sub(x.moved) > x.idle/8 {
		x.moved = x.came
		_ = x.control.SetWriteDeadline(x.moved.Add(x.idle)) // a writer without deadlines is a test's
	}
}

// WriteHeader notes the status. What came by now is of an earlier attempt, maybe long ago.
func (x *exchange) WriteHeader(status int) {
	x.came = time.Time{}
	x.extend()
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write notes the implied 200.
func (x *exchange) Write(p []byte) (int, error) {
	x.extend()
	x.came = time.Time{}
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return x.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush and set deadlines.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// maxRequestID is the longest X-Request-Id that is taken over from a client.
const maxRequestID = 128

// requestID is the client's own X-Request-Id if it can be logged and returned as it is, else a new one.
func requestID(r *http.Request) string {
	if given := r.Header["X-Request-Id"]; len(given) == 1 && isPlainToken(given[0]) {
		return given[0]
	}
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	return hex.EncodeToString(id[:])
}

func isPlainToken(s string) bool {
	if s == "" || len(s) > maxRequestID {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && c != '-' && c != '_' && c != '.' && c != ':' && c != '/' && c != '+' && c != '=' {
			return false
		}
	}
	return true
}
