package simulator

import (
	"crypto/rand"
	"encoding/base64"
	"sync"
	"time"
)

// grants is every code and token that was issued.
type grants struct {
	mu      sync.RWMutex
	codes   map[string]code
	access  map[string]*accessToken
	refresh map[string]*refreshToken
	users   map[string]*issued
}

// code is an authorisation code. A used or expired one is simply gone.
type code struct {
	user, client, redirect string
	expires                time.Time
}

type accessToken struct {
	user, client string
	expires      time.Time
	revoked      bool
}

type refreshToken struct {
	user, client string
	expires      time.Time
	spent        time.Time // when it was first used; zero: never
	revoked      bool
}

// issued lists a user's tokens in the order of issue, so that the oldest can be forgotten.
type issued struct{ access, refresh []string }

// maxTokens bounds what is remembered of one user; a forgotten token is an unknown one.
const maxTokens = 10_000

// pair is what a successful call of the token endpoint hands out.
type pair struct{ access, refresh string }

// rotation is what became of a refresh token that was presented. ok is false for
// one that is unknown, expired, revoked or another client's, and, unless the
// switches forgive it, for one that was spent.
type rotation struct {
	pair
	ok, spent bool
}

// standing is what the Authorization of an API request is worth.
type standing string

const (
	noToken      standing = "none"
	otherScheme  standing = "other" // not Bearer
	unknownToken standing = "unknown"
	expiredToken standing = "expired"
	revokedToken standing = "revoked"
	goodToken    standing = "good"
)

func newGrants() *grants {
	g := &grants{}
	g.reset()
	return g
}

func (g *grants) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.codes = map[string]code{}
	g.access = map[string]*accessToken{}
	g.refresh = map[string]*refreshToken{}
	g.users = map[string]*issued{}
}

// authorize makes a new grant. An empty client means that any client may use it.
func (g *grants) authorize(user, client string, cfg *Config) pair {
	g.mu.Lock()
	defer g.mu.Unlock()
	if cfg.ReauthorizeReplaces {
		g.revokeTokens(user, client, true, true)
	}
	return g.issue(user, client, cfg)
}

// addCode makes a code for an approval.
func (g *grants) addCode(c code, cfg *Config) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, old := range g.codes {
		if time.Now().After(old.expires) {
			delete(g.codes, key)
		}
	}
	key := newToken()
	c.expires = time.Now().Add(time.Duration(cfg.CodeLifetime))
	g.codes[key] = c
	return key
}

// exchange spends a code. ok is false for one that is unknown, used, expired,
// another client's or for another redirect URI.
func (g *grants) exchange(key, client, redirect string, cfg *Config) (p pair, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, known := g.codes[key]
	if !known || time.Now().After(c.expires) || c.client != client || c.redirect != redirect {
		return pair{}, false
	}
	delete(g.codes, key)
	if cfg.ReauthorizeReplaces {
		g.revokeTokens(c.user, client, true, true)
	}
	return g.issue(c.user, client, cfg), true
}

// rotate spends a refresh token for a new pair.
func (g *grants) rotate(token, client string, cfg *Config) rotation {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	t := g.refresh[token]
	if t == nil || t.revoked || now.After(t.expires) || t.client != "" && t.client != client {
		return rotation{}
	}
	spent := !t.spent.IsZero()
	if !spent {
		t.spent = now
	}
	inGrace := cfg.Rotation == RotationGrace && now.Sub(t.spent) <= time.Duration(cfg.Grace)
	if spent && !inGrace && cfg.Rotation != RotationLenient {
		return rotation{spent: true}
	}
	if cfg.AccessDiesOnRefresh {
		g.revokeTokens(t.user, t.client, true, false)
	}
	return rotation{pair: g.issue(t.user, t.client, cfg), ok: true, spent: spent}
}

// issue makes a pair. The caller holds mu, as for all that follow.
func (g *grants) issue(user, client string, cfg *Config) pair {
	p := pair{access: newToken(), refresh: newToken()}
	now := time.Now()
	g.access[p.access] = &accessToken{user: user, client: client, expires: now.Add(time.Duration(cfg.AccessTokenLifetime))}
	g.refresh[p.refresh] = &refreshToken{user: user, client: client, expires: now.Add(time.Duration(cfg.RefreshTokenLifetime))}
	list := g.users[user]
	if list == nil {
		list = &issued{}
		g.users[user] = list
	}
	list.access = append(list.access, p.access)
	list.refresh = append(list.refresh, p.refresh)
	if len(list.access) > maxTokens {
		delete(g.access, list.access[0])
		delete(g.refresh, list.refresh[0])
		list.access, list.refresh = list.access[1:], list.refresh[1:]
	}
	return p
}

// revokeTokens revokes those of a user ("": of all) and client ("": of all).
func (g *grants) revokeTokens(user, client string, access, refresh bool) {
	for name, list := range g.users {
		if user != "" && name != user {
			continue
		}
		for i := range list.access { // one of each was issued each time
			if t := g.access[list.access[i]]; access && (client == "" || t.client == client) {
				t.revoked = true
			}
			if t := g.refresh[list.refresh[i]]; refresh && (client == "" || t.client == client) {
				t.revoked = true
			}
		}
	}
}

func (g *grants) revoke(user string, access, refresh bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.revokeTokens(user, "", access, refresh)
}

// look returns whose an access token is and what it is worth now.
func (g *grants) look(token string) (accessToken, standing) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	t := g.access[token]
	switch {
	case t == nil:
		return accessToken{}, unknownToken
	case t.revoked:
		return *t, revokedToken
	case !time.Now().Before(t.expires):
		return *t, expiredToken
	}
	return *t, goodToken
}

// owner returns whose a refresh token is, good or not; "" when it is unknown.
func (g *grants) owner(token string) (user, client string) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if t := g.refresh[token]; t != nil {
		return t.user, t.client
	}
	return "", ""
}

// tokenOrigin is the part of a real token that names where it came from; its
// padding sits in the middle of the token and has broken clients that trimmed
// or decoded it (forum thread 2326).
var tokenOrigin = base64.URLEncoding.EncodeToString([]byte("simulator:"))

func newToken() string {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails (Go 1.24)
	return tokenOrigin + base64.RawURLEncoding.EncodeToString(random)
}
