package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"time"
)

// callbackPath is where FreeAgent sends the browser back to. The redirect URI that is registered with the app ends in it.
const callbackPath = "/callback"

// finishPatience is how long it may take to exchange a code and to keep what comes of it.
const finishPatience = time.Minute

// Why an account was not connected. Each has a sentence of its own on the page.
var (
	// ErrUnknown: there is no such account.
	ErrUnknown = errors.New("account is not configured")
	// ErrStore: the store could not keep a grant, and nothing was asked of FreeAgent.
	ErrStore = errors.New("the store cannot keep a grant")
	// ErrRefused: FreeAgent did not take the code.
	ErrRefused = errors.New("FreeAgent did not take its own code")
	// ErrTrouble: FreeAgent gave no usable answer to the code.
	ErrTrouble = errors.New("no usable answer to the code")
	// ErrUnsaved: the account is connected, but the store has not taken the grant yet.
	ErrUnsaved = errors.New("connected, but not stored yet")

	errDenied = errors.New("FreeAgent did not authorise")
	errNoCode = errors.New("FreeAgent sent no code")
)

// outcome is how a flow ended, for the page.
type outcome struct {
	Level string // good, warn or bad
	Title string
	Text  string
}

// begin sends the browser to FreeAgent.
func (h *handler) begin(w http.ResponseWriter, r *http.Request, account string) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		refuse(w, http.StatusMethodNotAllowed, "This is what the page's Connect button sends. Open the page at / and press it.")
		return
	}
	if !h.isOwn(r) {
		refuse(w, http.StatusForbidden, "Only the proxy's own page may connect an account. Open the page at / and press Connect.")
		return
	}
	f := h.flows.begin(account, h.base(r)+callbackPath)
	approve, err := h.Begin(r.Context(), account, f.redirect, f.state)
	if errors.Is(err, ErrUnknown) {
		refuse(w, http.StatusNotFound, "There is no such account. The page at / lists those that the configuration has.")
		return
	}
	if err != nil {
		h.end(r, f, err)
		http.Redirect(w, r, f.page(), http.StatusSeeOther)
		return
	}
	h.Observe(Event{Kind: EventBegun, Account: account, Source: h.Source(r)})
	http.SetCookie(w, f.cookie(h.isSecure(r)))
	http.Redirect(w, r, approve, http.StatusSeeOther)
}

// callback takes FreeAgent's answer. Whoever brings it again, as a browser that loads the address twice, waits for the first and is
// told the same.
func (h *handler) callback(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET")
		refuse(w, http.StatusMethodNotAllowed, "FreeAgent sends browsers here, which use GET.")
		return
	}
	query := r.URL.Query()
	f := h.flows.find(r, query.Get("state"))
	if f == nil {
		h.render(w, r, http.StatusBadRequest, &outcome{Level: "bad", Title: "This answer was not expected, and nothing was changed",
			Text: "It belongs to no Connect that was pressed in this browser, at this address, within the last 10 minutes. Press Connect and approve again."})
		return
	}
	if h.flows.claim(f) {
		// The code is spent once: what it brings is kept, whether the browser waits for it or not.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), finishPatience)
		defer cancel()
		h.end(r, f, h.finish(ctx, f, query))
	}
	select {
	case <-f.done:
		http.Redirect(w, r, f.page(), http.StatusSeeOther)
	case <-r.Context().Done():
	}
}

// page is where the browser is told how the flow ended.
func (f *flow) page() string { return "/?connect=" + f.id }

// finish makes a grant of FreeAgent's answer.
func (h *handler) finish(ctx context.Context, f *flow, query url.Values) error {
	switch code, refused := query.Get("code"), query.Get("error"); {
	case refused != "":
		return fmt.Errorf("%w: %s", errDenied, errorCode(refused))
	case code == "":
		return errNoCode
	default:
		return h.Finish(ctx, f.account, f.redirect, code)
	}
}

// known is how OAuth's error codes look (RFC 6749, section 4.1.2.1).
var known = regexp.MustCompile(`^[a-z_]{1,40}$`)

// errorCode is the code, if it is one: it is from an address, and so could be anything.
func errorCode(text string) string {
	if known.MatchString(text) {
		return text
	}
	return "an error that is none of OAuth's"
}

// end tells how the flow ended.
func (h *handler) end(r *http.Request, f *flow, err error) {
	defer close(f.done)
	f.outcome = describe(f.account, err)
	e := Event{Kind: EventConnected, Account: f.account, Source: h.Source(r)}
	if err != nil {
		e.Err = err
		if !errors.Is(err, ErrUnsaved) {
			e.Kind = EventNotConnected
		}
	}
	h.Observe(e)
}

// describe says what an outcome means, and what to do.
func describe(account string, err error) outcome {
	again := "Press the button to try again."
	switch {
	case err == nil:
		return outcome{"good", account + " is connected to FreeAgent", "Requests are served with it from now on, at every replica."}
	case errors.Is(err, ErrUnsaved):
		return outcome{"warn", account + " is connected, but the store has not taken it yet",
			fmt.Sprintf("It serves from memory, and storing it is tried until it works. See to the store before this proxy stops: %v.", err)}
	case errors.Is(err, errDenied):
		return outcome{"warn", account + " was not connected, and nothing was changed",
			fmt.Sprintf("%v. Press the button again, and choose Approve there, as a user of the right company.", err)}
	case errors.Is(err, errNoCode):
		return outcome{"bad", account + " was not connected, and nothing was changed", "FreeAgent sent neither a code nor an error. " + again}
	case errors.Is(err, ErrRefused):
		return outcome{"bad", account + " was not connected, and nothing was changed",
			fmt.Sprintf("%v. A code lasts 15 minutes and works once, so press the button and approve again. "+
				"If that fails too, correct the app's client id and secret in the configuration.", err)}
	case errors.Is(err, ErrStore):
		return outcome{"bad", account + " was not connected: the store could not keep it",
			fmt.Sprintf("Nothing was taken from FreeAgent: %v. See to the store, then press the button again.", err)}
	default:
		return outcome{"bad", account + " was not connected",
			fmt.Sprintf("It could not be finished: %v. Press the button again in a minute.", err)}
	}
}
