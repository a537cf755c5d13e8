package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
)

// A value is what a body holds: nil, bool, string, json.Number, []any, object,
// ref or timestamp. Numbers stay as they were written, so that money is never
// rounded on its way through.

// object is a JSON object that keeps the order of its fields: FreeAgent's
// answers begin with the url, and a record comes back as it was sent.
type object []field

type field struct {
	name  string
	value any
}

// ref names a resource by its path, "/v2/contacts/1001". It is stored without a
// host and written with the address that the reader used.
type ref string

// timestamp is written in UTC: with milliseconds in JSON, without in XML.
type timestamp time.Time

func (o object) get(name string) any {
	for _, f := range o {
		if f.name == name {
			return f.value
		}
	}
	return nil
}

func (o object) has(name string) bool {
	return slices.ContainsFunc(o, func(f field) bool { return f.name == name })
}

// text returns the field as a string: a number as it was written, a ref as its path, else "".
func (o object) text(name string) string {
	switch v := o.get(name).(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	case ref:
		return string(v)
	}
	return ""
}

// with returns a copy that has the field set; stored objects are never changed in place.
func (o object) with(name string, value any) object {
	next := slices.Clone(o)
	for i := range next {
		if next[i].name == name {
			next[i].value = value
			return next
		}
	}
	return append(next, field{name, value})
}

func (o object) without(names ...string) object {
	return slices.DeleteFunc(slices.Clone(o), func(f field) bool { return slices.Contains(names, f.name) })
}

// maxDepth bounds the nesting of a body; FreeAgent's own go four deep.
const maxDepth = 64

var errTooDeep = errors.New("nested too deeply")

// parseJSON reads exactly one JSON value.
func parseJSON(data []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	v, err := decodeJSON(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more than one value")
	}
	return v, nil
}

func decodeJSON(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errTooDeep
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		return decodeObject(d, depth)
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := decodeJSON(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	return token, nil
}

func decodeObject(d *json.Decoder, depth int) (any, error) {
	o := object{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		v, err := decodeJSON(d, depth+1)
		if err != nil {
			return nil, err
		}
		o = append(o, field{name.(string), v}) // a key is always a string, or Token had failed
	}
	_, err := d.Token()
	return o, err
}

// appendJSON writes v; refs become absolute below base.
func appendJSON(b []byte, v any, base string) []byte {
	switch v := v.(type) {
	case object:
		b = append(b, '{')
		for i, f := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, f.name), ':')
			b = appendJSON(b, f.value, base)
		}
		return append(b, '}')
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(b, e, base)
		}
		return append(b, ']')
	case string:
		return appendString(b, v)
	case ref:
		return appendString(b, base+string(v))
	case timestamp:
		return appendString(b, time.Time(v).UTC().Format("2006-01-02T15:04:05.000Z"))
	case json.Number:
		return append(b, v...)
	case bool:
		if v {
			return append(b, "true"...)
		}
		return append(b, "false"...)
	}
	return append(b, "null"...)
}

// appendString writes a JSON string. Plain text, nearly all there is, is copied.
func appendString(b []byte, s string) []byte {
	if strings.ContainsFunc(s, needsEscape) {
		quoted, _ := json.Marshal(s) // a string always marshals
		return append(b, quoted...)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func needsEscape(r rune) bool {
	return r < ' ' || r > '~' || r == '"' || r == '\\' || r == '<' || r == '>' || r == '&'
}
