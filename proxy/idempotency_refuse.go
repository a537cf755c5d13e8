package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"freeagent-proxy/internal/outcomes"
	"freeagent-proxy/internal/turns"
)

var errKeyMalformed = errors.New("malformed Idempotency-Key")

// notKeptError: FreeAgent answered an earlier request under this key, but the body of its answer is not kept.
type notKeptError struct {
	status   int
	location string
}

func (e *notKeptError) Error() string {
	return fmt.Sprintf("the answer under this key was %d and is not kept whole", e.status)
}

// How long a client is asked to wait before it comes again with its key.
const (
	whileRunning     = 2 * time.Second
	whileUnavailable = 5 * time.Second
	whileFull        = time.Hour // the oldest are forgotten hour by hour
)

// explainKey says why a request with an Idempotency-Key is not sent.
func explainKey(err error) (refusal, bool) {
	f := refusal{status: http.StatusConflict, kind: "http_request_denied"}
	var kept *notKeptError
	switch {
	case errors.Is(err, errKeyMalformed):
		f.status, f.kind = http.StatusBadRequest, "http_request_error"
		f.details = "Idempotency-Key must be one value of 1 to 255 visible ASCII characters; nothing was sent to FreeAgent"
	case errors.Is(err, outcomes.ErrDifferent):
		f.status = http.StatusUnprocessableEntity
		f.details = "this Idempotency-Key was used for another request: method, path, query or body differ; nothing was sent to FreeAgent, use a new key for a new request"
	case errors.Is(err, outcomes.ErrRunning):
		f.after = whileRunning
		f.details = "the first request with this Idempotency-Key is still running; send it again with the same key to get its answer"
	case errors.Is(err, outcomes.ErrUnknown):
		f.details = "what became of the first request with this Idempotency-Key is not known: FreeAgent may have acted on it, so it will not be sent again under this key; look whether it was done, and if not send it with a new key"
	case errors.As(err, &kept):
		f.details = fmt.Sprintf("FreeAgent answered the first request with this Idempotency-Key with status %d, but the answer was too long to keep or broke off; it will not be sent again", kept.status)
		if kept.location != "" {
			f.details += "; what it made is at " + kept.location
		}
	case errors.Is(err, outcomes.ErrFull):
		f.status, f.after = http.StatusServiceUnavailable, whileFull
		f.details = "the outcomes of too many requests with an Idempotency-Key are kept for this client; nothing was sent to FreeAgent, send fewer in a day or send it without a key"
	case errors.Is(err, outcomes.ErrUnavailable), errors.Is(err, turns.ErrAway):
		f.status, f.kind, f.after = http.StatusServiceUnavailable, "proxy_internal_error", whileUnavailable
		f.details = "the proxy cannot note this Idempotency-Key, as its store is away; nothing was sent to FreeAgent, try again"
	default:
		return refusal{}, false
	}
	return f, true
}
