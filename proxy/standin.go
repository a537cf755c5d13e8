package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"
)

// Sealer seals what we hand out and takes back: *tokens.Sealer. Its keys are those of the stored grants, so
// what one process has sealed is opened after a restart, and by every replica.
type Sealer interface {
	Seal(name string, plain []byte) []byte
	Open(name string, sealed []byte) (plain []byte, stale bool, err error)
}

// standIns makes the tokens that programs get that do their own OAuth. One names the client that it was made for and
// stands for the key that the client showed: it is good as long as that key is, but no longer than it says.
type standIns struct {
	sealer Sealer
	now    func() time.Time
}

// standIn is what such a token says.
type standIn struct {
	kind   byte
	client string
	key    keyMark // zero: the client showed none, and is known by something else again
	life   time.Duration
}

// Kinds of stand-ins. Nothing is asked of a refresh token but that a client has one.
const (
	accessStandIn  = 'a'
	refreshStandIn = 'r'
)

// How long stand-ins last: as FreeAgent's (https://dev.freeagent.com/docs/oauth).
const (
	standInLife        = time.Hour
	refreshStandInLife = 631151957 * time.Second
)

const (
	// standInPrefix lets a token be told from a key without opening it.
	standInPrefix = "fapt_"
	// standInName keeps stand-ins and accounts' grants apart, which are sealed with the same keys: no account has a space.
	standInName = "stand-in token"
)

// keyMark is the beginning of a key's digest.
type keyMark [8]byte

func markOf(key string) keyMark {
	digest := sha256.Sum256([]byte(key))
	return keyMark(digest[:len(keyMark{})])
}

func (s standIns) issue(t standIn) string {
	plain := binary.BigEndian.AppendUint64([]byte{t.kind}, uint64(s.now().Add(t.life).Unix()))
	plain = append(append(plain, t.key[:]...), t.client...)
	return standInPrefix + base64.RawURLEncoding.EncodeToString(s.sealer.Seal(standInName, plain))
}

// open reads an access token that issue made and that has not expired.
func (s standIns) open(token string) (t standIn, ok bool) {
	text, ours := strings.CutPrefix(token, standInPrefix)
	if !ours || s.sealer == nil {
		return standIn{}, false
	}
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return standIn{}, false
	}
	plain, _, err := s.sealer.Open(standInName, sealed)
	if err != nil || len(plain) < 1+8+len(t.key) {
		return standIn{}, false
	}
	t.kind = plain[0]
	t.life = time.Unix(int64(binary.BigEndian.Uint64(plain[1:])), 0).Sub(s.now())
	t.key = keyMark(plain[9:])
	t.client = string(plain[9+len(t.key):])
	return t, t.kind == accessStandIn && t.life > 0
}

// holder finds the client of what a program shows as its key: the key, or what stands in for that.
func (c *clients) holder(token string) *client {
	t, ok := c.standIns.open(token)
	if !ok {
		return c.withKey(token)
	}
	found := c.named[t.client]
	if found == nil {
		return nil
	}
	for _, digest := range found.Keys {
		if bytes.HasPrefix(digest[:], t.key[:]) {
			return found
		}
	}
	return nil // the key was taken away, or there never was one
}
