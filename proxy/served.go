package proxy

import (
	"net/http"
	"time"

	"go.uber.org/zap/zapcore"
)

// Served is what became of one request, for whoever counts and reports. It holds no secret.
type Served struct {
	Began     time.Time
	Took      time.Duration // from the request's header to the end of its answer
	Waited    time.Duration // of that: for permits and tokens
	RequestID string
	Client    string // empty: nobody that we know
	Account   string // empty: it did not get that far
	Method    string // as the client sent it
	Path      string // likewise, without the query
	Status    int    // 499: the client left before its answer
	Upstream  bool   // the answer is FreeAgent's
	Reason    string // why it was refused, or how the transfer ended; may be empty
	Attempts  int    // how often it was sent
	TraceID   string // in hexadecimal digits; empty: tracing is off
	Tally
}

// MarshalLogObject is the access log's line.
func (s *Served) MarshalLogObject(line zapcore.ObjectEncoder) error {
	answeredBy := "proxy"
	if s.Upstream {
		answeredBy = "upstream"
	}
	line.AddString("request_id", s.RequestID)
	line.AddString("client", s.Client)
	line.AddString("account", s.Account)
	line.AddString("method", s.Method)
	line.AddString("path", s.Path)
	line.AddInt("status", s.Status)
	line.AddInt64("duration_ms", s.Took.Milliseconds())
	line.AddInt64("waited_ms", s.Waited.Milliseconds())
	line.AddInt("attempts", s.Attempts)
	line.AddString("answered_by", answeredBy)
	line.AddString("reason", s.Reason)
	if s.TraceID != "" {
		line.AddString("trace_id", s.TraceID)
	}
	return nil
}

// Tally is what is counted of a request beside what the access log says.
type Tally struct {
	Error    string        // why it was refused, in the words of RFC 9209, section 2.3; empty: it was not
	Answered time.Duration // from the sending of its last attempt until FreeAgent's answer began; 0: there was none
	Replays  Replays
	Doubtful bool // a write of which nobody knows what FreeAgent made of it
	Kept     bool // the answer is one that was kept for its Idempotency-Key
	Cut      bool // FreeAgent's answer broke off: the client got a part of it
}

// Replays is how often a request was sent again, by what had become of the attempt before.
type Replays struct {
	Rejected   int // 401: its token was renewed
	Limited    int // 429: it waited until FreeAgent would take it
	Connection int // the connection broke
	Gateway    int // 502, 503 or 504
}

// count counts a replay, by the status of the answer before; 0: there was none.
func (r *Replays) count(status int) {
	switch status {
	case 0:
		r.Connection++
	case http.StatusUnauthorized:
		r.Rejected++
	case http.StatusTooManyRequests:
		r.Limited++
	default:
		r.Gateway++
	}
}

// tell reports what became of a request.
func (p *Proxy) tell(x *exchange) {
	if p.config.Served == nil {
		return
	}
	x.served = Served{
		Began: x.began, Took: x.took, Waited: x.waited, RequestID: x.requestID, Client: x.client, Account: x.account,
		Method: x.method, Path: x.path, Status: x.status, Upstream: x.upstream, Reason: x.reason, Attempts: x.attempts,
		Tally: x.tally,
	}
	if x.traced != nil {
		x.served.TraceID = x.traced.id()
	}
	p.config.Served(&x.served)
}

// InFlight is how many requests are being answered.
func (p *Proxy) InFlight() int { return int(p.inFlight.Load()) }

// Bodies is what request bodies take up.
type Bodies struct {
	Memory  int64 // bytes that are held for them now, at most MaxBodyMemory
	Spilled int64 // how many went to a temporary file, since the Proxy was made
}

// MaxBodyMemory is the most bytes of Bodies.Memory.
const MaxBodyMemory = allInMemory

// Bodies tells what request bodies take up.
func (p *Proxy) Bodies() Bodies {
	return Bodies{Memory: p.bodies.held.Load(), Spilled: p.bodies.spilled.Load()}
}
