package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// Config is what the page shows, and who does what its buttons ask for.
type Config struct {
	// Status says how the proxy stands. It does not wait. person: it is for somebody who looks at the page, not for a program.
	Status func(ctx context.Context, person bool) Status
	// Begin makes sure that the store could keep a grant of the account, and returns the page of FreeAgent's where its user
	// approves the app. FreeAgent sends the browser back to redirectURI, with state. Its errors wrap ErrStore.
	Begin func(ctx context.Context, account, redirectURI, state string) (approve string, err error)
	// Finish exchanges the code that came back, and keeps the grant. Its errors wrap one of the Err values. ctx does not
	// end when the browser leaves.
	Finish func(ctx context.Context, account, redirectURI, code string) error
	// FreeAgent is where Begin's pages are.
	FreeAgent *url.URL
	// Password is what the browser must show, with any user name. Empty: nothing.
	Password string
	// PublicURL is how browsers reach the page through a reverse proxy: scheme and host. nil: as they say by themselves.
	PublicURL *url.URL
	// Hosts are more names that the page answers to, without port.
	Hosts []string
	// Open are more paths, which answer without the password and to any name: health and metrics.
	Open map[string]http.Handler
	// Source is the address that a request comes from. nil: that of its connection.
	Source func(*http.Request) netip.Addr
	// Observe hears what the operator's log should tell. nil: nobody does.
	Observe func(Event)
}

// EventKind says what happened at the page.
type EventKind string

// The kinds of events.
const (
	EventBegun         EventKind = "begun"          // somebody pressed Connect
	EventConnected     EventKind = "connected"      // the account has a new grant
	EventNotConnected  EventKind = "not connected"  // it has not, because of Err
	EventWrongPassword EventKind = "wrong password" // somebody showed a wrong password
)

// Event is something that happened at the page. It holds no secret.
type Event struct {
	Kind    EventKind
	Account string     // of all but EventWrongPassword
	Source  netip.Addr // where it came from
	Err     error      // of EventNotConnected
}

// handler is the operator's listener.
type handler struct {
	Config
	hosts    map[string]bool // canonical names of Hosts and PublicURL
	policy   string          // Content-Security-Policy
	password *password       // nil: none is asked for
	flows    flows
	pages    map[string]http.HandlerFunc // what can be read, by path
}

// New makes the handler of the operator's listener: the page at /, its buttons, /api/status and Open.
func New(config Config) http.Handler {
	h := &handler{Config: config, hosts: make(map[string]bool), policy: contentPolicy(config.FreeAgent)}
	h.pages = map[string]http.HandlerFunc{
		"/":           h.page,
		"/live":       h.live,
		"/api/status": h.json,
		callbackPath:  h.callback,
		"/page.css":   asset("text/css; charset=utf-8", pageCSS),
		"/page.js":    asset("text/javascript; charset=utf-8", pageJS),
		"/icon.svg":   asset("image/svg+xml", iconSVG),
	}
	for _, host := range config.Hosts {
		h.hosts[canonicalHost(host)] = true
	}
	if config.PublicURL != nil {
		h.hosts[canonicalHost(config.PublicURL.Host)] = true
	}
	if config.Password != "" {
		h.password = newPassword(config.Password)
	}
	if h.Source == nil {
		h.Source = func(r *http.Request) netip.Addr {
			connection, _ := netip.ParseAddrPort(r.RemoteAddr)
			return connection.Addr().Unmap()
		}
	}
	if h.Observe == nil {
		h.Observe = func(Event) {}
	}
	return h
}

// ServeHTTP lets in who may come in, and finds what is asked for.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.protect(w, r)
	if open, ok := h.Open[r.URL.Path]; ok {
		if isRead(r, w) {
			open.ServeHTTP(w, r)
		}
		return
	}
	if !h.admit(w, r) || !h.authenticate(w, r) {
		return
	}
	if account, ok := connectPath(r.URL.Path); ok {
		h.begin(w, r, account)
		return
	}
	serve, ok := h.pages[r.URL.Path]
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, "There is nothing here. The page is at /, its figures as JSON are at /api/status.")
	case isRead(r, w):
		serve(w, r)
	}
}

// connectPath reads /accounts/NAME/connect.
func connectPath(path string) (account string, ok bool) {
	rest, begins := strings.CutPrefix(path, "/accounts/")
	account, ends := strings.CutSuffix(rest, "/connect")
	return account, begins && ends && account != "" && !strings.Contains(account, "/")
}

// isRead refuses all methods that are no reading.
func isRead(r *http.Request, w http.ResponseWriter) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	refuse(w, http.StatusMethodNotAllowed, "This can only be read: use GET or HEAD.")
	return false
}

// refuse answers with a sentence.
func refuse(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(sentence + "\n"))
}

// json answers /api/status.
func (h *handler) json(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(h.Status(r.Context(), false))
}

// asset answers with a file of the page's own.
func asset(kind string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(content)
	}
}
