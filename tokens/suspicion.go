package tokens

import (
	"hash/maphash"
	"slices"
	"time"
)

// suspicion is what an account's 401s have taught. One alone does not tell whether the token was
// revoked or the resource rejects every token; what came before and what comes after does:
//
//   - a request that was sent later and accepted shows that the token was good;
//   - so does a second 401 at once to a token that came after the first;
//   - a renewal after which the resource accepts the new token shows that the old one was bad.
//
// It belongs to the account, under its mu. The zero value suspects nothing.
type suspicion struct {
	renewals  []renewal           // that have cured nothing yet, in the last minute
	standings map[uint64]standing // of resources and of single requests, by hash
	blamed    int                 // how many of them rejected good tokens
	accused   []accusation        // 401s to the current token that are not explained yet
	accepted  acceptance
	swept     time.Time
}

// renewal is one that a 401 caused.
type renewal struct {
	accusation
	trust   trust // in what rejected the token
	begun   time.Time
	ended   time.Time // zero: not yet
	useless bool      // the 401 turned out to be the resource's own
}

// standing is how a resource, or one request to it, has answered good tokens.
type standing struct {
	accepted, rejected time.Time // last; zero: never
}

// accusation is a 401 that may have been the token's fault.
type accusation struct {
	token             Token
	resource, request uint64
	at                time.Time
}

// acceptance is the latest sending of a token that was not answered 401.
type acceptance struct {
	token Token
	sent  time.Time
}

const (
	// maxUseless is how many renewals a minute may cure nothing. A refresh costs one of FreeAgent's 15
	// a minute, and may end the access token that other requests are on their way with.
	maxUseless = 2
	// uselessFor is how long a renewal counts.
	uselessFor = time.Minute
	// doubtFor is how long a resource that was seen to reject a good token is in doubt although it accepts others.
	doubtFor = time.Minute
	// maxAccused bounds the accusations. More are not kept: whoever made them will again.
	maxAccused = 64
	// maxStandings bounds what is remembered of an account, some 300 KB; which one is forgotten
	// matters little, since useless renewals are bounded anyway.
	maxStandings = 4096
	// forgetAfter is how long a standing is remembered without news.
	forgetAfter = time.Hour
)

// trust is how likely a 401 is the token's fault and not the resource's.
type trust int

const (
	stubborn trust = iota // it rejects good tokens
	doubtful              // it accepts some requests and rejects others
	unknown               // it has answered no good token yet
	trusted               // it accepts good tokens
)

func (s standing) trust(now time.Time) trust {
	switch {
	case s == standing{}:
		return unknown
	case s.rejected.IsZero(), s.accepted.After(s.rejected) && now.Sub(s.rejected) >= doubtFor:
		return trusted
	case s.rejected.Sub(s.accepted) >= doubtFor:
		return stubborn
	default:
		return doubtful
	}
}

// hashSeed keys the hashes of names, which clients choose.
var hashSeed = maphash.MakeSeed()

func hash(name string) uint64 { return maphash.String(hashSeed, name) }

// trust is what can be expected of a request: by its own standing, else by its resource's.
func (s *suspicion) trust(r Attempt, now time.Time) trust {
	if own, ok := s.standings[hash(r.Request)]; ok {
		return own.trust(now)
	}
	return s.standings[hash(r.Resource)].trust(now)
}

// allows reports whether a 401 may cause a renewal, as far as the bound on useless ones is concerned. What is
// known to be stubborn leaves one to the others. What is trusted has one more if those two were lost to newcomers:
// its 401 is the surest sign of a revoked token.
func (s *suspicion) allows(t trust, now time.Time) bool {
	s.prune(now)
	switch t {
	case stubborn:
		return len(s.renewals) == 0
	case trusted:
		return len(s.renewals) < maxUseless ||
			!slices.ContainsFunc(s.renewals, func(r renewal) bool { return r.trust == trusted })
	default:
		return len(s.renewals) < maxUseless
	}
}

// prune drops the renewals that no longer count.
func (s *suspicion) prune(now time.Time) {
	s.renewals = slices.DeleteFunc(s.renewals, func(r renewal) bool {
		return !r.ended.IsZero() && now.Sub(r.ended) >= uselessFor
	})
}

// begin counts a renewal, until it turns out to have cured something.
func (s *suspicion) begin(r Attempt, t trust, now time.Time) {
	s.renewals = append(s.renewals, renewal{accusation: accusationOf(r, now), trust: t, begun: now})
}

// end notes how a refresh ended. One that brought no token does not count.
func (s *suspicion) end(rejected Token, err error, now time.Time) {
	for i, r := range s.renewals {
		if r.token == rejected && r.ended.IsZero() {
			s.renewals[i].ended = now
			if err != nil {
				s.renewals = slices.Delete(s.renewals, i, i+1)
			}
			return
		}
	}
}

// shownGood reports whether a token was accepted by a request that was sent after a moment.
func (s *suspicion) shownGood(t Token, after time.Time) bool {
	return s.accepted.token == t && s.accepted.sent.After(after)
}

// accuse notes a 401 that is not explained yet: a later answer may explain it when nobody waits any more.
func (s *suspicion) accuse(r Attempt, at time.Time) {
	if len(s.accused) > 0 && s.accused[0].token != r.Token {
		s.accused = nil
	}
	next := accusationOf(r, at)
	i := slices.IndexFunc(s.accused, func(a accusation) bool { return a.request == next.request })
	switch {
	case i >= 0:
		s.accused[i] = next
	case len(s.accused) < maxAccused:
		s.accused = append(s.accused, next)
	}
}

func accusationOf(r Attempt, at time.Time) accusation {
	return accusation{token: r.Token, resource: hash(r.Resource), request: hash(r.Request), at: at}
}

// accuses reports whether a token met with a 401 that is not explained.
func (s *suspicion) accuses(t Token) bool {
	return len(s.accused) > 0 && s.accused[0].token == t
}

// blame notes that a 401 was the resource's own.
func (s *suspicion) blame(own accusation, now time.Time) {
	s.accused = slices.DeleteFunc(s.accused, func(a accusation) bool { return a.request == own.request })
	for _, name := range []uint64{own.resource, own.request} {
		known := s.standings[name]
		known.rejected = now
		s.set(name, known)
	}
	for i := range s.renewals {
		if s.renewals[i].request == own.request {
			s.renewals[i].useless = true
		}
	}
}

// accept notes that a request was accepted. news: an accusation is explained by it.
func (s *suspicion) accept(r Attempt, current Token, now time.Time) (news bool) {
	s.renewals = slices.DeleteFunc(s.renewals, func(done renewal) bool { return s.cured(done, r) })
	s.approve(hash(r.Resource), now, true)
	s.approve(hash(r.Request), now, s.standings[hash(r.Resource)].rejected != time.Time{})
	if r.Token == current {
		news = s.explain(r, now)
	}
	if !s.accuses(current) {
		s.accused = nil // of a token that is gone
	}
	s.sweep(now)
	return news
}

// cured reports whether an attempt that was accepted shows that a renewal was no useless one: it was itself
// rejected before, or what was rejected takes the new token. In saturation the first may come long after the second.
func (s *suspicion) cured(done renewal, r Attempt) bool {
	if done.useless || r.Token == done.token {
		return false
	}
	if r.Rejected == done.token && !done.begun.Before(r.RejectedAt) {
		return true
	}
	same := hash(r.Request) == done.request ||
		hash(r.Resource) == done.resource && s.standings[done.resource].rejected.IsZero()
	return same && r.Sent.After(done.begun)
}

// approve notes an acceptance, of what has no standing yet only if that is asked for: single
// requests are told apart where a resource has answered both ways.
func (s *suspicion) approve(name uint64, now time.Time, always bool) {
	known, ok := s.standings[name]
	if !ok && !always {
		return
	}
	known.accepted = now
	if known.trust(now) == trusted {
		known.rejected = time.Time{}
	}
	s.set(name, known)
}

// explain blames the resources whose 401s came before a request was sent that the same token was good for.
func (s *suspicion) explain(r Attempt, now time.Time) (news bool) {
	if s.accepted.token != r.Token || s.accepted.sent.Before(r.Sent) {
		s.accepted = acceptance{token: r.Token, sent: r.Sent}
	}
	for _, a := range slices.Clone(s.accused) {
		if a.token == r.Token && a.at.Before(r.Sent) {
			s.blame(a, now)
			news = true
		}
	}
	return news
}

// set remembers a standing; if there are too many, another one is forgotten.
func (s *suspicion) set(name uint64, next standing) {
	if s.standings == nil {
		s.standings = make(map[uint64]standing)
	}
	if _, ok := s.standings[name]; ok {
		s.forget(name)
	} else if len(s.standings) >= maxStandings {
		for other := range s.standings {
			s.forget(other)
			break
		}
	}
	s.standings[name] = next
	if !next.rejected.IsZero() {
		s.blamed++
	}
}

func (s *suspicion) forget(name uint64) {
	if !s.standings[name].rejected.IsZero() {
		s.blamed--
	}
	delete(s.standings, name)
}

// sweep forgets, once in a while, what has no news.
func (s *suspicion) sweep(now time.Time) {
	s.prune(now)
	if now.Sub(s.swept) < time.Minute {
		return
	}
	s.swept = now
	for name, known := range s.standings {
		if now.Sub(later(known.accepted, known.rejected)) >= forgetAfter {
			s.forget(name)
		}
	}
}

// any reports whether there is anything left to find out.
func (s *suspicion) any() bool {
	return len(s.renewals) > 0 || len(s.accused) > 0 || s.blamed > 0
}
