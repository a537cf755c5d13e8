package simulator

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"time"
)

// XML is the same value in other clothes, as Rails dresses it: names with
// hyphens, a type attribute on all but plain text, answers inside <freeagent>.

// appendXML writes v as an answer.
func appendXML(b []byte, v any, base string) []byte {
	b = append(b, xml.Header...)
	b = append(b, "<freeagent>\n"...)
	if o, ok := v.(object); ok {
		for _, f := range o {
			b = appendElement(b, f.name, f.value, base, "  ")
		}
	}
	return append(b, "</freeagent>\n"...)
}

func appendElement(b []byte, name string, v any, base, indent string) []byte {
	tag := strings.ReplaceAll(name, "_", "-")
	b = append(b, indent...)
	switch v := v.(type) {
	case object:
		b = append(b, "<"+tag+">\n"...)
		for _, f := range v {
			b = appendElement(b, f.name, f.value, base, indent+"  ")
		}
		return append(b, indent+"</"+tag+">\n"...)
	case []any:
		b = append(b, "<"+tag+` type="array">`+"\n"...)
		for _, e := range v {
			b = appendElement(b, singular(name), e, base, indent+"  ")
		}
		return append(b, indent+"</"+tag+">\n"...)
	case nil:
		return append(b, "<"+tag+` nil="true"/>`+"\n"...)
	}
	text, kind := xmlText(v, base)
	if kind != "" {
		kind = ` type="` + kind + `"`
	}
	b = append(b, "<"+tag+kind+">"...)
	b = appendEscaped(b, text)
	return append(b, "</"+tag+">\n"...)
}

var (
	decimalText = regexp.MustCompile(`^-?[0-9]+\.[0-9]+$`)
	dateText    = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`)
)

// xmlText returns a leaf's text and its type attribute.
func xmlText(v any, base string) (text, kind string) {
	switch v := v.(type) {
	case bool:
		if v {
			return "true", "boolean"
		}
		return "false", "boolean"
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return v.String(), "decimal"
		}
		return v.String(), "integer"
	case timestamp:
		return time.Time(v).UTC().Format("2006-01-02T15:04:05Z"), "dateTime"
	case ref:
		return base + string(v), ""
	case string:
		switch {
		case decimalText.MatchString(v):
			return v, "decimal"
		case dateText.MatchString(v):
			return v, "date"
		}
		return v, ""
	}
	return "", ""
}

func appendEscaped(b []byte, s string) []byte {
	var out bytes.Buffer
	_ = xml.EscapeText(&out, []byte(s)) // a bytes.Buffer takes everything
	return append(b, out.Bytes()...)
}

// parseXML reads one document: its root as an object with one field, as the
// same body would be in JSON.
func parseXML(data []byte) (any, error) {
	d := xml.NewDecoder(bytes.NewReader(data))
	for {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		v, err := decodeXML(d, start, 0)
		if err != nil {
			return nil, err
		}
		if err := onlySpace(d); err != nil {
			return nil, err
		}
		return object{{xmlName(start), v}}, nil
	}
}

func onlySpace(d *xml.Decoder) error {
	for {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if _, ok := token.(xml.StartElement); ok {
			return errors.New("more than one root element")
		}
	}
}

func decodeXML(d *xml.Decoder, start xml.StartElement, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errTooDeep
	}
	var text strings.Builder
	children := object{}
	for {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.CharData:
			text.Write(t)
		case xml.StartElement:
			v, err := decodeXML(d, t, depth+1)
			if err != nil {
				return nil, err
			}
			children = append(children, field{xmlName(t), v})
		case xml.EndElement:
			return xmlValue(start, children, strings.TrimSpace(text.String())), nil
		}
	}
}

// xmlValue makes an array of what says it is one, an object of what has children, else a leaf.
func xmlValue(start xml.StartElement, children object, text string) any {
	kind := xmlAttr(start, "type")
	switch {
	case kind == "array":
		list := []any{}
		for _, f := range children {
			list = append(list, f.value)
		}
		return list
	case len(children) > 0:
		return children
	case kind == "boolean":
		return text == "true" || text == "1"
	case text == "":
		return nil
	case kind == "integer" && json.Valid([]byte(text)):
		return json.Number(text)
	}
	return text
}

func xmlName(e xml.StartElement) string { return strings.ReplaceAll(e.Name.Local, "-", "_") }

func xmlAttr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// singular names one element of a list: invoices → invoice, categories → category.
func singular(plural string) string {
	if stem, ok := strings.CutSuffix(plural, "ies"); ok {
		return stem + "y"
	}
	if stem, ok := strings.CutSuffix(plural, "sses"); ok {
		return stem + "ss"
	}
	return strings.TrimSuffix(plural, "s")
}
