package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"

	"freeagent-proxy/internal/outcomes"
)

// Outcomes remembers what became of writes that carry an Idempotency-Key: *outcomes.Book.
type Outcomes interface {
	// Begin claims the name for a request, or returns the answer that an earlier one got. Its errors are those of package outcomes.
	Begin(ctx context.Context, name outcomes.Name, print outcomes.Fingerprint) (*outcomes.Claim, *outcomes.Answer, error)
}

// keyed is a POST under an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header). What makes another request the
// same one is its method, path, query and body as the client sent them: what we make of the URLs in them depends on the
// name by which the client reaches us, and on the configuration, which may change between the two. A nil keyed is a request without a key.
type keyed struct {
	name  outcomes.Name
	print hash.Hash
	body  hash.Hash
	claim *outcomes.Claim  // the request is ours to send,
	kept  *outcomes.Answer // or this is its answer
}

const (
	keyHeader      = "Idempotency-Key"
	replayedHeader = "Idempotency-Replayed"
	maxKey         = 255
	maxLocation    = 1 << 10 // that is quoted in a sentence
)

// keyed reads the request's key; nil if it has none, or is no POST: FreeAgent's other methods may be sent again as they are.
func (p *Proxy) keyed(r *http.Request, to passage, t target) (*keyed, error) {
	lines, ok := r.Header[keyHeader]
	if !ok || r.Method != http.MethodPost {
		return nil, nil
	}
	if len(lines) != 1 {
		return nil, errKeyMalformed
	}
	key, ok := idempotencyKey(lines[0])
	if !ok {
		return nil, errKeyMalformed
	}
	subdomain := to.subdomain
	if subdomain == "" {
		subdomain = strings.ToLower(strings.Join(r.Header["X-Subdomain"], ","))
	}
	k := &keyed{print: sha256.New(), body: sha256.New()}
	k.name = outcomes.Name{Account: to.account.Name, Subdomain: subdomain, Client: to.client.Name, Key: key}
	_, _ = io.WriteString(k.print, r.Method+" "+t.path+"?"+t.query+"\n") // no hash fails
	return k, nil
}

// idempotencyKey reads a key in the draft's form, a quoted string (RFC 8941, section 3.3.3), or bare, as most programs send
// it. Both forms of one text are the same key.
func idempotencyKey(value string) (key string, ok bool) {
	if quoted, found := strings.CutPrefix(value, `"`); found {
		if value, ok = unquoted(quoted); !ok {
			return "", false
		}
	}
	return value, isVisible(value) && len(value) <= maxKey
}

// isVisible reports whether a text is of visible ASCII characters alone, and not empty.
func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

// unquoted reads a quoted string up to its closing quote, which must be the end.
func unquoted(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), i == len(s)-1
		case c != '\\':
			b.WriteByte(c)
		case i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
			b.WriteByte(s[i])
		default:
			return "", false
		}
	}
	return "", false
}

// reading is the client's body, of which the fingerprint is taken as it is read.
func (k *keyed) reading(body io.Reader) io.Reader {
	if k == nil {
		return body
	}
	return io.TeeReader(body, k.body)
}

// forwardOnce is forward for a request with a key: sent once, whoever asks how often.
func (p *Proxy) forwardOnce(x *exchange, r *http.Request, to passage, t target, b *body) (err error) {
	k := x.keyed
	k.print.Write(k.body.Sum(nil))
	ctx := context.WithoutCancel(r.Context()) // it need not wait for its turn, so the client is taken to be there
	claiming := x.traced.step("claim idempotency key")
	k.claim, k.kept, err = p.config.Outcomes.Begin(ctx, k.name, outcomes.Fingerprint(k.print.Sum(nil)))
	claiming.end()
	switch {
	case err != nil:
		x.explainKeyed("refused")
		return err
	case k.kept == nil:
		x.explainKeyed("new, so the request is sent")
		defer k.claim.End()
		return p.forward(x, r, to, t, b)
	case k.kept.Cut:
		return x.notKept(k.kept)
	}
	x.explainKeyed("known, so the answer that was kept is given again")
	x.Header()[replayedHeader] = []string{"true"}
	if err := p.forward(x, r, to, t, b); err != nil {
		return err
	}
	x.upstream, x.tally.Kept, x.reason = false, true, "kept answer given again: idempotency key"
	return nil
}

// transport is the way of a request: if it has a key, around the sending of it.
func (k *keyed) transport(s *sending) http.RoundTripper {
	if k == nil {
		return s
	}
	return &onceTransport{s, k}
}

// leave is called before each attempt, when nothing but sending is left to do.
func (k *keyed) leave() error {
	if k == nil {
		return nil
	}
	return k.claim.Leave()
}

// onceTransport sends a request with a key and records what became of it, whether or not the client is still there. Or it
// gives the answer that is kept, as FreeAgent sent it: it goes the same way to the client as that first one, which may
// have reached us by another name.
type onceTransport struct {
	*sending
	keyed *keyed
}

func (o *onceTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if kept := o.keyed.kept; kept != nil {
		return &http.Response{
			StatusCode: kept.Status, ProtoMajor: 1, ProtoMinor: 1, Request: req,
			Header: kept.Header.Clone(), Body: io.NopCloser(bytes.NewReader(kept.Body)), ContentLength: int64(len(kept.Body)),
		}, nil
	}
	resp, err := o.sending.RoundTrip(req)
	claim := o.keyed.claim
	if err != nil {
		if failed := (*upstreamError)(nil); errors.As(err, &failed) && failed.sent {
			claim.Doubt()
		} else {
			claim.Drop()
		}
		return nil, err
	}
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized, status == http.StatusTooManyRequests: // it did not act
		claim.Drop()
	case status >= http.StatusInternalServerError: // a gateway gives up while the work goes on
		claim.Doubt()
	default:
		return o.keep(resp)
	}
	return resp, nil
}

// keep reads the answer, of which the client gets nothing until it is on record.
func (o *onceTransport) keep(resp *http.Response) (*http.Response, error) {
	upstream := resp.Body
	body, err := io.ReadAll(io.LimitReader(upstream, outcomes.MaxBody+1))
	whole := err == nil && len(body) <= outcomes.MaxBody
	answer := outcomes.Answer{Status: resp.StatusCode, Header: keptHeader(resp.Header), Body: body, Cut: !whole}
	if whole && !bodiless(resp.StatusCode) {
		answer.Header["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	o.keyed.claim.Keep(answer)
	switch {
	case err != nil:
		failed := &upstreamError{cause: err, sent: true, write: true, timeout: isTimeout(err)}
		if watched, ok := upstream.(*answerBody); ok {
			failed.timeout = context.Cause(watched.ctx) != nil
		}
		_ = upstream.Close()
		return nil, failed
	case whole:
		_ = upstream.Close()
		resp.Body = io.NopCloser(bytes.NewReader(body))
	default:
		resp.Body = &peekedBody{Reader: io.MultiReader(bytes.NewReader(body), upstream), Closer: upstream}
	}
	return resp, nil
}

func bodiless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusNotModified
}

// notForKeeping are response headers that are about one transfer, which ReverseProxy and net/http make anew.
var notForKeeping = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Trailer", "Upgrade", "Te", "Content-Length", "Date"}

// keptHeader is what clients are given of a header, but for what is about this transfer.
func keptHeader(h http.Header) http.Header {
	kept := h.Clone()
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			kept.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range notForKeeping {
		delete(kept, name)
	}
	passed := make(http.Header, len(kept))
	passHeaders(passed, kept)
	return passed
}

// notKept is the refusal of a client that asks again for an answer of which only the header is kept.
func (x *exchange) notKept(kept *outcomes.Answer) error {
	e := &notKeptError{status: kept.Status, location: kept.Header.Get("Location")}
	if x.urls != nil {
		e.location = x.urls.outward.location(e.location, x.urls.prefix)
	}
	if !isVisible(e.location) || len(e.location) > maxLocation {
		e.location = ""
	}
	return e
}
