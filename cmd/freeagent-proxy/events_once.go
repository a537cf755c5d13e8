package main

import (
	"errors"
	"sync"

	"freeagent-proxy/tokens"
)

// troubles remembers what is known of accounts already, so that what goes on as it was is told once: a token endpoint that is away for
// an hour is tried some hundred times.
type troubles struct {
	mu    sync.Mutex
	known map[trouble]cause
}

type trouble struct {
	account string
	kind    tokens.EventKind
}

// cause is what makes a trouble another one. The text of an error does not: there are ports in it.
type cause struct {
	store  bool
	status int // that FreeAgent's token endpoint answered
}

// overBy is which events end a trouble.
var overBy = map[tokens.EventKind][]tokens.EventKind{
	tokens.EventRefreshed:  {tokens.EventTrouble, tokens.EventRefused, tokens.EventSeedTrouble},
	tokens.EventAdopted:    {tokens.EventTrouble, tokens.EventRefused},
	tokens.EventAuthorized: {tokens.EventTrouble, tokens.EventRefused, tokens.EventUnsaved, tokens.EventSeedTrouble},
	tokens.EventRemoved:    {tokens.EventTrouble, tokens.EventRefused, tokens.EventUnsaved, tokens.EventSeedTrouble},
	tokens.EventSaved:      {tokens.EventUnsaved},
	tokens.EventRefused:    {tokens.EventTrouble},
}

// again reports whether an event tells what is known.
func (t *troubles) again(e tokens.Event) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil {
		t.known = map[trouble]cause{}
	}
	for _, kind := range overBy[e.Kind] {
		delete(t.known, trouble{e.Account, kind})
	}
	switch e.Kind {
	case tokens.EventTrouble, tokens.EventRefused, tokens.EventUnsaved, tokens.EventSeedTrouble:
	default:
		return false
	}
	why := cause{store: errors.Is(e.Err, tokens.ErrStore)}
	if endpoint := (*tokens.TroubleError)(nil); errors.As(e.Err, &endpoint) {
		why.status = endpoint.Status
	}
	before, known := t.known[trouble{e.Account, e.Kind}]
	t.known[trouble{e.Account, e.Kind}] = why
	return known && before == why
}
