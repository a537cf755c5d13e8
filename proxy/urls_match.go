package proxy

import (
	"bytes"
	"strings"
)

// wanted is what a value must begin with to be rewritten, and what is written in its place.
type wanted struct {
	origins []string // scheme and host, such as https://api.freeagent.com; in lower case if anyCase is set
	anyCase bool     // programs may spell scheme and host as they like
	prefix  string   // /accounts/NAME, which goes with the origin where it follows; may be empty
	with    string   // does not end in a slash
}

// character decodes the first character of a text in some format, n bytes long. n is 0 if more
// must be seen to tell; last says that there is no more.
type character func(text []byte, last bool) (c, n int)

// What a character may be beside a byte.
const (
	endOfValue = -1 - iota
	notInURL
)

// verdict says whether a value begins with something.
type verdict int

const (
	no verdict = iota
	yes
	unsure // its end is not there yet
)

// match says whether a value, of which text is the beginning, begins with an origin, and how long that is in text. An
// origin ends where its host does: https://api.freeagent.com.example is another one.
func (w *wanted) match(text []byte, next character, last bool) (length int, v verdict) {
	for _, origin := range w.origins {
		n, v := begins(text, origin, next, last, w.anyCase)
		if v == yes {
			v = endsHost(text[n:], next, last)
		}
		if v == yes {
			n, v = w.path(text, n, next, last)
		}
		if v != no {
			return n, v
		}
	}
	return 0, no
}

// plainly is match for what FreeAgent writes by the ten thousand in one answer: an origin without any encoding and a path that needs
// no second look. It is 0 for all else.
func (w *wanted) plainly(text []byte) (length int) {
	for _, origin := range w.origins {
		n := len(origin)
		if len(text) < n+2 || string(text[:n]) != origin || text[n] != '/' {
			continue
		}
		if c := text[n+1]; c != 'a' && c != '\\' {
			return n
		}
	}
	return 0
}

// path takes an account's prefix along with the origin. Other paths below /accounts/ are not FreeAgent's: if they
// are anyone's, then another account's.
func (w *wanted) path(text []byte, n int, next character, last bool) (length int, v verdict) {
	switch _, v = begins(text[n:], "/accounts/", next, last, false); {
	case v == unsure:
		return 0, unsure
	case v == no:
		return n, yes
	case w.prefix == "":
		return 0, no
	}
	m, v := begins(text[n:], w.prefix, next, last, false)
	if v == yes {
		v = endsHost(text[n+m:], next, last)
	}
	return n + m, v
}

// begins says whether text begins with s, and how many bytes of text that takes.
func begins(text []byte, s string, next character, last, anyCase bool) (length int, v verdict) {
	n := 0
	for i := range len(s) {
		c, k := next(text[n:], last)
		if k == 0 {
			return 0, unsure
		}
		if anyCase && 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != int(s[i]) {
			return 0, no
		}
		n += k
	}
	return n, yes
}

// endsHost says whether a host, or a segment of a path, ends before text.
func endsHost(text []byte, next character, last bool) verdict {
	c, n := next(text, last)
	switch {
	case n == 0:
		return unsure
	case c == '/' || c == '?' || c == '#' || c == endOfValue:
		return yes
	}
	return no
}

// found is what a scanner makes of a text: up to sure it stays as it is; then drop bytes give way to insert, if drop is not 0.
type found struct {
	sure   int
	drop   int
	insert []byte
}

// scanner finds in a text, which it gets piece by piece, what is to be rewritten.
type scanner interface {
	// scan looks at text from an index on, up to the first find. What is before the index was looked at already,
	// and is there to look back at: one byte at least, but at the very beginning. last says that
	// nothing follows text; then all that is not found is sure.
	scan(text []byte, from int, last bool) found
}

// rewrite is text with all finds replaced; text itself if there are none.
func rewrite(s scanner, text []byte) []byte {
	var out []byte
	from := 0
	for {
		f := s.scan(text, from, true)
		if f.drop == 0 {
			break
		}
		out = append(append(out, text[from:f.sure]...), f.insert...)
		from = f.sure + f.drop
	}
	if from == 0 {
		return text
	}
	return append(out, text[from:]...)
}

// plainCharacter reads a text without any encoding, such as Location's.
func plainCharacter(text []byte, _ bool) (c, n int) {
	if len(text) == 0 {
		return endOfValue, 1
	}
	return int(text[0]), 1
}

// linkCharacter reads what stands between < and > in a Link header.
func linkCharacter(text []byte, _ bool) (c, n int) {
	if len(text) == 0 {
		return notInURL, 1
	}
	if text[0] == '>' {
		return endOfValue, 1
	}
	return int(text[0]), 1
}

// location rewrites the value of a Location header. A path alone, which FreeAgent sends too, leads through us already, but
// for the account's prefix.
func (w *wanted) location(value, prefix string) string {
	if n, v := w.match([]byte(value), plainCharacter, true); v == yes {
		return w.with + value[n:]
	}
	if isPath(value) {
		return prefix + value
	}
	return value
}

func isPath(reference string) bool {
	return strings.HasPrefix(reference, "/") && !strings.HasPrefix(reference, "//")
}

// link rewrites the targets in the value of a Link header, and nothing else: programs differ in which quotes
// they can read.
func (w *wanted) link(value, prefix string) string {
	text := []byte(value)
	var out []byte
	from := 0
	for {
		i := bytes.IndexByte(text[from:], '<')
		if i < 0 {
			break
		}
		i += from + 1
		out = append(out, text[from:i]...)
		from = i
		if n, v := w.match(text[i:], linkCharacter, true); v == yes {
			out = append(out, w.with...)
			from += n
		} else if isPath(value[i:]) {
			out = append(out, prefix...)
		}
	}
	return string(append(out, text[from:]...))
}
