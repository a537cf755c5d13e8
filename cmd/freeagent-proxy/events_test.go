package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"freeagent-proxy/tokens"
)

// A trouble that goes on is told once, until it is over or becomes another one.
func TestTroublesAreToldOnce(t *testing.T) {
	for _, test := range []struct {
		level string
		want  string
	}{
		{"info", "warn error info warn warn error info warn info error info"},
		{"debug", "warn debug debug error debug info warn warn debug error debug info warn info error debug info"},
	} {
		var out bytes.Buffer
		log, flush := newLogger(&out, LogConfig{Level: test.level, Format: "json"})
		observe := observeTokens(logbook{log.Logger, newCounts(Config{Accounts: map[string]AccountConfig{"acme": {}}})})
		tell := func(kind tokens.EventKind, err error) { observe(tokens.Event{Account: "acme", Kind: kind, Err: err}) }
		away := func(port int) error {
			return &tokens.TroubleError{Err: fmt.Errorf("read tcp 127.0.0.1:%d: reset", port)}
		}
		for i := range 3 {
			tell(tokens.EventTrouble, away(i))
		}
		tell(tokens.EventRefused, errors.New("401"))
		tell(tokens.EventRefused, errors.New("401"))
		tell(tokens.EventAuthorized, nil)
		tell(tokens.EventTrouble, away(4))
		tell(tokens.EventTrouble, fmt.Errorf("%w: away", tokens.ErrStore)) // another one
		tell(tokens.EventTrouble, fmt.Errorf("%w: away", tokens.ErrStore))
		tell(tokens.EventUnsaved, tokens.ErrStore)
		tell(tokens.EventUnsaved, tokens.ErrStore)
		tell(tokens.EventRefreshed, nil)
		tell(tokens.EventTrouble, fmt.Errorf("%w: away", tokens.ErrStore))
		tell(tokens.EventSaved, nil)
		tell(tokens.EventUnsaved, tokens.ErrStore)
		if test.level == "debug" {
			tell(tokens.EventUnsaved, tokens.ErrStore)
		}
		tell(tokens.EventAuthorized, nil)
		flush()
		var levels []string
		for line := range strings.Lines(out.String()) {
			level, _, _ := strings.Cut(strings.TrimPrefix(line, `{"level":"`), `"`)
			levels = append(levels, level)
		}
		if got := strings.Join(levels, " "); got != test.want {
			t.Errorf("%s: got  %s\nwant %s\n%s", test.level, got, test.want, &out)
		}
	}
}
