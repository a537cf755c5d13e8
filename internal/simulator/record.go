package simulator

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// records returns what a create carries: one record, in a root or bare (recorded), or a batch.
func (f family) records(body any) (list []object, batch bool, err error) {
	o, ok := body.(object)
	if !ok || len(o) == 0 {
		return nil, false, refusal(http.StatusBadRequest, "param is missing or the value is empty: %s", f.one)
	}
	if many, ok := o.get(f.name).([]any); ok && len(o) == 1 {
		for _, e := range many {
			record, ok := e.(object)
			if !ok {
				return nil, false, wrongType(f.name, "array of records")
			}
			list = append(list, record)
		}
		return list, true, nil
	}
	if o.has(f.one) && len(o) == 1 {
		if _, ok := o.get(f.one).(object); !ok {
			return nil, false, wrongType(f.one, "hash")
		}
	}
	return []object{f.record(body)}, false, nil
}

// record is what an update carries, in its root or bare.
func (f family) record(body any) object {
	o, _ := body.(object)
	if inner, ok := o.get(f.one).(object); ok {
		return inner
	}
	return o
}

// wrongType is what Rails says (forum thread 2224).
func wrongType(name, kind string) error {
	return refusal(http.StatusBadRequest, "'%s' parameter does not match expected type '%s'", name, kind)
}

// accept turns what was sent into attributes, or refuses it.
func (s *Simulator) accept(c *call, f family, sent object, creating bool) (object, error) {
	attrs := sent.without(f.computed()...)
	if creating {
		query := c.r.URL.Query()
		for name := range s.references { // POST /v2/tasks?project=…, /v2/notes?contact=…
			if query.Has(name) && !attrs.has(name) {
				attrs = attrs.with(name, query.Get(name))
			}
		}
	}
	if f.items != "" && attrs.has(f.items) {
		if _, ok := attrs.get(f.items).([]any); !ok {
			return nil, wrongType(f.items, "array")
		}
	}
	if f.name == "notes" && creating && !attrs.has("contact") && !attrs.has("project") {
		return nil, refusal(http.StatusBadRequest, "contact or project is missing")
	}
	attrs = s.resolve(attrs).(object) // an object stays one
	attrs = decimals(attrs).(object)
	if err := s.checkReferences(c, f, attrs, creating); err != nil {
		return nil, err
	}
	return s.attach(c, attrs), nil
}

// computed are the attributes that FreeAgent sets itself and ignores in requests.
func (f family) computed() []string {
	names := []string{"url", "id", "created_at", "updated_at"}
	if f.transitions != nil {
		names = append(names, "status", "long_status", "net_value", "sales_tax_value", "total_value", "paid_value", "due_value")
	}
	return names
}

// decimals turns amounts that were sent as numbers into FreeAgent's strings.
func decimals(v any) any {
	switch v := v.(type) {
	case object:
		out := make(object, len(v))
		for i, f := range v {
			out[i] = field{f.name, decimals(f.value)}
			if n, ok := f.value.(json.Number); ok && isAmount(f.name) {
				out[i].value = decimal(rational(n))
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = decimals(e)
		}
		return out
	}
	return v
}

func isAmount(name string) bool {
	return slices.Contains([]string{"price", "quantity", "amount", "hours", "discount_percent", "budget"}, name) ||
		slices.ContainsFunc([]string{"_value", "_rate", "_balance", "_amount", "_mileage"}, func(s string) bool { return strings.HasSuffix(name, s) })
}

// complete adds what FreeAgent works out when a record is made.
func (s *Simulator) complete(c *call, f family, attrs object) object {
	if f.numbered {
		if attrs.text("dated_on") == "" {
			attrs = attrs.with("dated_on", c.start.UTC().Format(time.DateOnly))
		}
		dated, err := time.Parse(time.DateOnly, attrs.text("dated_on"))
		if terms := rational(attrs.get("payment_terms_in_days")); err == nil && f.name == "invoices" && !attrs.has("due_on") && terms.IsInt() {
			attrs = attrs.with("due_on", dated.AddDate(0, 0, int(terms.Num().Int64())).Format(time.DateOnly))
		}
	}
	if f.name == "bank_transaction_explanations" && !attrs.has("bank_account") {
		if _, id := splitRef(attrs.get("bank_transaction")); id != "" {
			if transaction := c.company.find("bank_transactions", id); transaction != nil {
				attrs = attrs.with("bank_account", transaction.attrs.get("bank_account"))
			}
		}
	}
	if items, ok := attrs.get(f.items).([]any); ok {
		attrs = attrs.with(f.items, f.mergeItems(nil, items, s.data.nextID))
	}
	return f.totals(attrs)
}

// merge is an update: fields that were sent replace theirs, items are matched by url or id.
func (f family) merge(attrs, sent object, nextID func() string) object {
	for _, given := range sent {
		if items, ok := given.value.([]any); ok && given.name == f.items {
			old, _ := attrs.get(f.items).([]any)
			given.value = f.mergeItems(old, items, nextID)
		}
		attrs = attrs.with(given.name, given.value)
	}
	return attrs
}

// mergeItems changes the items that sent names, removes those it marks with
// _destroy, adds the others and leaves the rest alone.
func (f family) mergeItems(items, sent []any, nextID func() string) []any {
	items = slices.Clone(items)
	for _, e := range sent {
		given, ok := e.(object)
		if !ok {
			continue
		}
		id := idOf(given.get("url"))
		if id == "" {
			id = idOf(given.get("id"))
		}
		i := slices.IndexFunc(items, func(e any) bool {
			old, _ := e.(object)
			return id != "" && idOf(old.get("url")) == id
		})
		change := given.without("url", "id", "_destroy")
		switch {
		case i < 0:
			items = append(items, append(object{{"url", ref("/v2/" + f.items + "/" + nextID())}}, change...))
		case truthy(given.text("_destroy")) || given.get("_destroy") == true:
			items = slices.Delete(items, i, i+1)
		default:
			items[i] = family{}.merge(items[i].(object), change, nextID) // matched by its url, so it is one
		}
	}
	return items
}

// locked refuses changes to an invoice that was sent (forum threads 819, 3486).
func (f family) locked(attrs, sent object) error {
	if f.name != "invoices" || attrs.text("status") == "Draft" {
		return nil
	}
	same := func(a, b any) bool { return string(appendJSON(nil, a, "")) == string(appendJSON(nil, b, "")) }
	var problems []string
	if sent.has("contact") && !same(sent.get("contact"), attrs.get("contact")) {
		problems = append(problems, "contact_id is locked and cannot be changed")
	}
	if items, ok := sent.get(f.items).([]any); ok {
		old, _ := attrs.get(f.items).([]any)
		if !same(f.mergeItems(old, items, func() string { return "" }), old) {
			problems = append(problems, "invoice_items.description is locked and cannot be changed")
		}
	}
	if len(problems) > 0 {
		return invalid(problems...)
	}
	return nil
}

// removable refuses to delete what others depend on.
func (co *company) removable(f family, r *row) error {
	switch f.name {
	case "contacts":
		self := ref(r.path(f))
		for _, user := range []string{"invoices", "estimates", "credit_notes", "projects", "bills"} {
			if len(co.scan(user, func(r *row) bool { return r.attrs.get("contact") == self })) > 0 {
				return refusal(http.StatusForbidden, "Contact cannot be deleted as it is in use")
			}
		}
	case "estimates":
		if r.attrs.text("status") == "Approved" {
			return refusal(http.StatusConflict, "Estimate has been approved and cannot be deleted")
		}
	}
	return nil
}

// path is where the record lives.
func (r *row) path(f family) string { return "/v2/" + f.name + "/" + r.id }

// render is the record as an answer shows it; lists leave its items out unless they are asked for.
func (c *call) render(f family, r *row, whole bool) object {
	out := make(object, 0, len(r.attrs)+4)
	out = append(out, field{"url", ref(r.path(f))})
	for _, a := range r.attrs {
		if a.name == f.items && !whole {
			continue
		}
		out = append(out, a)
	}
	if f.name == "bank_transactions" {
		out = append(out, field{"bank_transaction_explanations", c.explanations(r)})
	}
	return append(out, field{"created_at", timestamp(r.created)}, field{"updated_at", timestamp(r.updated)})
}

// explanations of a bank transaction come nested in it.
func (c *call) explanations(transaction *row) []any {
	list := []any{}
	self := ref("/v2/bank_transactions/" + transaction.id)
	f := family{name: "bank_transaction_explanations"}
	for _, r := range c.company.scan(f.name, func(r *row) bool { return r.attrs.get("bank_transaction") == self }) {
		list = append(list, c.render(f, r, true))
	}
	return list
}

// attach makes a record of an attachment that came inside another, and keeps its URL in its place. The data itself is not kept.
func (s *Simulator) attach(c *call, attrs object) object {
	given, ok := attrs.get("attachment").(object)
	if !ok || !given.has("data") {
		return attrs
	}
	id := s.data.nextID()
	source := "https://freeagent-attachments.s3.eu-west-1.amazonaws.com/" + id + "?X-Amz-Expires=30&X-Amz-Signature=" + strings.Repeat("0", 64)
	stored := object{
		{"content_src", source},
		{"content_type", given.get("content_type")},
		{"file_name", given.get("file_name")},
		{"file_size", number(len(given.text("data")) * 3 / 4)},
		{"description", given.get("description")},
		{"expires_at", timestamp(c.start.Add(30 * time.Second))},
	}
	c.company.insert("attachments", id, stored)
	return attrs.with("attachment", append(object{{"url", ref("/v2/attachments/" + id)}}, stored...))
}
