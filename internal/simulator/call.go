package simulator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The paths of OAuth, slashes folded.
const (
	approvePath  = "/v2/approve_app"
	decisionPath = "/v2/approve_app/decision"
	tokenPath    = "/v2/token_endpoint"
)

// emptySHA256 is the hash of a body that is not there.
const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// call is one request on its way through serve.
type call struct {
	w     http.ResponseWriter
	r     *http.Request
	cfg   *Config // as it was when the request arrived
	start time.Time
	came  time.Time // when the machine had it: earlier, if it was too busy for us to begin then
	path  string    // slashes folded
	from  string    // the client's address without its port
	entry *Request
	base  string // begins absolute URLs

	stream uint32 // how many requests have come on its connection, with it

	body       []byte // nil when there is none, or too much of it to be parsed
	bodyBytes  int64
	bodySHA256 string
	value      any // body, parsed on first use
	valueErr   error
	isParsed   bool

	token     accessToken
	standing  standing
	subdomain string // X-Subdomain, for users who may use it
	grantForm *grantForm
	company   *company
}

func (s *Simulator) begin(w http.ResponseWriter, r *http.Request, path string) *call {
	s.enter()
	c := &call{w: w, r: r, cfg: s.cfg.Load(), start: time.Now(), path: path, from: r.RemoteAddr, bodySHA256: emptySHA256}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		c.from = host
	}
	c.came = c.start
	if w := c.wire(); w != nil {
		c.stream = w.requests.Add(1)
		c.came = c.start.Add(-sinceReceived(w.Conn))
	}
	c.entry = s.log.begin(r, c.from, c.came)
	c.base = c.cfg.PublicURL
	if c.base == "" {
		c.base = requestBase(r)
	}
	return c
}

// requestBase is the address that the client used.
func requestBase(r *http.Request) string {
	host := r.Host
	if host == "" { // HTTP/1.0 need not say
		if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
			host = addr.String()
		}
	}
	if r.TLS != nil {
		return "https://" + host
	}
	return "http://" + host
}

// isAPI tells a request for a resource from OAuth and from what is not FreeAgent's.
func (c *call) isAPI() bool {
	return strings.HasPrefix(c.path, "/v2/") && c.path != approvePath && c.path != decisionPath && c.path != tokenPath
}

// count enters the request in the counts, and returns the limit that it is over, if any.
func (s *Simulator) count(c *call) *limited {
	if !c.isAPI() {
		return s.meter.arrive(arrival{came: c.came, source: c.from})
	}
	scheme, token, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	switch {
	case scheme == "":
		c.standing = noToken
	case !strings.EqualFold(scheme, "bearer"):
		c.standing = otherScheme
	default:
		c.token, c.standing = s.grants.look(strings.TrimSpace(token))
	}
	a := arrival{came: c.came, source: c.from, shown: string(c.standing), test: truthy(c.r.Header.Get("X-RateLimit-Test"))}
	if c.isPractice() {
		c.subdomain = c.r.Header.Get("X-Subdomain")
	}
	if c.token.user != "" {
		key := c.key(c.token.user, c.token.client)
		a.user = &key
	}
	return s.meter.arrive(a)
}

func (c *call) isPractice() bool { return slices.Contains(c.cfg.PracticeUsers, c.token.user) }

// key is what the user's limits count by.
func (c *call) key(user, client string) userKey {
	key := userKey{user: user, subdomain: c.subdomain}
	if c.cfg.LimitBySource {
		key.source = c.from
	}
	if c.cfg.LimitByApp {
		key.app = client
	}
	return key
}

func truthy(s string) bool {
	return !slices.Contains([]string{"", "0", "f", "false", "off", "no"}, strings.ToLower(s))
}

var errTooLarge = errors.New("body is larger than max_parsed_body")

// readBody reads the body to its end, as nginx does before the application sees
// anything. It keeps what may be parsed and hashes all of it as it passes.
func (s *Simulator) readBody(c *call) error {
	if c.r.Body == nil || c.r.Body == http.NoBody {
		return nil
	}
	buffer := s.copyBuffer()
	defer s.buffers.Put(buffer)
	keep := c.cfg.MaxParsedBody
	if c.r.ContentLength > keep {
		keep = 0
	}
	hash := sha256.New()
	kept := make([]byte, 0, min(keep, max(0, c.r.ContentLength)))
	for {
		n, err := c.r.Body.Read(*buffer)
		hash.Write((*buffer)[:n])
		c.bodyBytes += int64(n)
		if c.bodyBytes <= keep {
			kept = append(kept, (*buffer)[:n]...)
		} else {
			kept = nil
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if c.bodyBytes > 0 {
		c.body = kept
	}
	c.bodySHA256 = hex.EncodeToString(hash.Sum(nil))
	s.log.update(c.entry, func(e *Request) { e.BodyBytes, e.BodySHA256 = c.bodyBytes, c.bodySHA256 })
	return nil
}

func (s *Simulator) copyBuffer() *[]byte {
	if b, ok := s.buffers.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 32<<10)
	return &b
}

// parsed returns the body as a value: nil without a body, errTooLarge when there was too much of it.
func (c *call) parsed() (any, error) {
	if !c.isParsed {
		c.value, c.valueErr = c.parse()
		c.isParsed = true
	}
	return c.value, c.valueErr
}

// parse takes the body for what its first byte says; the Content-Type of real clients is no guide.
func (c *call) parse() (any, error) {
	text := bytes.TrimSpace(c.body)
	switch {
	case c.bodyBytes > 0 && c.body == nil:
		return nil, errTooLarge
	case len(text) == 0:
		return nil, nil
	case text[0] == '<':
		return parseXML(text)
	}
	return parseJSON(text)
}

// write identifies the request for the search for duplicates.
func (c *call) write() write {
	w := write{scope: c.token.user + "\n" + c.subdomain + "\n" + c.path}
	if id := c.r.Header.Get("X-Sim-Logical-Id"); id != "" {
		w.marks = []string{"id " + id}
		return w
	}
	if body, err := c.parsed(); err == nil {
		if reference := recordOf(body).text("reference"); reference != "" {
			w.marks = append(w.marks, "reference "+reference)
		}
	}
	if c.bodyBytes > 0 {
		w.marks = append(w.marks, "body "+c.bodySHA256)
	}
	return w
}

// recordOf returns what is inside the root of a body, or the body itself if it has no root.
func recordOf(body any) object {
	o, _ := body.(object)
	if len(o) == 1 {
		if inner, ok := o[0].value.(object); ok {
			return inner
		}
	}
	return o
}

// lifeKey finds, in a request's context, the channel that closes with its server.
type lifeKey struct{}

// sleep waits for d, or until the server closes. That the client has gone does
// not shorten it: FreeAgent carries on then, too.
func (c *call) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	closed, _ := c.r.Context().Value(lifeKey{}).(<-chan struct{}) // nil, which never closes, without a Server
	select {
	case <-timer.C:
	case <-closed:
	}
}

// stall waits until the client has gone or the server closes, at most for d if that is given.
func (c *call) stall(d time.Duration) {
	ctx := c.r.Context()
	if d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	<-ctx.Done()
}

// hangUp closes the connection (in HTTP/2: the stream) without another byte. It does not return.
func hangUp() { panic(http.ErrAbortHandler) }
