package simulator

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"
)

// perform is what lies below a record: rest is the id and the path after it.
func (s *Simulator) perform(c *call, f family, method string, rest []string) (reply, error) {
	r := c.company.find(f.name, rest[0])
	if r == nil {
		return reply{}, notFound()
	}
	if len(rest) == 3 && rest[1] == "transitions" && method == http.MethodPut {
		return s.transition(c, f, r, rest[2])
	}
	if len(rest) != 2 || !slices.Contains(f.actions, rest[1]) {
		return reply{}, notFound()
	}
	switch method + " " + rest[1] {
	case "GET pdf":
		return reply{status: http.StatusOK, acted: true, value: object{{"pdf", object{{"content", pdf(r.attrs.text("reference"))}}}}}, nil
	case "POST send_email", "POST direct_debit":
		return reply{status: http.StatusOK, acted: true, value: object{{f.one, c.render(f, r, true)}}}, nil
	case "POST duplicate":
		return s.duplicate(c, f, r)
	case "POST timer":
		return c.setTimer(f, r, object{{"running", true}, {"start_from", timestamp(c.start)}})
	case "DELETE timer":
		return c.setTimer(f, r, nil)
	}
	return reply{}, notFound()
}

// transition changes a status, or makes one kind of record of another.
func (s *Simulator) transition(c *call, f family, r *row, name string) (reply, error) {
	to, ok := f.transitions[name]
	if !ok {
		return reply{}, notFound()
	}
	if strings.HasPrefix(name, "convert_to_") {
		return s.convert(c, f, r, s.family(to))
	}
	next, err := c.company.update(f.name, r.id, func(attrs object) (object, error) {
		attrs = attrs.with("status", to)
		if attrs.has("long_status") {
			attrs = attrs.with("long_status", to)
		}
		return attrs, nil
	})
	if err != nil {
		return reply{}, err
	}
	return c.putReply(f, next), nil
}

// convert replaces an invoice by a credit note, or answers an estimate with an invoice.
func (s *Simulator) convert(c *call, f family, r *row, to family) (reply, error) {
	attrs := to.fresh
	for _, a := range r.attrs {
		switch a.name {
		case "status", "long_status", "reference", "estimate_type":
		case f.items:
			attrs = attrs.with(to.items, a.value)
		default:
			attrs = attrs.with(a.name, a.value)
		}
	}
	made, err := s.store(c, to, s.complete(c, to, attrs))
	if err != nil {
		return reply{}, err
	}
	if f.name == "invoices" {
		c.company.remove(f.name, r.id)
	} else if _, err := c.company.update(f.name, r.id, func(attrs object) (object, error) {
		return attrs.with("status", "Invoiced"), nil
	}); err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK, acted: true, value: object{{to.one, c.render(to, made, true)}}}, nil
}

// duplicate makes a draft of today with the next reference; 200, not 201 (docs: invoices).
func (s *Simulator) duplicate(c *call, f family, r *row) (reply, error) {
	attrs := r.attrs.without("reference", "dated_on", "due_on").with("status", "Draft")
	if attrs.has("paid_value") {
		attrs = attrs.with("paid_value", "0.0").with("long_status", "Draft")
	}
	made, err := s.store(c, f, s.complete(c, f, attrs))
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK, acted: true, value: object{{f.one, c.render(f, made, true)}}}, nil
}

// setTimer starts or stops a timeslip's timer; the answer is the timeslip (docs: timeslips).
func (c *call) setTimer(f family, r *row, timer any) (reply, error) {
	next, err := c.company.update(f.name, r.id, func(attrs object) (object, error) {
		if timer != nil {
			return attrs.with("timer", timer), nil
		}
		if started, ok := attrs.get("timer").(object); ok {
			from, _ := started.get("start_from").(timestamp)
			hours := rational(attrs.get("hours"))
			seconds := int64(c.start.Sub(time.Time(from)) / time.Second)
			attrs = attrs.with("hours", decimal(cents(hours.Add(hours, hoursOf(seconds)))))
		}
		return attrs.without("timer"), nil
	})
	if err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusOK, acted: true, value: object{{f.one, c.render(f, next, true)}}}, nil
}

// pdf is a PDF of one empty page in base64 by RFC 2045, in lines of 60 as Ruby makes them.
func pdf(reference string) string {
	document := "%PDF-1.4\n% " + reference + "\n" +
		"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n" +
		"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
	encoded := base64.StdEncoding.EncodeToString([]byte(document))
	var b strings.Builder
	for len(encoded) > 60 {
		b.WriteString(encoded[:60] + "\n")
		encoded = encoded[60:]
	}
	b.WriteString(encoded + "\n")
	return b.String()
}
