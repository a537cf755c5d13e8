package simulator

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
)

// A reference may come as FreeAgent's URL, as any other URL that ends in the
// id, or as the bare id (recorded; forum thread 2224): the last segment counts.

// referenceFields are the attributes that name another record, with its family.
func referenceFields() map[string]string {
	fields := map[string]string{
		"property": "properties", "category": "categories", "cost_of_sale_category": "categories",
		"liabilities_under_one_year_category": "categories", "liabilities_over_one_year_category": "categories",
		"linked_transfer_account": "bank_accounts", "transfer_bank_account": "bank_accounts",
		"linked_transfer_explanation": "bank_transaction_explanations", "rebill_to_project": "projects",
		"rebilled_on_invoice": "invoices", "rebilled_on_invoice_item": "invoice_items",
	}
	for _, one := range []string{
		"contact", "project", "task", "user", "bank_account", "bank_transaction", "invoice", "credit_note", "bill",
		"estimate", "stock_item", "capital_asset", "capital_asset_type", "hire_purchase",
	} {
		fields[one] = one + "s"
	}
	for _, one := range []string{"invoice", "bill", "user"} {
		fields["paid_"+one] = one + "s"
	}
	return fields
}

var idText = regexp.MustCompile(`^[0-9][0-9A-Za-z-]*$`)

// idOf returns the id that a reference ends in, or "".
func idOf(v any) string {
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case ref:
		text = string(v)
	case json.Number:
		text = v.String()
	}
	text = strings.TrimRight(text, "/")
	text = text[strings.LastIndexByte(text, '/')+1:]
	if !idText.MatchString(text) {
		return ""
	}
	return text
}

// resolve turns the references in a record, nested ones too, into refs.
func (s *Simulator) resolve(v any) any {
	switch v := v.(type) {
	case object:
		out := make(object, len(v))
		for i, f := range v {
			out[i] = field{f.name, s.resolve(f.value)}
			if target, ok := s.references[f.name]; ok {
				if id := idOf(f.value); id != "" {
					out[i].value = ref("/v2/" + target + "/" + id)
				}
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = s.resolve(e)
		}
		return out
	}
	return v
}

// checkReferences refuses a record that names what does not exist. Only
// families that the API can create are checked, and only at the top level.
func (s *Simulator) checkReferences(c *call, f family, attrs object, creating bool) error {
	if creating && f.contact && idOf(attrs.get("contact")) == "" && !c.cfg.UnknownReferences {
		return refusal(http.StatusUnprocessableEntity, "Contact not found")
	}
	if c.cfg.UnknownReferences {
		return nil
	}
	for _, a := range attrs {
		target, id := splitRef(a.value)
		if target == "" || target == "categories" || s.family(target).noCreate && target != "bank_transactions" {
			continue
		}
		if c.company.find(target, id) == nil {
			return refusal(http.StatusUnprocessableEntity, "%s not found", humanized(singular(target)))
		}
	}
	return nil
}

// splitRef returns family and id of a ref, else "".
func splitRef(v any) (family, id string) {
	r, ok := v.(ref)
	if !ok {
		return "", ""
	}
	family, id, _ = strings.Cut(strings.TrimPrefix(string(r), "/v2/"), "/")
	return family, id
}

// humanized is Rails': bank_account → Bank account.
func humanized(name string) string {
	name = strings.ReplaceAll(name, "_", " ")
	return strings.ToUpper(name[:1]) + name[1:]
}
