// Package outcomes remembers what became of writes that carry an Idempotency-Key, so that none of them reaches
// FreeAgent twice: not after a crash, nor through another replica.
//
// Its vocabulary: a Name is what a key is unique in; a record is what is kept under one; who begins a request has a
// Claim on its name until the outcome is known. The states of a record:
//
//	waiting  claimed, and certainly not sent: it is free again when its owner gives it up or dies
//	sent     about to be sent, or sent: durable before the first byte leaves
//	done     FreeAgent answered, and this is its answer
//	unknown  FreeAgent may have acted or not. Nobody will ever know from here
//
// Three decisions that a reader would question:
//   - A record whose owner died while it was sent is unknown, but that is not written down: it is what a reader makes of a
//     sent record without a living owner. So an owner that was only halted can still say how it ended.
//   - Book is the one state machine; a store (file or Redis) only compares and writes. What a store does not take now,
//     such as an outcome while Redis is away, Book holds and offers again.
//   - Names are kept as digests, everything else sealed: answers hold business data.
package outcomes

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"time"
)

const (
	// Life is how long an outcome is kept, from when it is known.
	Life = 24 * time.Hour
	// MaxBody is the longest body that is kept of an answer. FreeAgent's to a create are 1 to 20 KB; an invoice of 500
	// lines has about 200 KB.
	MaxBody = 256 << 10
	// MaxUnits bounds what one client keeps in one account, in units of 4 KiB. It is more than the 86,400 requests that
	// FreeAgent's limit of 3,600 an hour lets through in Life, each of which takes one unit if what is kept of it is no
	// longer than most: FreeAgent's header has 5 KB, and what it creates 1 to 4.
	MaxUnits = 100_000
	unit     = 4 << 10
	most     = 12 << 10
)

// units is what a record takes that is sealed in so many bytes.
func units(sealed int) int { return 1 + max(0, sealed-most+unit-1)/unit }

// What Begin, and Claim.Leave, say instead of letting a request go.
var (
	// ErrRunning: the first request of that name has no outcome yet.
	ErrRunning = errors.New("the first request under this key is still running")
	// ErrDifferent: the name was used for another request.
	ErrDifferent = errors.New("the key was used for another request")
	// ErrUnknown: FreeAgent may have acted on the first request.
	ErrUnknown = errors.New("the outcome under this key is unknown")
	// ErrFull: the client has MaxUnits on record.
	ErrFull = errors.New("too many outcomes are kept for this client")
	// ErrUnavailable: the store does not answer, or takes nothing. It is wrapped by what says why.
	ErrUnavailable = errors.New("outcomes cannot be stored")
)

// Name is what an idempotency key is unique in. Names that differ in anything are different names.
type Name struct{ Account, Subdomain, Client, Key string }

// id is a digest of subdomain and key, in hex; account and client are the record's place beside it.
func (n Name) id() string {
	h := sha256.New()
	for _, part := range []string{n.Account, n.Client, n.Subdomain, n.Key} {
		one := sha256.Sum256([]byte(part))
		h.Write(one[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Fingerprint is a digest of a request, by which the same one is told from another.
type Fingerprint [sha256.Size]byte

// Answer is what FreeAgent answered.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Cut    bool // the body is not kept: it was longer than MaxBody, or broke off
}

// Sealer seals records: *tokens.Sealer.
type Sealer interface {
	Seal(name string, plain []byte) []byte
	Open(name string, sealed []byte) (plain []byte, stale bool, err error)
}

// Config says what a Book does besides its store.
type Config struct {
	Sealer Sealer // required
	// Degraded is told when the store takes no outcome, which is then held in memory; and nil when it does again. It must
	// return soon. nil: nobody.
	Degraded func(error)
	// WaitReplicas is how many of Redis's own replicas are waited for, half a second at most, before a request leaves, so
	// that a failover does not forget it.
	WaitReplicas int
}
