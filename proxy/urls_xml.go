package proxy

import "bytes"

// xmlScanner finds XML text that begins with what is wanted: behind a tag that opens an element, perhaps after white
// space, perhaps in CDATA. Attributes, comments and text behind a closing tag are left alone. What is
// no XML passes as well.
type xmlScanner struct {
	*wanted
	state   xmlState
	quote   byte // in a tag: of the attribute's value; 0 outside
	before  byte // in a tag: the last byte
	opening bool // the tag may open an element
	written []byte
}

// xmlState is where in XML a scanner is.
type xmlState int

const (
	xmlText xmlState = iota
	xmlStart
	xmlTag
	xmlComment
	xmlCDATA
	xmlCDATAStart
)

// begun is the state behind the first character of a text.
func (s xmlState) begun() xmlState {
	if s == xmlCDATAStart {
		return xmlCDATA
	}
	return xmlText
}

const (
	commentBegins, commentEnds = "<!--", "-->"
	cdataBegins, cdataEnds     = "<![CDATA[", "]]>"
)

func (s *xmlScanner) scan(text []byte, from int, last bool) found {
	for at := from; at < len(text); {
		if s.state == xmlCDATAStart || s.state == xmlStart && text[at] != '<' {
			if isSpace(text[at]) {
				at++
				continue
			}
			n, v := s.match(text[at:], xmlCharacter, last)
			if v == unsure {
				return found{sure: at}
			}
			s.state = s.state.begun()
			if v == yes {
				return found{at, n, s.spell()}
			}
		}
		next := s.step(text, at)
		if next < 0 && !last {
			return found{sure: at}
		}
		if next < 0 {
			break
		}
		at = next
	}
	return found{sure: len(text)}
}

// step goes on in text, and says to where; -1 if more must be seen.
func (s *xmlScanner) step(text []byte, at int) int {
	switch s.state {
	case xmlTag:
		return s.tag(text, at)
	case xmlComment:
		return s.until(commentEnds, text, at)
	case xmlCDATA:
		return s.until(cdataEnds, text, at)
	}
	i := bytes.IndexByte(text[at:], '<')
	switch i {
	case -1:
		return len(text)
	case 0:
		return s.markup(text, at)
	}
	return at + i
}

// markup begins what the < at an index begins.
func (s *xmlScanner) markup(text []byte, at int) int {
	switch rest := text[at:]; {
	case bytes.HasPrefix(rest, []byte(commentBegins)):
		s.state = xmlComment
		return at + len(commentBegins)
	case bytes.HasPrefix(rest, []byte(cdataBegins)) && s.state == xmlStart:
		s.state = xmlCDATAStart
		return at + len(cdataBegins)
	case bytes.HasPrefix(rest, []byte(cdataBegins)):
		s.state = xmlCDATA
		return at + len(cdataBegins)
	case len(rest) == 1, bytes.HasPrefix([]byte(commentBegins), rest), bytes.HasPrefix([]byte(cdataBegins), rest):
		return -1
	}
	c := text[at+1]
	s.state, s.quote, s.before, s.opening = xmlTag, 0, 0, c != '/' && c != '?' && c != '!'
	return at + 1
}

// tag goes to the tag's end, which is no > in an attribute's value.
func (s *xmlScanner) tag(text []byte, at int) int {
	for ; at < len(text); at++ {
		switch c := text[at]; {
		case s.quote != 0:
			if c == s.quote {
				s.quote = 0
			}
		case c == '"' || c == '\'':
			s.quote = c
		case c == '>' && s.opening && s.before != '/':
			s.state = xmlStart
			return at + 1
		case c == '>':
			s.state = xmlText
			return at + 1
		}
		s.before = text[at]
	}
	return at
}

// until goes to where a comment or CDATA ends.
func (s *xmlScanner) until(end string, text []byte, at int) int {
	if i := bytes.Index(text[at:], []byte(end)); i >= 0 {
		s.state = xmlText
		return at + i + len(end)
	}
	if kept := len(text) - len(end) + 1; kept > at {
		return kept
	}
	return -1
}

func (s *xmlScanner) spell() []byte {
	if s.written == nil {
		s.written = []byte(s.with)
	}
	return s.written
}

// xmlCharacter reads a text that ends where markup begins, the line ends, or CDATA does.
func xmlCharacter(text []byte, last bool) (c, n int) {
	switch {
	case len(text) == 0 && last:
		return notInURL, 1
	case len(text) == 0:
		return 0, 0
	case text[0] == '<' || text[0] == '\n' || text[0] == '\r':
		return endOfValue, 1
	case text[0] == ']' && len(text) < len(cdataEnds) && !last:
		return 0, 0
	case bytes.HasPrefix(text, []byte(cdataEnds)):
		return endOfValue, 1
	}
	return int(text[0]), 1
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
