package proxy

import (
	"bytes"
	"strings"
)

// formScanner finds values of a form or of a query that begin with what is wanted, encoded in any way or not at
// all, and writes the encoding that it found. A pair ends at &, its name at the first =.
type formScanner struct {
	*wanted
	state formState
}

// formState is where in a pair a scanner is.
type formState int

const (
	formName formState = iota
	formStart
	formValue
)

func (s *formScanner) scan(text []byte, from int, last bool) found {
	for at := from; at < len(text); {
		switch s.state {
		case formName:
			i := bytes.IndexAny(text[at:], "=&")
			if i < 0 {
				return found{sure: len(text)}
			}
			at += i + 1
			if text[at-1] == '=' {
				s.state = formStart
			}
		case formStart:
			n, v := s.match(text[at:], formCharacter, last)
			if v == unsure {
				return found{sure: at}
			}
			s.state = formValue
			if v == yes {
				return found{at, n, spell(s.with, text[at:at+n])}
			}
		case formValue:
			i := bytes.IndexByte(text[at:], '&')
			if i < 0 {
				return found{sure: len(text)}
			}
			at += i + 1
			s.state = formName
		}
	}
	return found{sure: len(text)}
}

// spell writes an origin as another one was written: some programs encode its slashes alone, some its colons
// too, in upper or lower hex.
func spell(origin string, like []byte) []byte {
	colon, slash := spelling(like, ':'), spelling(like, '/')
	out := make([]byte, 0, 3*len(origin))
	for i := range len(origin) {
		switch c := origin[i]; {
		case c == ':':
			out = append(out, colon...)
		case c == '/':
			out = append(out, slash...)
		case c == '[' && len(colon) > 1:
			out = append(out, "%5B"...)
		case c == ']' && len(colon) > 1:
			out = append(out, "%5D"...)
		default:
			out = append(out, c)
		}
	}
	return out
}

// spelling is how c is written where it stands first.
func spelling(text []byte, c byte) []byte {
	for len(text) > 0 {
		found, n := formCharacter(text, true)
		if found == int(c) {
			return text[:n]
		}
		text = text[n:]
	}
	return []byte{c}
}

// formCharacter reads a value in a form, percent-encoded or not. What a % begins wrongly is itself.
func formCharacter(text []byte, last bool) (c, n int) {
	switch {
	case len(text) == 0 && last:
		return endOfValue, 1
	case len(text) == 0, text[0] == '%' && len(text) < 3 && !last:
		return 0, 0
	case text[0] == '&':
		return endOfValue, 1
	case text[0] == '%' && len(text) >= 3:
		high, low := strings.IndexByte(hexDigits, text[1]|0x20), strings.IndexByte(hexDigits, text[2]|0x20)
		if high >= 0 && low >= 0 {
			return high<<4 | low, 3
		}
	}
	return int(text[0]), 1
}

const hexDigits = "0123456789abcdef"
