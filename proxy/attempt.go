package proxy

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"freeagent-proxy/limiter"
)

// errStalled ends an attempt that has made no progress for the upstream timeout.
var errStalled = errors.New("no progress within the upstream timeout")

// attempt is one sending of a request, until its answer has been read. It is watched by
// one timer through all phases (connecting, sending, waiting for the answer, reading it), which each sign of
// life sets back, so that a long transfer may take as long as it moves.
//
// Its permit is open until FreeAgent has surely counted the request: when its answer comes, or
// countedWithin after the last byte was written. It is given back only when not a byte had left.
type attempt struct {
	permit    *limiter.Permit
	step      step
	header    [1]string // Authorization
	answer    answerBody
	began     time.Time
	alive     atomic.Int64 // when it last showed life, in nanoseconds since began; or paused
	written   atomic.Int64 // when the last byte of the request was, likewise; 0: it was not
	connected bool
	conn      *countedConn // that it was given
	before    int64        // what had been written to it by then

	// What costs something to make. It serves one attempt after another; see end.
	timeout time.Duration
	trace   httptrace.ClientTrace
	ctx     context.Context
	cancel  context.CancelCauseFunc
	request *http.Request
	watch   *time.Timer // calls look

	mu      sync.Mutex // held by look, and where an attempt begins or ends
	active  bool       // between these
	watched bool       // look will be called, within countedWithin, also of the next attempt: looking costs less than setting a timer twice
}

// countedWithin is the longest that a request is taken to be on its way to where FreeAgent counts it.
const countedWithin = 250 * time.Millisecond

// paused is an attempt's alive while it is not watched.
const paused = math.MaxInt64

// newAttempt makes one. Its context is neither the client's, by which it would end when that leaves, nor of
// ReverseProxy's making, by which 1xx answers would be passed on: HTTP/1.0 clients cannot read them, and their headers
// are not cleaned.
func newAttempt(timeout time.Duration) *attempt {
	a := &attempt{timeout: timeout}
	a.trace.GotConn = func(got httptrace.GotConnInfo) { // again, if the transport could write nothing to the first one
		a.connected = true
		a.written.Store(0)
		if a.conn = counted(got.Conn); a.conn != nil {
			a.before = a.conn.written.Load()
		}
	}
	a.trace.WroteRequest = func(httptrace.WroteRequestInfo) { a.written.Store(int64(time.Since(a.began))) }
	ctx, cancel := context.WithCancelCause(context.Background())
	a.ctx, a.cancel = httptrace.WithClientTrace(ctx, &a.trace), cancel // in this order, since the trace is looked up more often
	a.request = new(http.Request).WithContext(a.ctx)
	a.watch = time.AfterFunc(timeout, a.look)
	a.watch.Stop()
	return a
}

// begin starts an attempt, and the watch.
func (s *sending) begin(permit *limiter.Permit) *attempt {
	a := s.spare
	s.spare = nil
	if a == nil {
		a = newAttempt(s.p.config.Timeout)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active, a.permit, a.began = true, permit, time.Now()
	if !a.watched {
		a.watched = true
		a.watch.Reset(min(countedWithin, a.timeout))
	}
	return a
}

// look ends the attempt if it has shown no life for the timeout, and closes its permit when that is due; else it looks again then.
func (a *attempt) look() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watched = a.active; !a.active {
		return
	}
	now := time.Since(a.began)
	left, counted := a.timeout, countedWithin
	if written := a.written.Load(); written != 0 {
		counted -= now - time.Duration(written)
	}
	if counted <= 0 {
		a.permit.Sent()
		counted = countedWithin
	}
	if alive := a.alive.Load(); alive != paused {
		left -= now - time.Duration(alive)
	}
	if left <= 0 {
		a.cancel(errStalled)
		return
	}
	a.watch.Reset(min(left, counted))
}

// sent reports whether bytes of the request may have reached FreeAgent, once it has failed. After a timeout they may
// be leaving still.
func (a *attempt) sent(timeout bool) bool {
	if !a.connected || a.conn == nil || timeout {
		return a.connected
	}
	return a.conn.written.Load() != a.before
}

// progress notes a sign of life, and returns when it was, since the attempt began.
func (a *attempt) progress() time.Duration {
	alive := time.Since(a.began)
	a.alive.Store(int64(alive))
	return alive
}

func (a *attempt) pause() { a.alive.Store(paused) }

// end ends the attempt. It serves the exchange's next one, or the next exchange's, if nobody can still have anything to do with it: the
// transport has told that the request was written, which is the last that it does with it, and its answer was read to the end.
func (a *attempt) end() {
	a.step.end()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active = false
	if a.written.Load() == 0 || !a.answer.whole || a.ctx.Err() != nil {
		a.watch.Stop()
		a.cancel(nil)
		return
	}
	a.answer.x.sending.spare = a
	a.permit, a.step, a.answer, a.conn, a.connected = nil, step{}, answerBody{}, nil, false
	a.request.Header, a.request.Body, a.request.GetBody = nil, nil, nil
	a.alive.Store(0)
	a.written.Store(0)
}

// reader opens a request body. Reading a long one counts as progress; a short one goes in
// one piece and must stay of the type that the transport knows to be in memory.
func (a *attempt) reader(b *body) io.ReadCloser {
	if b.file == nil {
		return b.open()
	}
	return &uploadBody{ReadCloser: b.open(), attempt: a}
}

// uploadBody is a long request body on its way upstream.
type uploadBody struct {
	io.ReadCloser
	*attempt
}

func (b *uploadBody) Read(p []byte) (int, error) {
	b.progress()
	return b.ReadCloser.Read(p)
}

// answerBody is FreeAgent's answer on its way to the client. The watch runs on between two
// reads, so that a client that stops reading does not hold a connection for ever.
type answerBody struct {
	io.ReadCloser
	*attempt
	x     *exchange
	read  bool  // some of it
	whole bool  // all of it
	left  int64 // of a short answer of known length, in bytes
}

func (b *answerBody) Read(p []byte) (int, error) {
	if b.read && b.left > 0 && b.x.status != 0 {
		_ = b.x.control.Flush()
	}
	b.x.came = time.Time{}
	n, err := b.ReadCloser.Read(p)
	if n > 0 || !b.read {
		alive := b.progress()
		b.x.came = b.began.Add(alive)
		if !b.read {
			b.x.tally.Answered = alive
		}
	}
	b.read, b.left = true, b.left-int64(n)
	switch {
	case errors.Is(err, io.EOF):
		b.whole = true
	case err != nil:
		b.x.reason, b.x.tally.Cut = "upstream broke off its answer", true
		b.step.failed("connection_terminated")
	}
	return n, err
}

// Close ends the attempt. A second one does nothing; the body must not be used by then, as the attempt may serve another request.
func (b *answerBody) Close() error {
	if b.ReadCloser == nil {
		return nil
	}
	defer b.end()
	return b.ReadCloser.Close()
}

// unrepeatable is the body of a request that has none. Go's transport would send such a request again
// by itself when a kept-alive connection breaks, uncounted; with a body that cannot be
// opened anew it leaves that to us. Together with identity nothing of it shows on the wire.
type unrepeatable struct{}

func (unrepeatable) Read([]byte) (int, error)         { return 0, io.EOF }
func (unrepeatable) WriteTo(io.Writer) (int64, error) { return 0, nil }
func (unrepeatable) Close() error                     { return nil }

var identity = []string{"identity"}
