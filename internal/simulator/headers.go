package simulator

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// staticHeaders are those that every answer of the application carries, as
// recorded from the sandbox in October 2025: 4 to 5 KB, most of it the policy.
type staticHeaders struct {
	lines  http.Header
	policy string   // content-security-policy up to connect-src
	server []string // nginx
	filler []byte   // of streams
}

func newStaticHeaders() *staticHeaders {
	s := &staticHeaders{
		server: []string{"nginx"},
		filler: []byte(strings.Repeat("0123456789abcdef", 4096)),
		lines: http.Header{
			"Server":                    {"nginx"},
			"Cache-Control":             {"no-store"},
			"Pragma":                    {"no-cache"},
			"Vary":                      {"Origin"},
			"Strict-Transport-Security": {"max-age=31536000"},
			"X-Frame-Options":           {"SAMEORIGIN"},
			"X-Content-Type-Options":    {"nosniff"},
			"X-Xss-Protection":          {"1; mode=block"},
			"Referrer-Policy":           {"strict-origin-when-cross-origin"},
			"Feature-Policy":            {"camera 'none'; gyroscope 'none'; microphone 'none'; usb 'none'; payment 'none'"},
			"X-Rev":                     {"5f1e0c3a9b7d4826c0de51a7e0a9f3b2c4d6e8f0"},
			"X-Host":                    {"ip-10-0-17-204"},
		},
		policy: contentSecurityPolicy(),
	}
	return s
}

// set adds them to an answer. The slices are shared by all answers; nothing appends to them.
func (s *staticHeaders) set(h http.Header, c *call) {
	for name, lines := range s.lines {
		h[name] = lines
	}
	h["Content-Security-Policy"] = []string{s.policy + c.base} // names our own address, which a rewriting proxy must not touch
	h["X-Request-Id"] = []string{requestID(c.start)}
	h["X-Runtime"] = []string{c.runtime()}
}

// requestID looks like 1-68e0419d-2b2a08c2611fcf37324a1e64, an AWS load balancer's.
func requestID(at time.Time) string {
	id := fmt.Appendf(make([]byte, 0, 36), "1-%08x-", uint32(at.Unix()))
	return string(fmt.Appendf(id, "%016x%08x", rand.Uint64(), rand.Uint32()))
}

// contentSecurityPolicy is about 3 KB long, like the real one. It has no form-action, against which browsers would hold the redirect
// from the approve page back to the program.
func contentSecurityPolicy() string {
	var b strings.Builder
	b.WriteString("default-src 'self'; ")
	for _, directive := range []string{"script-src", "style-src", "img-src", "font-src", "frame-src", "media-src", "worker-src"} {
		b.WriteString(directive + " 'self'")
		for i := range 7 {
			b.WriteString(" https://assets-" + strconv.Itoa(i) + "." + strings.TrimSuffix(directive, "-src") + ".freeagent-static.example")
		}
		b.WriteString("; ")
	}
	b.WriteString("connect-src 'self' https://*.freeagent.com wss://*.freeagent.com ")
	return b.String()
}
