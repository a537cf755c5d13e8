package admin

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// Guesses from one address, or from one IPv6 network of a customer's usual size: ten at once, then ten a minute.
	sourceBurst = 10
	sourceEvery = 6 * time.Second
	// Guesses from all addresses together: a hundred at once, then one a second.
	allBurst = 100
	allEvery = time.Second
)

// deviceCookie marks a browser that has shown the right password. It opens nothing; but its guesses are counted by themselves, so
// that nobody can lock the operator out by guessing from the same address, or from very many
// (https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies).
const (
	deviceCookie   = "fap-device"
	deviceLifetime = 30 * 24 * time.Hour
)

// password asks for the operator's.
type password struct {
	digest [sha256.Size]byte
	key    [32]byte // of deviceCookie: good until the process ends

	mu      sync.Mutex
	all     meter
	sources map[string]meter // of those who guessed of late; at most allBurst and a minute's worth, since all bounds them
}

// meter is when all that was counted will be forgotten, if every part of it lasts for a time of its own.
type meter struct{ until time.Time }

// wait is how long until one more of so many may be counted.
func (m meter) wait(now time.Time, burst int, every time.Duration) time.Duration {
	return max(0, m.until.Sub(now.Add(time.Duration(burst-1)*every)))
}

func (m meter) count(now time.Time, every time.Duration) meter {
	if m.until.Before(now) {
		m.until = now
	}
	return meter{m.until.Add(every)}
}

func newPassword(text string) *password {
	p := &password{digest: sha256.Sum256([]byte(text)), sources: make(map[string]meter)}
	_, _ = rand.Read(p.key[:]) // never fails
	return p
}

// try compares a password, unless there were too many wrong ones of late: then it says how long to wait, without having
// compared. Only wrong ones count. A device is known by its cookie; empty: it is not known.
func (p *password) try(text, device string, source netip.Addr) (right bool, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	who := device
	if device == "" {
		who = network(source)
		wait = p.all.wait(now, allBurst, allEvery)
	}
	if wait = max(wait, p.sources[who].wait(now, sourceBurst, sourceEvery)); wait > 0 {
		return false, wait
	}
	digest := sha256.Sum256([]byte(text))
	if subtle.ConstantTimeCompare(digest[:], p.digest[:]) == 1 {
		return true, 0
	}
	for name, m := range p.sources {
		if !m.until.After(now) {
			delete(p.sources, name)
		}
	}
	p.sources[who] = p.sources[who].count(now, sourceEvery)
	if device == "" {
		p.all = p.all.count(now, allEvery)
	}
	return false, 0
}

// network is an IPv4 address, or the /64 that an IPv6 address is in: who has one address of it has all.
func network(source netip.Addr) string {
	if source.Is6() {
		if prefix, err := source.Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return source.String()
}

// authenticate asks for the password, if there is one.
func (h *handler) authenticate(w http.ResponseWriter, r *http.Request) bool {
	p := h.password
	if p == nil {
		return true
	}
	_, text, shown := r.BasicAuth()
	if !shown {
		demand(w, "The password is missing. It is what admin.password_env or admin.password_file names; any user name will do.")
		return false
	}
	source, device := h.Source(r), p.device(r)
	right, wait := p.try(text, device, source)
	switch {
	case wait > 0:
		seconds := int(math.Ceil(wait.Seconds()))
		w.Header().Set("Retry-After", fmt.Sprint(seconds))
		refuse(w, http.StatusTooManyRequests, fmt.Sprintf("There were too many wrong passwords. Try again in %d seconds.", seconds))
	case !right:
		h.Observe(Event{Kind: EventWrongPassword, Source: source})
		demand(w, "The password is wrong. It is what admin.password_env or admin.password_file names; any user name will do.")
	default:
		if device == "" {
			http.SetCookie(w, p.newDevice(h.isSecure(r)))
		}
	}
	return right
}

func demand(w http.ResponseWriter, sentence string) {
	w.Header().Set("WWW-Authenticate", `Basic realm="freeagent-proxy", charset="UTF-8"`)
	refuse(w, http.StatusUnauthorized, sentence)
}

// device is the name of a browser that has shown the right password to this process; empty: it has not.
func (p *password) device(r *http.Request) string {
	cookie, err := r.Cookie(deviceCookie)
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(cookie.Value, ".")
	if !hmac.Equal([]byte(cookie.Value), []byte(p.sign(name))) {
		return ""
	}
	return name
}

func (p *password) newDevice(secure bool) *http.Cookie {
	return &http.Cookie{
		Name: deviceCookie, Value: p.sign(rand.Text()), Path: "/", MaxAge: int(deviceLifetime.Seconds()),
		HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode,
	}
}

func (p *password) sign(name string) string {
	mac := hmac.New(sha256.New, p.key[:])
	mac.Write([]byte(name))
	return name + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// isSecure reports whether the browser speaks TLS with who stands before us.
func (h *handler) isSecure(r *http.Request) bool { return strings.HasPrefix(h.base(r), "https:") }
