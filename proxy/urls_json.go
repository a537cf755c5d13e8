package proxy

import (
	"bytes"
	"strings"
)

// jsonScanner finds JSON strings that begin with what is wanted, with slashes as they are or, as PHP writes them, escaped.
// What follows a quote tells whether the quote opens a string: behind one that closes it there
// is never a URL, and one inside has a backslash before it. So no state is needed, and what is no JSON
// passes as well.
type jsonScanner struct {
	*wanted
	plain, escaped []byte // what is written instead, made for the first find
	inside         bool   // the last find's string has not ended yet
}

// jsonHead is what stands before the first slash, at its longest.
const jsonHead = `"https:\`

func (s *jsonScanner) scan(text []byte, from int, last bool) found {
	at := s.skip(text, from)
	for { // Slashes are rare in JSON, beside quotes and colons, and no URL is without them.
		i := bytes.IndexByte(text[at:], '/')
		if i < 0 {
			break
		}
		at += i + 1
		start := jsonStart(text, at-1)
		if start <= from { // its quote was looked at already, or there is none
			continue
		}
		if n := s.plainly(text[start:]); n > 0 {
			s.inside = true
			return found{start, n, s.spell(nil)}
		}
		n, v := s.match(text[start:], jsonCharacter, last)
		if v == unsure {
			return found{sure: start - 1}
		}
		if v == yes && evenlyEscaped(text[start:start+n]) {
			s.inside = true
			return found{start, n, s.spell(text[start : start+n])}
		}
	}
	return found{sure: jsonSure(text, from, last)}
}

// skip is where to look on: behind a find, not before the next quote.
func (s *jsonScanner) skip(text []byte, from int) int {
	if !s.inside {
		return from
	}
	i := bytes.IndexByte(text[from:], '"')
	if i < 0 {
		return len(text)
	}
	s.inside = false
	return from + i
}

// jsonStart is where the string begins of whose scheme text[slash] is the first slash; -1 if it is not that.
func jsonStart(text []byte, slash int) int {
	colon := slash - 1
	if colon > 0 && text[colon] == '\\' {
		colon--
	}
	if colon < 5 || text[colon] != ':' {
		return -1
	}
	quote := colon - len("http") - 1
	if text[quote] != '"' {
		quote--
	}
	if quote < 0 || text[quote] != '"' || quote > 0 && text[quote-1] == '\\' {
		return -1
	}
	return quote + 1
}

// jsonSure is how far a text without a find is sure: not where a string may begin in which the first slash is still to come.
func jsonSure(text []byte, from int, last bool) int {
	if last {
		return len(text)
	}
	tail := max(from, len(text)-len(jsonHead))
	if i := bytes.LastIndexByte(text[tail:], '"'); i >= 0 && mayBeHead(text[tail+i:]) {
		return tail + i
	}
	return len(text)
}

func mayBeHead(text []byte) bool {
	plain := strings.TrimSuffix(strings.ToLower(string(text)), `\`)
	return strings.HasPrefix(`"https:`, plain) || strings.HasPrefix(`"http:`, plain)
}

// evenlyEscaped says whether all slashes are escaped or none. Nobody writes them otherwise, and they could not be
// written back so.
func evenlyEscaped(text []byte) bool {
	if bytes.IndexByte(text, '\\') < 0 {
		return true
	}
	return bytes.Count(text, []byte{'\\'}) == bytes.Count(text, []byte{'/'})
}

// spell writes slashes as the matched text does.
func (s *jsonScanner) spell(matched []byte) []byte {
	if s.plain == nil {
		s.plain, s.escaped = []byte(s.with), []byte(strings.ReplaceAll(s.with, "/", `\/`))
	}
	if bytes.IndexByte(matched, '\\') >= 0 {
		return s.escaped
	}
	return s.plain
}

// jsonCharacter reads a JSON string. Of escapes it knows the slash's alone.
func jsonCharacter(text []byte, last bool) (c, n int) {
	switch {
	case len(text) == 0 && last:
		return notInURL, 1
	case len(text) == 0:
		return 0, 0
	case text[0] == '"':
		return endOfValue, 1
	case text[0] != '\\':
		return int(text[0]), 1
	case len(text) == 1 && !last:
		return 0, 0
	case len(text) > 1 && text[1] == '/':
		return '/', 2
	}
	return notInURL, 1
}
