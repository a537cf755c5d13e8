package proxy

import (
	"context"
	"strings"
	"time"

	"freeagent-proxy/internal/turns"
)

// Turns lets writes happen one at a time: *turns.Local for one process, *turns.Redis for several.
type Turns interface {
	// Take takes a turn, which end gives back, waiting for it for so long and until ctx ends. Its errors are
	// *turns.BusyError, turns.ErrClosed and the context's cause.
	Take(ctx context.Context, key turns.Key, wait time.Duration) (end func(), err error)
	// Insist is Take for who rather has none (turns.ErrAway) than one that other processes may not know of.
	Insist(ctx context.Context, key turns.Key, wait time.Duration) (end func(), err error)
}

// oneAtATime is the writes that happen one at a time, by method and path: as the configuration has them.
type oneAtATime map[string]map[string]string

func newOneAtATime(writes []string) oneAtATime {
	o := oneAtATime{}
	for _, write := range writes {
		method, path, _ := strings.Cut(write, " ")
		if o[method] == nil {
			o[method] = map[string]string{}
		}
		o[method][path] = write
	}
	return o
}

// entry is the one that a request is, or "". It is found by the path as FreeAgent reads it: decoded, without a slash or a
// format (.json, .xml) at its end.
func (o oneAtATime) entry(method string, t target) string {
	paths := o[method]
	if paths == nil {
		return ""
	}
	path, err := decodedPath(t.path)
	if err != nil {
		return ""
	}
	path = strings.TrimSuffix(path, "/")
	path = strings.TrimSuffix(strings.TrimSuffix(path, ".json"), ".xml")
	return paths[path]
}

// turn waits until nobody else makes the same write for the same company, if such writes happen one at a time. It is
// had before the permit: permits that wait for their turn would be used long after they were counted. A good token is
// waited for before, so that a slow refresh holds up those who wait once, not one after the other.
func (s *sending) turn(method string) (end func(), err error) {
	write := s.x.settings.oneAtATime.entry(method, s.target)
	if write == "" {
		return func() {}, nil
	}
	if _, err := s.token(); err != nil {
		return nil, err
	}
	key := turns.Key{Account: s.account.Name, Work: write}
	if s.account.Practice { // else FreeAgent knows one company, whatever X-Subdomain says
		key.Work = s.subdomain + " " + write
	}
	began := time.Now()
	defer s.x.traced.step("wait for turn").end()
	defer s.countWait(began)
	take := s.p.config.Turns.Take
	if s.x.keyed != nil { // it cannot leave without the store anyway, so it need not risk to meet another
		take = s.p.config.Turns.Insist
	}
	end, err = take(s.presence, key, s.patience)
	if err != nil && s.presence.Err() != nil {
		return nil, errClientGone
	}
	if err == nil {
		s.explainTurn(write, began)
	}
	return end, err
}
