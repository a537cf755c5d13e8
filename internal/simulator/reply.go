package simulator

import (
	"errors"
	"fmt"
	"html"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// reply is an answer before it is sent.
type reply struct {
	status   int
	header   [][2]string // Location, Link and the like
	value    any         // sent as JSON or XML; when nil, text is sent
	text     string
	kind     string    // Content-Type of text
	modified time.Time // Last-Modified; zero: none
	bare     bool      // made by the web server in front: none of the application's headers
	acted    bool      // FreeAgent did what was asked
	stream   int64     // send that many bytes of filler
	cut      bool      // reset the connection in the middle
	jsonOnly bool      // OAuth knows no XML

	thenReset time.Duration // so long after the answer the connection is reset; 0: it is not
}

// apiError is a refusal in FreeAgent's words.
type apiError struct {
	status   int
	messages []string
	list     bool   // the array form of validation errors
	location string // a 422 was once seen with the collection's Location (thread 2515)
}

func (e apiError) Error() string { return strings.Join(e.messages, "; ") }

const tokenNotRecognised = "Access token not recognised"

func refusal(status int, format string, args ...any) apiError {
	return apiError{status: status, messages: []string{fmt.Sprintf(format, args...)}}
}

func notFound() apiError { return refusal(http.StatusNotFound, "Resource not found") }

// invalid is the array form of 422.
func invalid(messages ...string) apiError {
	return apiError{status: http.StatusUnprocessableEntity, messages: messages, list: true}
}

// fail turns an error into an answer; nothing else does. What is not an apiError is a body that cannot be read.
func (c *call) fail(err error) reply {
	var e apiError
	if !errors.As(err, &e) {
		e = refusal(http.StatusBadRequest, "Error occurred while parsing request parameters")
	}
	rep := reply{status: e.status, value: object{{"errors", e.value()}}}
	if e.status == http.StatusUnauthorized && c.cfg.WWWAuthenticate != "" {
		rep.header = append(rep.header, [2]string{"Www-Authenticate", c.cfg.WWWAuthenticate})
	}
	if e.location != "" {
		rep.header = append(rep.header, [2]string{"Location", e.location})
	}
	return rep
}

func (e apiError) value() any {
	if !e.list {
		return object{{"error", object{{"message", e.Error()}}}}
	}
	list := []any{}
	for _, m := range e.messages {
		list = append(list, object{{"message", m}})
	}
	return list
}

// reply is the 429 of a limit: plain text whatever the client accepts.
func (l limited) reply() reply {
	return tooMany(l.message(), int(math.Ceil(l.retryAfter.Seconds())))
}

func tooMany(text string, retryAfter int) reply {
	return reply{
		status: http.StatusTooManyRequests, text: text, kind: "text/plain", bare: true,
		header: [][2]string{{"Retry-After", strconv.Itoa(max(1, retryAfter))}},
	}
}

// gatewayError is what nginx says by itself.
func gatewayError(status int) reply {
	title := strconv.Itoa(status) + " " + statusText(status)
	return reply{
		status: status, kind: "text/html", bare: true,
		text: "<html>\r\n<head><title>" + title + "</title></head>\r\n<body>\r\n<center><h1>" + title +
			"</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
	}
}

// statusText has nginx's spelling, which differs from net/http's in one place.
func statusText(status int) string {
	switch status {
	case http.StatusGatewayTimeout:
		return "Gateway Time-out"
	case http.StatusServiceUnavailable:
		return "Service Temporarily Unavailable"
	case http.StatusRequestEntityTooLarge:
		return "Request Entity Too Large"
	}
	return http.StatusText(status)
}

// page is an HTML page for a person.
func page(status int, title, body string) reply {
	return reply{
		status: status, kind: "text/html; charset=utf-8",
		text: "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>" + html.EscapeString(title) +
			"</title></head>\n<body><h1>" + html.EscapeString(title) + "</h1>\n" + body + "\n</body></html>\n",
	}
}

// struck is the answer when a fault strikes; rep is what FreeAgent said, if it acted.
func (s *Simulator) struck(c *call, f Fault, rep reply) reply {
	switch f.Kind {
	case FaultDrop:
		hangUp()
	case FaultStall:
		c.stall(time.Duration(f.Delay))
		hangUp()
	case FaultReset:
		rep.cut = true
		return rep
	case FaultGoAway:
		c.goAway(f.After)
	case FaultIdleClose:
		rep.thenReset = time.Duration(f.Delay)
		return rep
	case FaultStatus:
		if f.Status >= 500 {
			return gatewayError(f.Status)
		}
		return c.fail(refusal(f.Status, "%s", http.StatusText(f.Status)))
	case FaultUnauthorized:
		if c.path == tokenPath {
			return c.refuseGrant()
		}
		return c.fail(refusal(http.StatusUnauthorized, tokenNotRecognised))
	case FaultRateLimited:
		w := c.cfg.UserLimits[0]
		if c.path == tokenPath {
			w = c.cfg.RefreshLimits[0]
		}
		return tooMany(limited{window: w}.message(), f.RetryAfter)
	case FaultEmpty:
		return reply{status: http.StatusOK, kind: "application/json"}
	case FaultHTML:
		return page(http.StatusOK, "We'll be back soon", "<p>FreeAgent is down for maintenance.</p>")
	}
	return strikeToken(f.Kind, rep)
}

// strikeToken changes what the token endpoint hands out; a refusal stays as it is.
func strikeToken(kind string, rep reply) reply {
	o, ok := rep.value.(object)
	if !ok || rep.status != http.StatusOK {
		return rep
	}
	switch kind {
	case FaultNoRefreshToken:
		o = o.without("refresh_token", "refresh_token_expires_in")
	case FaultNoAccessToken:
		o = o.without("access_token")
	case FaultNoExpiry:
		o = o.without("expires_in")
	case FaultExpiryAsString:
		o = o.with("expires_in", o.text("expires_in"))
	case FaultExpiryMalformed:
		o = o.with("expires_in", "soon")
	}
	rep.value = o
	return rep
}
