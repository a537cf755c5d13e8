package tokens

import (
	"context"
	"errors"
	"io"
	"time"
)

// patienceSteps is in how many steps a call's patience is counted.
const patienceSteps = 30

// withPatience is context.WithTimeout, but for time in which the process was halted (SIGSTOP, a
// laptop's lid), of which at most one step counts: an answer that came meanwhile lies ready, and
// may be the only copy of a new pair. Its Cause is then context.DeadlineExceeded.
func withPatience(parent context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	step, left := max(timeout/patienceSteps, 1), timeout
	var timer *time.Timer
	armed := make(chan struct{})
	timer = time.AfterFunc(step, func() {
		<-armed
		if left -= step; left <= 0 {
			cancel(context.DeadlineExceeded)
		} else if ctx.Err() == nil {
			timer.Reset(step)
		}
	})
	close(armed)
	return ctx, func() {
		timer.Stop()
		cancel(context.Canceled)
	}
}

// errTooLate: the process was halted, or found no connection, for longer than a Lease's leave lasts.
var errTooLate = errors.New("nothing was sent: the leave to spend the refresh token had run out before there was a connection; it is tried again")

// leaving is a request's body, with the refresh token in it, that may not begin to leave too late. net/http sends the
// headers before it reads such a body; without one the request is not acted upon.
type leaving struct {
	io.ReadCloser
	conversation *conversation
	begun        bool
}

// Read is called when the body is written.
func (l *leaving) Read(p []byte) (int, error) {
	if !l.begun && past(l.conversation.until, time.Now()) {
		l.conversation.tooLate.Store(true)
		return 0, errTooLate
	}
	l.begun = true
	return l.ReadCloser.Read(p)
}

// past reports whether now is after a moment by either clock: the monotonic one stands still
// while the machine sleeps, the wall clock may be set back.
func past(until, now time.Time) bool {
	return !now.Before(until) || !now.Round(0).Before(until.Round(0))
}
