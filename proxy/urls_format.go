package proxy

import (
	"bytes"
	"net/http"
	"strings"
)

// format is what a body is written in, as far as URLs are looked for.
type format int

const (
	formatOther format = iota
	formatJSON
	formatXML
	formatForm
)

// scanner finds URLs in a format.
func (f format) scanner(w *wanted) scanner {
	switch f {
	case formatJSON:
		return &jsonScanner{wanted: w}
	case formatXML:
		return &xmlScanner{wanted: w}
	case formatForm:
		return &formScanner{wanted: w}
	}
	return untouched{}
}

// answerFormat is the format that an answer says it has. FreeAgent says it right.
func answerFormat(h http.Header) format {
	mediaType, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	mediaType = strings.TrimSpace(mediaType)
	switch {
	case endsFold(mediaType, "/json"), endsFold(mediaType, "+json"):
		return formatJSON
	case endsFold(mediaType, "/xml"), endsFold(mediaType, "+xml"):
		return formatXML
	}
	return formatOther
}

// kind is what the Content-Type of a request promises.
type kind int

const (
	kindOther kind = iota // no text that we know: multipart, a statement
	kindNone              // nothing, or plain text
	kindForm
	kindJSON
	kindXML
)

func requestKind(contentType string) kind {
	mediaType, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	switch mediaType = strings.TrimSpace(mediaType); {
	case mediaType == "", mediaType == "text/plain":
		return kindNone
	case mediaType == "application/x-www-form-urlencoded":
		return kindForm
	case strings.Contains(mediaType, "json"):
		return kindJSON
	case strings.HasSuffix(mediaType, "/xml"), strings.HasSuffix(mediaType, "+xml"):
		return kindXML
	}
	return kindOther
}

// requestFormat is the format that a request's body has, by its first character: programs send JSON as a form, or
// a form as JSON, or do not say what it is. White space does not tell.
func requestFormat(contentType string, head []byte) (f format, told bool) {
	says := requestKind(contentType)
	head = bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")
	switch {
	case len(head) == 0:
		return formatOther, false
	case says == kindOther:
		return formatOther, true
	case head[0] == '{' || head[0] == '[' || head[0] == '"':
		return formatJSON, true
	case head[0] == '<':
		return formatXML, true
	case says == kindForm || says == kindJSON:
		return formatForm, true
	}
	return formatOther, true
}

func endsFold(s, end string) bool {
	return len(s) >= len(end) && strings.EqualFold(s[len(s)-len(end):], end)
}
