package proxy

import (
	"net/url"
	"strings"
)

// target is a request-target cut into its parts, each as the bytes that the client sent.
type target struct {
	account  string // from /accounts/NAME/v2/…; empty if not given
	path     string // begins with /v2/; no doubled slashes
	query    string // without the question mark
	hasQuery bool   // `/v2/company?` differs from `/v2/company`
	oauth    string // tokenEndpoint or approvePage if it is one of them
}

// parseTarget cuts the request-target of a request line (RFC 9112, section 3.2), in
// origin form or absolute form. What is not FreeAgent's API is errNotFound, and so is a path with dot
// segments, plain or encoded: what it means is decided by whoever resolves it last. What only resembles FreeAgent's
// OAuth is errOAuth: the answer to a refresh would hand tokens to the client. HTTP/2 lets spaces in (errTarget), which would cut
// the request line that goes upstream into other parts.
func parseTarget(requestURI string) (target, error) {
	if strings.Contains(requestURI, " ") {
		return target{}, errTarget
	}
	var t target
	t.path, t.query, t.hasQuery = strings.Cut(originForm(requestURI), "?")
	t.path = foldSlashes(t.path)
	if rest, ok := strings.CutPrefix(t.path, "/accounts/"); ok {
		name, path, _ := strings.Cut(rest, "/")
		t.account, t.path = name, "/"+path
	}
	plain, err := decodedPath(t.path)
	switch {
	case err != nil, !strings.HasPrefix(t.path, "/v2/"), hasDotSegment(plain):
		return target{}, errNotFound
	case strings.TrimSuffix(plain, "/") == tokenEndpoint:
		t.oauth = tokenEndpoint
	case strings.TrimSuffix(plain, "/") == approvePage:
		t.oauth = approvePage
	case strings.HasPrefix(plain, tokenEndpoint), strings.HasPrefix(plain, approvePage):
		return target{}, errOAuth
	}
	return t, nil
}

// isAbsolute reports whether a program that takes us for a plain HTTP proxy sent this.
func isAbsolute(requestURI string) bool {
	return !strings.HasPrefix(requestURI, "/")
}

// originForm drops scheme and authority of an absolute request-target.
func originForm(requestURI string) string {
	if !isAbsolute(requestURI) {
		return requestURI
	}
	_, rest, _ := strings.Cut(requestURI, "://")
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		return rest[i:]
	}
	return "/"
}

// foldSlashes makes one slash of several, as clients that join a base URL ending
// in a slash with a path beginning with one mean it.
func foldSlashes(path string) string {
	if !strings.Contains(path, "//") {
		return path
	}
	var b strings.Builder
	for i := range len(path) {
		if path[i] != '/' || i == 0 || path[i-1] != '/' {
			b.WriteByte(path[i])
		}
	}
	return b.String()
}

// decodedPath is the path as a server may read it.
func decodedPath(path string) (string, error) {
	if !strings.Contains(path, "%") {
		return path, nil
	}
	decoded, err := url.PathUnescape(path)
	return foldSlashes(decoded), err
}

func hasDotSegment(path string) bool {
	if !strings.Contains(path, ".") {
		return false
	}
	for segment := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// resource names what a path addresses, without which one of them: `GET /v2/invoices/:id`.
// The token manager remembers by it what rejects healthy tokens, and by request which requests do.
func (t target) resource(method, subdomain string) string {
	segments := strings.Split(t.path, "/")
	for i, s := range segments {
		if strings.ContainsAny(s, "0123456789") && s != "v2" {
			segments[i] = ":id"
		}
	}
	return method + " " + strings.Join(segments, "/") + " " + subdomain
}

// request names exactly what is asked for, but for the body.
func (t target) request(method, subdomain string) string {
	return method + " " + t.path + "?" + t.query + " " + subdomain
}
