package admin

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// flowLifetime is how long FreeAgent's user may take to approve. The code that comes of it lasts 15 minutes.
	flowLifetime = 10 * time.Minute
	// maxFlows is how many are remembered; the oldest goes for a new one.
	maxFlows = 64
)

// flow is one run of the authorization-code flow (RFC 6749, section 4.1), from Connect until FreeAgent's answer.
type flow struct {
	id       string // names it to the browser, also in the address of the page that tells how it ended
	state    string // what FreeAgent sends back
	secret   string // in the cookie of the browser that began it
	account  string
	redirect string // redirect_uri
	begun    time.Time

	claimed bool          // somebody brought the answer
	done    chan struct{} // closed when outcome is there
	outcome outcome
}

// flows are those of the last flowLifetime.
type flows struct {
	mu  sync.Mutex
	all []*flow // by begun
}

// begin remembers a new flow.
func (s *flows) begin(account, redirect string) *flow {
	f := &flow{
		id: rand.Text(), state: rand.Text(), secret: rand.Text(),
		account: account, redirect: redirect, begun: time.Now(), done: make(chan struct{}),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	if len(s.all) == maxFlows {
		s.all = slices.Delete(s.all, 0, 1)
	}
	s.all = append(s.all, f)
	return f
}

// forget drops those that are too old. mu is held.
func (s *flows) forget() {
	s.all = slices.DeleteFunc(s.all, func(f *flow) bool { return time.Since(f.begun) >= flowLifetime })
}

// find returns the flow of a state, if this browser began it.
func (s *flows) find(r *http.Request, state string) *flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	for _, f := range s.all {
		if equal(state, f.state) {
			cookie, err := r.Cookie(f.cookieName())
			if err != nil || !equal(cookie.Value, f.secret) {
				return nil
			}
			return f
		}
	}
	return nil
}

// claim reports whether the caller is the first who brings the flow's answer: it alone may act on it, and close done.
func (s *flows) claim(f *flow) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !f.claimed
	f.claimed = true
	return first
}

// told is how the flow of that id ended; false: it is not known, or has not ended.
func (s *flows) told(id string) (outcome, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	i := slices.IndexFunc(s.all, func(f *flow) bool { return equal(id, f.id) })
	if i < 0 {
		return outcome{}, false
	}
	select {
	case <-s.all[i].done:
		return s.all[i].outcome, true
	default:
		return outcome{}, false
	}
}

// equal compares in a time that does not depend on what is there.
func equal(a, b string) bool { return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// A cookie for each flow lets one browser connect several accounts at a time.
func (f *flow) cookieName() string { return "fap-connect-" + f.id }

// cookie ties the flow to the browser. It comes along when FreeAgent sends the browser back, which Strict would not.
func (f *flow) cookie(secure bool) *http.Cookie {
	return &http.Cookie{
		Name: f.cookieName(), Value: f.secret, Path: callbackPath, MaxAge: int(flowLifetime.Seconds()),
		HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode,
	}
}
