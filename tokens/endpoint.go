package tokens

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"
)

// App is a registered application: what FreeAgent calls OAuth identifier and secret.
type App struct {
	ClientID, ClientSecret string
}

// String names the app without its secret.
func (a App) String() string { return fmt.Sprintf("app %q", a.ClientID) }

// Format prints String for every verb.
func (a App) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.String()) }

// MarshalText returns String.
func (a App) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// EndpointConfig says where FreeAgent is and how to speak with it.
type EndpointConfig struct {
	BaseURL   *url.URL      // such as https://api.freeagent.com, without /v2
	Client    *http.Client  // its Transport is used, nothing else; nil: a connection for each call
	Timeout   time.Duration // for one call as a whole; 0: 30 s
	UserAgent string        // FreeAgent requires one; "": freeagent-proxy
}

// Endpoint is FreeAgent's token endpoint (https://dev.freeagent.com/docs/oauth).
//
// It sends each request once: whether a refresh token may be spent twice is not known, so
// nothing below it sends again by itself, a redirect is not followed (it would carry the
// refresh token elsewhere), and the client authenticates by Basic alone. Its errors hold no
// token and nothing of an answer's body.
type Endpoint struct {
	base      *url.URL
	transport http.RoundTripper
	timeout   time.Duration
	userAgent string
}

// defaultTimeout bounds a token call; a lock that is held meanwhile must outlive it.
const defaultTimeout = 30 * time.Second

// NewEndpoint returns an Endpoint that speaks with cfg.BaseURL alone.
func NewEndpoint(cfg EndpointConfig) *Endpoint {
	e := &Endpoint{base: cfg.BaseURL, timeout: cfg.Timeout, userAgent: cfg.UserAgent}
	if cfg.Client != nil {
		e.transport = cfg.Client.Transport
	}
	if e.transport == nil {
		// A call an hour gains nothing from a connection that is kept, which may be dead by then.
		e.transport = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DisableKeepAlives:   true,
			TLSHandshakeTimeout: 10 * time.Second,
		}
	}
	if e.timeout <= 0 {
		e.timeout = defaultTimeout
	}
	if e.userAgent == "" {
		e.userAgent = "freeagent-proxy"
	}
	return e
}

// ApproveURL is where a user approves the app. FreeAgent then redirects to redirectURI,
// which must be registered with the app, with code and state in its query.
func (e *Endpoint) ApproveURL(app App, redirectURI, state string) string {
	return e.config(app, redirectURI).AuthCodeURL(state)
}

// Exchange turns the code of a redirect into a grant, without its Account. Its errors are those of Refresh.
func (e *Endpoint) Exchange(ctx context.Context, app App, code, redirectURI string) (Grant, error) {
	grant, err := e.call(ctx, time.Time{}, func(ctx context.Context) (*oauth2.Token, error) {
		return e.config(app, redirectURI).Exchange(ctx, code)
	})
	if err == nil && grant.RefreshToken == "" {
		return Grant{}, &TroubleError{Status: http.StatusOK, Uncertain: true, Err: errors.New("no refresh token in the answer")}
	}
	return grant, err
}

// Refresh spends a refresh token. The grant it returns has no Account, and the same
// RefreshToken when the answer brought none. The error is a *RefusedError or a *TroubleError.
func (e *Endpoint) Refresh(ctx context.Context, app App, refreshToken string) (Grant, error) {
	return e.refresh(ctx, app, refreshToken, time.Time{})
}

// refresh is Refresh, with a bound on when the request begins to leave; zero: none. If that has
// passed, as after the process was halted, nothing is sent and the error is ErrUnavailable.
func (e *Endpoint) refresh(ctx context.Context, app App, refreshToken string, until time.Time) (Grant, error) {
	return e.call(ctx, until, func(ctx context.Context) (*oauth2.Token, error) {
		return e.config(app, "").TokenSource(ctx, &oauth2.Token{RefreshToken: refreshToken}).Token()
	})
}

func (e *Endpoint) config(app App, redirectURI string) *oauth2.Config {
	return &oauth2.Config{
		ClientID:     app.ClientID,
		ClientSecret: app.ClientSecret,
		RedirectURL:  redirectURI,
		Endpoint: oauth2.Endpoint{
			AuthURL:   e.base.JoinPath("v2", "approve_app").String(),
			TokenURL:  e.base.JoinPath("v2", "token_endpoint").String(),
			AuthStyle: oauth2.AuthStyleInHeader, // AutoDetect would send a refused request twice
		},
	}
}

// call makes one token request. Of oauth2 it uses the request and the errors, through a
// transport that puts the answer in order first: oauth2 alone throws a whole pair
// away when expires_in is malformed, reads a form out of JSON that is labelled text/plain,
// and quotes bodies in its errors.
func (e *Endpoint) call(ctx context.Context, until time.Time, send func(context.Context) (*oauth2.Token, error)) (Grant, error) {
	ctx, cancel := withPatience(ctx, e.timeout)
	defer cancel()
	c := &conversation{endpoint: e, until: until}
	client := &http.Client{
		Transport:     c,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	token, err := send(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = context.Cause(ctx)
		}
		return Grant{}, c.explain(err)
	}
	return c.grant(token), nil
}

// RefusedError says that FreeAgent refuses the grant, or the app: it answers both alike.
// It wraps ErrReauthorize.
type RefusedError struct {
	Status int    // 400 or 401
	Code   string // the OAuth error code, if the answer had one
}

func (e *RefusedError) Error() string {
	if e.Code != "" {
		return fmt.Sprintf("token endpoint answered %d %s: authorise again, or check client id and secret", e.Status, e.Code)
	}
	return fmt.Sprintf("token endpoint answered %d: authorise again, or check client id and secret", e.Status)
}

// Unwrap makes errors.Is find ErrReauthorize.
func (e *RefusedError) Unwrap() error { return ErrReauthorize }

// TroubleError says that the token endpoint gave no usable answer. The grant is as good as
// before, unless the call was Uncertain. It wraps ErrUnavailable and Err.
type TroubleError struct {
	Status     int           // of the answer; 0: none came
	RetryAfter time.Duration // what a 429 asked for; 0: nothing
	Uncertain  bool          // the request may have been acted upon: its refresh token may be spent
	Err        error

	rotated string // the refresh token of an answer without an access token; "": none came
}

func (e *TroubleError) Error() string {
	switch {
	case e.Status == 0:
		return fmt.Sprintf("token endpoint: %v", e.Err)
	case e.Err != nil:
		return fmt.Sprintf("token endpoint answered %d: %v", e.Status, e.Err)
	default:
		return fmt.Sprintf("token endpoint answered %d", e.Status)
	}
}

// pause is what the endpoint asked for, as far as it is granted.
func (e *TroubleError) pause() time.Duration { return min(e.RetryAfter, maxRetryAfter) }

// Unwrap makes errors.Is find ErrUnavailable and the cause.
func (e *TroubleError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrUnavailable}
	}
	return []error{ErrUnavailable, e.Err}
}
