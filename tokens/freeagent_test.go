package tokens_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"freeagent-proxy/tokens"
)

// secret marks every token and secret of these tests, so that a leak can be searched for.
const secret = "s3cr3t"

var app = tokens.App{ClientID: "the-app", ClientSecret: secret + "-client"}

// freeAgent is a token endpoint with strict rotation that counts, and does as it is told.
type freeAgent struct {
	mu        sync.Mutex
	lifetime  time.Duration // of access tokens
	refreshes int           // refresh requests, answered in whatever way
	issued    int
	good      []string // refresh tokens that are accepted
	lenient   bool     // a spent refresh token stays good
	script    []http.HandlerFunc
	always    http.HandlerFunc
	at        []time.Time
	spent     []string
	more      map[string]any // further members of the answer
	trouble   func()         // called, unlocked, before each answer
}

func newFreeAgent() *freeAgent { return &freeAgent{lifetime: time.Hour} }

// grant lets a new refresh token be good, as if a user had approved.
func (f *freeAgent) grant() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.newRefresh()
}

func (f *freeAgent) newRefresh() string {
	f.issued++
	token := fmt.Sprintf("%s-refresh-%d=", secret, f.issued)
	f.good = append(f.good, token)
	return token
}

// then answers the next requests so, one each.
func (f *freeAgent) then(answers ...http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = append(f.script, answers...)
}

// ever answers all requests so; nil: as usual.
func (f *freeAgent) ever(answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.always = answer
}

// revoke makes every refresh token bad.
func (f *freeAgent) revoke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.good = nil
}

func (f *freeAgent) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refreshes
}

func (f *freeAgent) times() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.at)
}

func (f *freeAgent) spentTokens() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.spent)
}

func (f *freeAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		panic(http.ErrAbortHandler) // the client broke off
	}
	f.mu.Lock()
	f.refreshes++
	f.at = append(f.at, time.Now())
	f.spent = append(f.spent, r.PostForm.Get("refresh_token"))
	answer, trouble := f.always, f.trouble
	if len(f.script) > 0 {
		answer, f.script = f.script[0], f.script[1:]
	}
	f.mu.Unlock()
	if trouble != nil {
		trouble()
	}
	if answer != nil {
		answer(w, r)
		return
	}
	f.refresh(w, r)
}

func (f *freeAgent) refresh(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, password, _ := r.BasicAuth()
	i := slices.Index(f.good, r.PostForm.Get("refresh_token"))
	if id != app.ClientID || password != app.ClientSecret || i < 0 {
		refuse(w, r)
		return
	}
	if !f.lenient {
		f.good = slices.Delete(f.good, i, i+1)
	}
	answer := map[string]any{
		"access_token":  fmt.Sprintf("%s-access-%d=", secret, f.issued+1),
		"token_type":    "bearer",
		"expires_in":    int(f.lifetime.Seconds()),
		"refresh_token": f.newRefresh(),
	}
	for name, value := range f.more {
		answer[name] = value
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// answer is a whole answer.
func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	}
}

// refuse is what FreeAgent answers to a dead grant, and to a wrong client secret.
func refuse(w http.ResponseWriter, r *http.Request) {
	answer(http.StatusUnauthorized, "text/html; charset=utf-8", "HTTP Basic: Access denied.\n")(w, r)
}

func unavailable(w http.ResponseWriter, r *http.Request) {
	answer(http.StatusServiceUnavailable, "text/html", "<html>"+secret+"</html>")(w, r)
}

// late answers after a while, or not at all when the client has given up.
func late(d time.Duration, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			next(w, r)
		case <-r.Context().Done():
		}
	}
}

// when answers when something is so, or not at all when the client has given up.
func when(so <-chan struct{}, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-so:
			next(w, r)
		case <-r.Context().Done():
		}
	}
}

// inProcess calls a handler without a network, so that synctest knows when all are waiting.
type inProcess struct{ http.Handler }

func (h inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	done := make(chan *http.Response, 1)
	go func() {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		done <- rec.Result()
	}()
	select {
	case resp := <-done:
		return resp, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// endpoint speaks with f without a network.
func (f *freeAgent) endpoint() *tokens.Endpoint {
	base := &url.URL{Scheme: "https", Host: "api.freeagent.example"}
	return tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: base, Client: &http.Client{Transport: inProcess{f}}})
}

// listen speaks with f over the network.
func (f *freeAgent) listen(t *testing.T, timeout time.Duration) *tokens.Endpoint {
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return tokens.NewEndpoint(tokens.EndpointConfig{BaseURL: base, Timeout: timeout})
}
