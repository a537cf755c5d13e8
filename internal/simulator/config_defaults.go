package simulator

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
)

// withDefaults fills what is zero.
func (c Config) withDefaults() Config {
	c.User = cmp.Or(c.User, "owner")
	c.DeniedError = cmp.Or(c.DeniedError, "access_denied")
	c.RedirectErrorStatus = cmp.Or(c.RedirectErrorStatus, http.StatusBadRequest)
	c.CodeLifetime = cmp.Or(c.CodeLifetime, Duration(15*time.Minute))
	c.AccessTokenLifetime = cmp.Or(c.AccessTokenLifetime, Duration(time.Hour))
	c.RefreshTokenLifetime = cmp.Or(c.RefreshTokenLifetime, Duration(refreshTokenLifetime))
	c.Rotation = cmp.Or(c.Rotation, RotationStrict)
	c.Grace = cmp.Or(c.Grace, Duration(30*time.Second))
	c.TokenErrors = cmp.Or(c.TokenErrors, TokenErrorsBasicText)

	c.Enforcement = cmp.Or(c.Enforcement, EnforceAligned)
	c.UserLimits = orWindows(c.UserLimits, Window{120, Duration(time.Minute)}, Window{3600, Duration(time.Hour)})
	c.SourceLimits = orWindows(c.SourceLimits, Window{1000, Duration(time.Minute)})
	c.RefreshLimits = orWindows(c.RefreshLimits, Window{15, Duration(time.Minute)})
	c.TestLimit = cmp.Or(c.TestLimit, Window{5, Duration(time.Minute)})
	c.RetryAfter = cmp.Or(c.RetryAfter, RetryAfterPeriod)

	c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	c.NoTokenMessage = cmp.Or(c.NoTokenMessage, tokenNotRecognised)
	c.LinkQuotes = cmp.Or(c.LinkQuotes, LinkSingle)
	c.PerPageOverLimit = cmp.Or(c.PerPageOverLimit, PerPageClamp)
	if c.PracticeUsers == nil {
		c.PracticeUsers = []string{"practice"}
	}
	c.UnknownSubdomainStatus = cmp.Or(c.UnknownSubdomainStatus, http.StatusNotFound)
	c.RequestLog = cmp.Or(c.RequestLog, 2000)
	c.MaxParsedBody = cmp.Or(c.MaxParsedBody, 1<<20)
	return c
}

func orWindows(set []Window, otherwise ...Window) []Window {
	if len(set) == 0 {
		return otherwise
	}
	return set
}

// validate returns every problem at once, each with its key.
func (c Config) validate() error {
	var problems []error
	word := func(key, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			problems = append(problems, fmt.Errorf("%s: %q is not one of %s", key, value, strings.Join(allowed, ", ")))
		}
	}
	word("rotation", c.Rotation, RotationStrict, RotationGrace, RotationLenient)
	word("token_errors", c.TokenErrors, TokenErrorsBasicText, TokenErrorsInvalidGrant)
	word("enforcement", c.Enforcement, EnforceAligned, EnforceSliding, EnforceOff)
	word("retry_after", c.RetryAfter, RetryAfterPeriod, RetryAfterBoundary)
	word("link_quotes", c.LinkQuotes, LinkSingle, LinkDouble)
	word("per_page_over_limit", c.PerPageOverLimit, PerPageClamp, PerPageRefuse)

	status := func(key string, value int) {
		if value < 200 || value > 599 {
			problems = append(problems, fmt.Errorf("%s: %d is not a status between 200 and 599", key, value))
		}
	}
	status("redirect_error_status", c.RedirectErrorStatus)
	status("unknown_subdomain_status", c.UnknownSubdomainStatus)

	windows := func(key string, list ...Window) {
		for _, w := range list {
			if w.Requests < 1 || w.Per < Duration(time.Millisecond) {
				problems = append(problems, fmt.Errorf("%s: a window needs requests of 1 or more and per of 1ms or more", key))
			}
		}
	}
	windows("user_limits", c.UserLimits...)
	windows("source_limits", c.SourceLimits...)
	windows("refresh_limits", c.RefreshLimits...)
	windows("test_limit", c.TestLimit)

	if c.RequestLog < 1 || c.RequestLog > 1_000_000 {
		problems = append(problems, errors.New("request_log: must lie between 1 and 1000000"))
	}
	if c.MaxBody < 0 || c.MaxParsedBody < 0 {
		problems = append(problems, errors.New("max_body, max_parsed_body: must not be negative"))
	}
	return errors.Join(problems...)
}

// switchNames are the names of the switches in JSON.
func switchNames() []string {
	var names []string
	for f := range reflect.TypeFor[Config]().Fields() {
		names = append(names, f.Tag.Get("json"))
	}
	return names
}

// merged returns c with the fields that patch, a JSON object, names. c itself,
// whose slices other goroutines read, stays as it is.
func (c Config) merged(patch []byte) (Config, error) {
	deep, err := json.Marshal(c)
	if err != nil {
		return Config{}, err
	}
	var next Config
	if err := json.Unmarshal(deep, &next); err != nil {
		return Config{}, err
	}
	d := json.NewDecoder(bytes.NewReader(patch))
	d.DisallowUnknownFields()
	if err := d.Decode(&next); err != nil {
		return Config{}, err
	}
	next = next.withDefaults()
	return next, next.validate()
}
