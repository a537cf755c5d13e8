package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"freeagent-proxy/proxy"
	"freeagent-proxy/tokens"
)

// secrets are the tokens that no client and no log may see. Every byte that any rig
// sends to a client is searched for them.
type secrets struct {
	mu    sync.Mutex
	marks [][]byte
	found []string
}

func (s *secrets) mark(tokens ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, token := range tokens {
		if token != "" && !slices.ContainsFunc(s.marks, func(m []byte) bool { return string(m) == token }) {
			s.marks = append(s.marks, []byte(token))
		}
	}
}

func (s *secrets) search(where string, text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, mark := range s.marks {
		if i := bytes.Index(text, mark); i >= 0 {
			s.found = append(s.found, fmt.Sprintf("%s: …%q", where, text[max(0, i-80):i+len(mark)]))
		}
	}
}

func (s *secrets) verify(t *testing.T, log *logBuffer) {
	t.Helper()
	s.search("log", []byte(log.String()))
	for _, leak := range s.found {
		t.Errorf("a token got out: %s", leak)
	}
}

// watchedStore marks every token that is ever kept.
type watchedStore struct {
	tokens.Store
	secrets *secrets
}

func (s watchedStore) Save(ctx context.Context, next tokens.Grant, previous int64) error {
	s.secrets.mark(next.AccessToken, next.RefreshToken)
	return s.Store.Save(ctx, next, previous)
}

// tapListener searches what the proxy sends.
type tapListener struct {
	net.Listener
	secrets *secrets
}

func (l tapListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	_ = conn.(*net.TCPConn).SetWriteBuffer(128 << 10) // as `serve` does it, so that it shows when a slow client takes something
	return &tapConn{TCPConn: conn.(*net.TCPConn), tap: l}, nil
}

// tapConn is a TCP connection to the server in all its methods.
type tapConn struct {
	*net.TCPConn
	tap  tapListener
	tail []byte // of what was sent: a token may be cut in two
}

const longestToken = 256

func (c *tapConn) Write(p []byte) (int, error) {
	text := append(c.tail, p...)
	c.tap.secrets.search("answer", text)
	c.tail = slices.Clone(text[max(0, len(text)-longestToken):])
	return c.TCPConn.Write(p)
}

func (c *tapConn) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

// logBuffer is the proxy's log.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) Sync() error { return nil }

func (l *logBuffer) logger() *zap.Logger {
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	return zap.New(zapcore.NewCore(encoder, l, zapcore.DebugLevel))
}

// served is the access log.
func (l *logBuffer) served(s *proxy.Served) { l.logger().Info("request", zap.Inline(s)) }

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// logLine is a line of the log by its keys.
type logLine map[string]any

// lines returns the log's lines with that message so far.
func (l *logBuffer) lines(message string) []logLine {
	var lines []logLine
	for text := range strings.Lines(l.String()) {
		var line logLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			panic(fmt.Sprintf("log line %q: %v", text, err))
		}
		if line["msg"] == message {
			lines = append(lines, line)
		}
	}
	return lines
}

// logged waits for the access log to have n lines, and returns the last of them.
func (r *rig) logged(n int) logLine {
	r.t.Helper()
	soon(r.t, fmt.Sprintf("%d access log lines", n), func() bool { return len(r.log.lines("request")) >= n })
	lines := r.log.lines("request")
	if len(lines) > n {
		r.t.Fatalf("%d access log lines, want %d: %v", len(lines), n, lines)
	}
	return lines[n-1]
}

// What all tests rely on: a token that reached a client would be seen, though it came in two pieces.
func TestTokensWouldBeSeen(t *testing.T) {
	r, _ := withUpstream(t, func(q *received) bool {
		q.read()
		half := len(accessToken) / 2
		q.write(text("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), chunked("token: "+accessToken[:half], accessToken[half:]))
		return true
	})
	got := r.get("/v2/company")
	r.secrets.mu.Lock()
	defer r.secrets.mu.Unlock()
	if !strings.Contains(got.body, accessToken) {
		t.Fatalf("%q", got.body)
	}
	if len(r.secrets.found) == 0 {
		t.Error("not seen")
	}
	r.secrets.found = nil
}
