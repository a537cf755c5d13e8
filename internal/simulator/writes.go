package simulator

import (
	"crypto/sha256"
	"strings"
	"sync"
)

// WriteStats is about POSTs other than to the token endpoint. Two POSTs are the
// same write when user, subdomain and path are the same and so is one of
//   - the header X-Sim-Logical-Id, which a test may set and which then decides alone;
//   - the reference that the record in the body carries;
//   - the body, byte for byte, if there is one.
type WriteStats struct {
	Acted      int64 `json:"acted"`      // POSTs that were carried out
	Duplicates int64 `json:"duplicates"` // of those, the same write as one carried out before
	Repeated   int64 `json:"repeated"`   // POSTs not carried out, the same write as one carried out before
	// DuplicateReferences counts records that were stored with a reference already in use.
	DuplicateReferences int64 `json:"duplicate_references"`
	// Examples are the first duplicates: "POST /v2/invoices reference 003".
	Examples []string `json:"examples"`
}

// maxWrites bounds what is remembered; the oldest writes are forgotten first.
const maxWrites = 1 << 17

const maxExamples = 20

// writes finds duplicates.
type writes struct {
	mu    sync.Mutex
	stats WriteStats
	seen  map[writeKey]bool
	order []writeKey // as they came; a ring once it is full
	next  int
}

type writeKey [16]byte

// write is one POST by everything that may identify it.
type write struct {
	scope string   // user, subdomain, path
	marks []string // "id …", "reference …", "body …"
}

func newWrites() *writes { return &writes{seen: map[writeKey]bool{}} }

func (w *writes) record(p write, acted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys := make([]writeKey, len(p.marks))
	same := -1
	for i, mark := range p.marks {
		sum := sha256.Sum256([]byte(p.scope + "\n" + mark))
		keys[i] = writeKey(sum[:16])
		if w.seen[keys[i]] && same < 0 {
			same = i
		}
	}
	if !acted {
		if same >= 0 {
			w.stats.Repeated++
		}
		return
	}
	w.stats.Acted++
	if same >= 0 {
		w.stats.Duplicates++
		if len(w.stats.Examples) < maxExamples {
			path := p.scope[strings.LastIndexByte(p.scope, '\n')+1:]
			w.stats.Examples = append(w.stats.Examples, "POST "+path+" "+p.marks[same])
		}
	}
	for _, key := range keys {
		w.remember(key)
	}
}

func (w *writes) remember(key writeKey) {
	if w.seen[key] {
		return
	}
	if len(w.order) < maxWrites {
		w.order = append(w.order, key)
	} else {
		delete(w.seen, w.order[w.next])
		w.order[w.next] = key
		w.next = (w.next + 1) % maxWrites
	}
	w.seen[key] = true
}

func (w *writes) duplicateReference() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.DuplicateReferences++
}

func (w *writes) snapshot() WriteStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.stats
	out.Examples = append([]string{}, w.stats.Examples...)
	return out
}

func (w *writes) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats = WriteStats{}
	w.seen, w.order, w.next = map[writeKey]bool{}, nil, 0
}
