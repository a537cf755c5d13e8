package outcomes

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// state is how far a request is. A higher one never becomes a lower one.
type state int

const (
	waiting state = 1 + iota
	sent
	done
	unknown
)

// record is what is kept under a name.
type record struct {
	id      string
	account string
	client  string
	owner   string // of the claim
	state   state
	print   Fingerprint
	at      time.Time // when it got into this state
	answer  Answer    // once it is done
	sealed  []byte    // print, time and answer
	alive   bool      // its owner lives, as far as the store can tell
	units   int       // that the step to this state takes
}

// content is what is sealed of a record, followed by the body.
type content struct {
	State  state       `json:"state"`
	Print  Fingerprint `json:"print"`
	At     int64       `json:"at"` // Unix milliseconds
	Status int         `json:"status,omitempty"`
	Header http.Header `json:"header"`
	Cut    bool        `json:"cut,omitempty"`
}

// sealName keeps records apart from all else that the same keys seal: no account has a space.
const sealName = "outcome of a write "

func (r *record) seal(s Sealer) {
	head, _ := json.Marshal(content{ // of these types it cannot fail
		State: r.state, Print: r.print, At: r.at.UnixMilli(),
		Status: r.answer.Status, Header: r.answer.Header, Cut: r.answer.Cut,
	})
	plain := append(append(head, '\n'), r.answer.Body...)
	r.sealed = s.Seal(sealName+r.id, plain)
}

// open reads what is sealed.
func (r *record) open(s Sealer) error {
	plain, _, err := s.Open(sealName+r.id, r.sealed)
	if err != nil {
		return err
	}
	head, body, _ := bytes.Cut(plain, []byte("\n"))
	var c content
	if err := json.Unmarshal(head, &c); err != nil { // not quoted: it is plain text by now
		return errors.New("what is sealed is no outcome")
	}
	r.state, r.print, r.at = c.State, c.Print, time.UnixMilli(c.At)
	r.answer = Answer{Status: c.Status, Header: c.Header, Body: body, Cut: c.Cut}
	return nil
}

// verdict is what the record says to whoever comes with its name.
func (r *record) verdict(print Fingerprint) (*Answer, error) {
	switch {
	case r.print != print:
		return nil, ErrDifferent
	case r.state == done:
		return &r.answer, nil
	case r.state != unknown && r.alive:
		return nil, ErrRunning
	default:
		return nil, ErrUnknown
	}
}

// expires is when the record is forgotten.
func (r *record) expires() time.Time { return r.at.Add(Life) }
