package simulator

import (
	"encoding/json"
	"math/big"
	"strings"
)

// rational reads an amount; what is none is 0. Exponents are not amounts, and
// would let "1e999999999" take all memory.
func rational(v any) *big.Rat {
	text := ""
	switch v := v.(type) {
	case string:
		text = v
	case json.Number:
		text = v.String()
	}
	if len(text) > 40 || strings.ContainsAny(text, "eEpP/_xX") {
		return new(big.Rat)
	}
	if r, ok := new(big.Rat).SetString(text); ok {
		return r
	}
	return new(big.Rat)
}

// decimal writes an amount as FreeAgent does: "200.0", "14.4", "0.05".
func decimal(r *big.Rat) string {
	text := strings.TrimRight(r.FloatString(6), "0")
	if strings.HasSuffix(text, ".") {
		text += "0"
	}
	return text
}

// totals works out the values of a record with items. One without keeps the
// total that it has: a bill may state it itself.
func (f family) totals(attrs object) object {
	items, ok := attrs.get(f.items).([]any)
	if !ok || f.items == "" {
		return withDue(attrs, rational(attrs.get("total_value")))
	}
	net, tax := new(big.Rat), new(big.Rat)
	for _, e := range items {
		item, _ := e.(object)
		value := new(big.Rat).Mul(rational(item.get("price")), rational(item.get("quantity")))
		if f.name == "bills" {
			value = rational(item.get("total_value"))
		}
		net.Add(net, value)
		rate := new(big.Rat).Quo(rational(item.get("sales_tax_rate")), big.NewRat(100, 1))
		tax.Add(tax, value.Mul(value, rate))
	}
	left := new(big.Rat).Sub(big.NewRat(1, 1), new(big.Rat).Quo(rational(attrs.get("discount_percent")), big.NewRat(100, 1)))
	net, tax = cents(net.Mul(net, left)), cents(tax.Mul(tax, left))
	total := new(big.Rat).Add(net, tax)
	if f.name == "bills" { // whose items include the tax
		total = net
	}
	attrs = attrs.with("net_value", decimal(net)).with("sales_tax_value", decimal(tax)).with("total_value", decimal(total))
	return withDue(attrs, total)
}

// withDue sets what is left to pay, in records that have such a thing.
func withDue(attrs object, total *big.Rat) object {
	if !attrs.has("due_value") {
		return attrs
	}
	return attrs.with("due_value", decimal(new(big.Rat).Sub(total, rational(attrs.get("paid_value")))))
}

// cents rounds to two digits.
func cents(r *big.Rat) *big.Rat {
	rounded, _ := new(big.Rat).SetString(r.FloatString(2)) // FloatString writes what SetString reads
	return rounded
}

// settle works out anew what an explanation that came, changed or went pays:
// its bank transaction's unexplained amount, and the invoice or bill.
func (s *Simulator) settle(co *company, f family, before, after object) {
	if f.name != "bank_transaction_explanations" {
		return
	}
	for _, attr := range []string{"bank_transaction", "paid_invoice", "paid_bill"} {
		for _, v := range []any{before.get(attr), after.get(attr)} {
			if target, id := splitRef(v); id != "" {
				co.resettle(attr, target, id)
			}
		}
	}
}

func (co *company) resettle(attr, target, id string) {
	sum := new(big.Rat)
	self := ref("/v2/" + target + "/" + id)
	for _, e := range co.scan("bank_transaction_explanations", func(r *row) bool { return r.attrs.get(attr) == self }) {
		sum.Add(sum, rational(e.attrs.get("gross_value")))
	}
	_, _ = co.update(target, id, func(attrs object) (object, error) { // one that is gone has nothing to settle
		if attr == "bank_transaction" {
			return attrs.with("unexplained_amount", decimal(sum.Sub(rational(attrs.get("amount")), sum))), nil
		}
		paid := sum.Abs(sum) // money out is negative
		due := new(big.Rat).Sub(rational(attrs.get("total_value")), paid)
		status := attrs.text("status")
		switch {
		case due.Sign() <= 0:
			status = "Paid"
		case status == "Paid":
			status = "Open"
		}
		return attrs.with("paid_value", decimal(paid)).with("due_value", decimal(due)).
			with("status", status).with("long_status", status), nil
	})
}

func hoursOf(seconds int64) *big.Rat { return big.NewRat(seconds, 3600) }
