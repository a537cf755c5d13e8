package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// FreeAgent's OAuth, as we answer it ourselves: a program that does its own goes on working when its base URL
// is changed, and never gets a token of FreeAgent's.
const (
	tokenEndpoint = "/v2/token_endpoint"
	approvePage   = "/v2/approve_app"
)

var (
	errTokenDenied = errors.New("client id and secret are no client's")
	errGrantType   = errors.New("unknown grant_type")
	errNoForm      = errors.New("token request cannot be read")
)

// maxTokenRequest is the longest token request, in bytes.
const maxTokenRequest = 64 << 10

// oauth answers for FreeAgent.
func (p *Proxy) oauth(x *exchange, r *http.Request, t target, shown, listener *client) error {
	switch {
	case t.oauth == tokenEndpoint && r.Method == http.MethodPost:
		return p.handOut(x, r, t, shown, listener) // 400, 401, 408, 413, 503
	case t.oauth == approvePage && isRead(r.Method):
		return explainApproval(x)
	}
	return errOAuth // 404
}

// handOut answers a token request, whichever of FreeAgent's two grants it is for: the client is known by its
// id and secret, so what code or refresh token it has does not matter.
func (p *Proxy) handOut(x *exchange, r *http.Request, t target, shown, listener *client) error {
	request, err := p.readTokenRequest(x, r, t)
	if err != nil {
		return err
	}
	who, key, err := x.settings.clients.grantee(r, request, shown, listener)
	if err != nil {
		return fmt.Errorf("%w: %w", errTokenDenied, err)
	}
	x.client = who.Name
	if !request.knownGrant() {
		return errGrantType
	}
	answer, err := json.Marshal(map[string]any{
		"access_token":             p.standIns.issue(standIn{accessStandIn, who.Name, key, standInLife}),
		"token_type":               "bearer",
		"expires_in":               int(standInLife.Seconds()),
		"refresh_token":            p.standIns.issue(standIn{refreshStandIn, who.Name, key, refreshStandInLife}),
		"refresh_token_expires_in": int(refreshStandInLife.Seconds()),
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errInternal, err)
	}
	x.answer(http.StatusOK, "application/json; charset=utf-8", answer)
	return nil
}

// answer writes an answer of our own that is no refusal.
func (x *exchange) answer(status int, contentType string, body []byte) {
	h := x.Header()
	h["Proxy-Status"] = []string{`freeagent-proxy; details="answered by the proxy itself"`}
	h["Cache-Control"] = []string{"no-store"}
	h["Pragma"] = []string{"no-cache"}
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.WriteHeader(status)
	_, _ = x.Write(body)
}

// tokenRequest is what a token request says of interest.
type tokenRequest struct {
	id, secret string
	grantType  string
	has        string // the grant that it has, if it does not say which: by what it brings
}

// knownGrant reports whether FreeAgent has such a grant.
func (t tokenRequest) knownGrant() bool {
	grant := t.grantType
	if grant == "" {
		grant = t.has
	}
	return grant == "refresh_token" || grant == "authorization_code"
}

// readTokenRequest reads a token request in every form that programs are known to send: credentials as Basic, in the
// body or in the query; a body that is a form, JSON, multipart, or a form that says it is JSON.
func (p *Proxy) readTokenRequest(x *exchange, r *http.Request, t target) (tokenRequest, error) {
	if r.ContentLength > maxTokenRequest {
		return tokenRequest{}, errTokenTooLarge
	}
	r.Body = http.MaxBytesReader(x, r.Body, maxTokenRequest)
	body, err := p.readBody(x, r)
	if errors.As(err, new(*http.MaxBytesError)) {
		err = errTokenTooLarge
	}
	if err != nil {
		return tokenRequest{}, err
	}
	defer body.Close()
	opened := body.open()
	defer opened.Close()
	text, err := io.ReadAll(opened)
	if err != nil {
		return tokenRequest{}, fmt.Errorf("%w: %w", errBodyStorage, err)
	}
	fields, err := tokenFields(r.Header.Get("Content-Type"), string(text))
	if err != nil {
		return tokenRequest{}, fmt.Errorf("%w: %w", errNoForm, err)
	}
	query, _ := url.ParseQuery(t.query) // what parses of it
	field := func(name string) string {
		if value := fields.Get(name); value != "" {
			return value
		}
		return query.Get(name)
	}
	request := tokenRequest{id: field("client_id"), secret: field("client_secret"), grantType: field("grant_type")}
	switch {
	case field("refresh_token") != "":
		request.has = "refresh_token"
	case field("code") != "":
		request.has = "authorization_code"
	}
	if id, secret, ok := r.BasicAuth(); ok && (id != "" || secret != "") {
		request.id, request.secret = id, secret
	}
	return request, nil
}

// tokenFields reads a body by what it looks like; what it says it is does not always hold.
func tokenFields(contentType, body string) (url.Values, error) {
	mediaType, parameters, _ := mime.ParseMediaType(contentType)
	switch {
	case mediaType == "multipart/form-data":
		form, err := multipart.NewReader(strings.NewReader(body), parameters["boundary"]).ReadForm(maxTokenRequest)
		if err != nil {
			return nil, errors.New("it is no multipart form") // the error might quote a secret
		}
		defer form.RemoveAll()
		return form.Value, nil
	case strings.HasPrefix(strings.TrimSpace(body), "{"):
		var object map[string]any
		if err := json.Unmarshal([]byte(body), &object); err != nil {
			return nil, errors.New("it is no JSON") // the error might quote a secret
		}
		fields := make(url.Values)
		for name, value := range object {
			if text, ok := value.(string); ok {
				fields.Set(name, text)
			}
		}
		return fields, nil
	default:
		fields, _ := url.ParseQuery(strings.TrimSpace(body)) // what parses of it
		return fields, nil
	}
}

// grantee finds the client that asks for a token, and the key that it showed. An id that is a client's name must
// come with a key of that client, or from that client if it has no key. Any other id is one from the program's time with
// FreeAgent: it does not matter if the client is known by a key all the same, by its listener or by its address.
func (c *clients) grantee(r *http.Request, t tokenRequest, shown, listener *client) (*client, keyMark, error) {
	found, mark := c.withSecret(t.secret)
	named := c.named[t.id]
	switch {
	case named != nil && found != named && (found != nil || len(named.Keys) > 0):
		return nil, keyMark{}, fmt.Errorf("wrong key for client %q", t.id)
	case found != nil:
		return found, mark, nil
	}
	who, err := c.identify(r, shown, listener)
	if err == nil && named != nil && who != named {
		err = fmt.Errorf("client %q calls as client %q", who.Name, t.id)
	}
	return who, keyMark{}, err
}

// withSecret finds the client of a key as OAuth sends it: RFC 6749 (section 2.3.1) has it percent-encoded in Basic
// credentials, which few libraries do.
func (c *clients) withSecret(secret string) (*client, keyMark) {
	if found := c.withKey(secret); found != nil {
		return found, markOf(secret)
	}
	if plain, err := url.QueryUnescape(secret); err == nil && plain != secret {
		return c.withKey(plain), markOf(plain)
	}
	return nil, keyMark{}
}
