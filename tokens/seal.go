package tokens

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// keySize makes it AES-256.
const keySize = 32

// Key seals grants. Its ID is written, readable, in front of what it seals.
type Key struct {
	ID   string
	aead cipher.AEAD // all that is kept of the secret: it has no printable form
}

// Format prints a Key's id alone.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "key %q", k.ID) }

// NewKey makes a key in the form that ParseKey takes: 32 random bytes in standard base64.
func NewKey() string {
	secret := make([]byte, keySize)
	_, _ = rand.Read(secret) // never fails, by its documentation
	return base64.StdEncoding.EncodeToString(secret)
}

var keyID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// ParseKey reads a key that NewKey made. An id is up to 64 letters, digits, dots, dashes and underscores.
func ParseKey(id, text string) (Key, error) {
	if !keyID.MatchString(id) {
		return Key{}, fmt.Errorf("key id %q: use up to 64 letters, digits, dots, dashes and underscores", id)
	}
	return parseKey(id, text)
}

func parseKey(id, text string) (Key, error) {
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(secret) != keySize { // err would quote a part of the secret
		return Key{}, fmt.Errorf("key %q: not %d bytes in standard base64; `freeagent-proxy keygen` makes one", id, keySize)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return Key{}, fmt.Errorf("key %q: %w", id, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return Key{}, fmt.Errorf("key %q: %w", id, err)
	}
	return Key{ID: id, aead: aead}, nil
}

// Sealer encrypts grants with AES-256-GCM: a readable first line (format version and key
// id), a random nonce of 96 bits, the ciphertext. First line and account name are
// authenticated, so that one account's grant cannot be passed off as another's. GCM's
// nonce collides with a chance of 2^-32 after 2^32 grants: nobody refreshes that often.
type Sealer struct {
	keys []Key // the first seals, all open
}

// NewSealer takes one key or more, with different ids. The first one seals, all of them open.
func NewSealer(keys ...Key) (*Sealer, error) {
	if len(keys) == 0 {
		return nil, errors.New("sealer needs a key")
	}
	seen := make(map[string]bool, len(keys))
	for _, k := range keys {
		if k.aead == nil {
			return nil, fmt.Errorf("key %q: made without ParseKey", k.ID)
		}
		if seen[k.ID] {
			return nil, fmt.Errorf("key %q is there twice", k.ID)
		}
		seen[k.ID] = true
	}
	return &Sealer{keys: keys}, nil
}

const sealedBy = "freeagent-proxy grant 1 key="

// Seal encrypts what belongs to an account.
func (s *Sealer) Seal(account string, plain []byte) []byte {
	k := s.keys[0]
	header := []byte(sealedBy + k.ID + "\n")
	return k.aead.Seal(header, nil, plain, append(header[:len(header):len(header)], account...))
}

// Open decrypts what Seal made for the same account. stale: another key than the first
// had sealed it. The error says what is wrong and what to do.
func (s *Sealer) Open(account string, sealed []byte) (plain []byte, stale bool, err error) {
	header, box, ok := bytes.Cut(sealed, []byte("\n"))
	id, ours := strings.CutPrefix(string(header), sealedBy)
	switch {
	case len(sealed) == 0:
		return nil, false, errors.New("it is empty; restore it from a backup, or authorise the account again after removing it")
	case !ok || !ours:
		return nil, false, errors.New("it is damaged, or a newer freeagent-proxy wrote it; restore it from a backup or use that version")
	}
	for i, k := range s.keys {
		if k.ID != id {
			continue
		}
		plain, err = k.aead.Open(nil, nil, box, append([]byte(sealedBy+id+"\n"), account...))
		if err != nil {
			return nil, false, fmt.Errorf("key %q does not open it: it is another key of that id, or it is damaged; restore the key, or the grant from a backup", id)
		}
		return plain, i > 0, nil
	}
	return nil, false, fmt.Errorf("it is sealed with key %q, which is not configured; add that key behind the others", id[:min(len(id), 64)])
}

// Sealer seals with the store's keys. nil: it was opened read only and has no key yet.
func (f *File) Sealer() *Sealer { return f.sealer }

// Sealer seals with the store's keys.
func (r *Redis) Sealer() *Sealer { return r.sealer }

func (s *Sealer) sealGrant(g Grant) ([]byte, error) {
	plain, err := json.Marshal(g)
	if err != nil {
		return nil, err
	}
	return s.Seal(g.Account, plain), nil
}

func (s *Sealer) openGrant(account string, sealed []byte) (g Grant, stale bool, err error) {
	plain, stale, err := s.Open(account, sealed)
	if err != nil {
		return Grant{}, false, err
	}
	if err := json.Unmarshal(plain, &g); err != nil { // not quoted: it is plain text by now
		return Grant{}, false, errors.New("what is sealed in it is no grant; restore it from a backup")
	}
	return g, stale, nil
}
