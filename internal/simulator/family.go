package simulator

import (
	"encoding/json"
	"strconv"
)

// family is what distinguishes one kind of records; the engine does the rest.
// A family that is not listed behaves like one with no peculiarities.
type family struct {
	name, one                    string   // invoices, invoice
	noCreate, noUpdate, noDelete bool     // answer 404
	filters                      []string // a list without one of these parameters is 400
	contact                      bool     // a record must name a contact that exists
	numbered                     bool     // FreeAgent allocates the reference
	items                        string   // its lines, left out of lists unless nested
	relative                     bool     // Location without a host (recorded)
	fresh                        object   // what a record has when nothing was said
	transitions                  map[string]string
	actions                      []string // below a record: pdf, send_email, duplicate, timer, direct_debit
}

func number(n int) json.Number { return json.Number(strconv.Itoa(n)) }

// families lists those with peculiarities.
func families() map[string]family {
	readOnly := func(name string) family {
		return family{name: name, noCreate: true, noUpdate: true, noDelete: true}
	}
	list := []family{
		contactFamily(), projectFamily(), invoiceFamily(), estimateFamily(), creditNoteFamily(), billFamily(),
		bankAccountFamily(), explanationFamily(),
		{name: "bank_transactions", noCreate: true, noUpdate: true, filters: []string{"bank_account"}},
		{name: "users", fresh: object{{"role", "Employee"}, {"permission_level", number(0)}, {"opening_mileage", "0.0"}}},
		{name: "tasks", fresh: object{{"is_billable", true}, {"status", "Active"}, {"billing_rate", "0.0"}, {"billing_period", "hour"}}},
		{name: "timeslips", actions: []string{"timer"}},
		{name: "notes", filters: []string{"contact", "project"}},
		{name: "expenses", fresh: object{{"currency", "GBP"}, {"native_gross_value", "0.0"}}},
		{name: "attachments", noCreate: true, noUpdate: true},
		{name: "price_list_items"}, {name: "properties"}, {name: "journal_sets"}, {name: "capital_asset_types"},
		{name: "credit_note_reconciliations"}, {name: "sales_tax_periods"},
		{name: "invoice_items"}, {name: "estimate_items"},
	}
	for _, name := range []string{
		"recurring_invoices", "bill_items", "bank_feeds", "capital_assets", "hire_purchases", "stock_items",
		"vat_returns", "corporation_tax_returns", "final_accounts_reports", "payroll_profiles", "payroll",
	} {
		list = append(list, readOnly(name))
	}
	byName := make(map[string]family, len(list))
	for _, f := range list {
		f.one = singular(f.name)
		byName[f.name] = f
	}
	return byName
}

func contactFamily() family {
	return family{name: "contacts", fresh: object{
		{"contact_name_on_invoices", true}, {"country", "United Kingdom"}, {"locale", "en"}, {"account_balance", "0.0"},
		{"uses_contact_invoice_sequence", false}, {"charge_sales_tax", "Auto"}, {"active_projects_count", number(0)},
		{"status", "Active"},
	}}
}

func projectFamily() family {
	return family{name: "projects", contact: true, fresh: object{
		{"status", "Active"}, {"budget", "0.0"}, {"budget_units", "Hours"}, {"currency", "GBP"}, {"hours_per_day", "8.0"},
		{"normal_billing_rate", "0.0"}, {"billing_period", "hour"}, {"uses_project_invoice_sequence", false},
	}}
}

func invoiceFamily() family {
	return family{
		name: "invoices", contact: true, numbered: true, items: "invoice_items",
		fresh: object{
			{"currency", "GBP"}, {"exchange_rate", "1.0"}, {"net_value", "0.0"}, {"sales_tax_value", "0.0"},
			{"total_value", "0.0"}, {"paid_value", "0.0"}, {"due_value", "0.0"}, {"status", "Draft"}, {"long_status", "Draft"},
			{"omit_header", false}, {"always_show_bic_and_iban", false}, {"send_thank_you_emails", false},
			{"send_reminder_emails", false}, {"send_new_invoice_emails", false}, {"payment_terms_in_days", number(30)},
		},
		transitions: map[string]string{
			"mark_as_sent": "Open", "mark_as_draft": "Draft", "mark_as_cancelled": "Written-off",
			"mark_as_scheduled": "Scheduled To Email", "convert_to_credit_note": "credit_notes",
		},
		actions: []string{"pdf", "send_email", "direct_debit", "duplicate"},
	}
}

func estimateFamily() family {
	return family{
		name: "estimates", contact: true, numbered: true, items: "estimate_items",
		fresh: object{
			{"estimate_type", "Estimate"}, {"currency", "GBP"}, {"net_value", "0.0"}, {"sales_tax_value", "0.0"},
			{"total_value", "0.0"}, {"status", "Draft"},
		},
		transitions: map[string]string{
			"mark_as_sent": "Open", "mark_as_draft": "Draft", "mark_as_approved": "Approved",
			"mark_as_rejected": "Rejected", "convert_to_invoice": "invoices",
		},
		actions: []string{"pdf", "send_email", "duplicate"},
	}
}

func creditNoteFamily() family {
	return family{
		name: "credit_notes", contact: true, numbered: true, items: "credit_note_items",
		fresh: object{
			{"currency", "GBP"}, {"exchange_rate", "1.0"}, {"net_value", "0.0"}, {"sales_tax_value", "0.0"},
			{"total_value", "0.0"}, {"refunded_value", "0.0"}, {"due_value", "0.0"}, {"status", "Draft"}, {"long_status", "Draft"},
		},
		transitions: map[string]string{"mark_as_sent": "Open", "mark_as_draft": "Draft"},
		actions:     []string{"pdf", "send_email"},
	}
}

func billFamily() family {
	return family{name: "bills", contact: true, items: "bill_items", fresh: object{
		{"currency", "GBP"}, {"exchange_rate", "1.0"}, {"net_value", "0.0"}, {"sales_tax_value", "0.0"},
		{"total_value", "0.0"}, {"paid_value", "0.0"}, {"due_value", "0.0"}, {"status", "Open"}, {"long_status", "Open"},
		{"is_paid_by_hire_purchase", false},
	}}
}

func bankAccountFamily() family {
	return family{name: "bank_accounts", fresh: object{
		{"type", "StandardBankAccount"}, {"currency", "GBP"}, {"is_personal", false}, {"is_primary", false},
		{"status", "active"}, {"opening_balance", "0.0"}, {"current_balance", "0.0"},
	}}
}

func explanationFamily() family {
	return family{
		name: "bank_transaction_explanations", filters: []string{"bank_account"}, relative: true,
		fresh: object{{"gross_value", "0.0"}, {"is_deletable", true}, {"marked_for_review", false}},
	}
}

// nominal is a category as a company begins with it.
type nominal struct{ code, group, description string }

func categories() []nominal {
	return []nominal{
		{"001", "income", "Sales"},
		{"002", "income", "Other Income"},
		{"051", "general", "Interest Received"},
		{"101", "cost_of_sales", "Cost of Sales"},
		{"102", "cost_of_sales", "Commission Paid"},
		{"150", "cost_of_sales", "Sub-contractor Costs"},
		{"250", "admin_expenses", "Rent"},
		{"268", "admin_expenses", "Insurance"},
		{"269", "admin_expenses", "Software"},
		{"285", "admin_expenses", "Accommodation and Meals"},
		{"292", "admin_expenses", "Business Entertaining"},
		{"359", "admin_expenses", "Office Costs"},
		{"363", "admin_expenses", "Bank Charges"},
		{"365", "admin_expenses", "Travel"},
		{"602", "general", "Computer Equipment"},
		{"750", "general", "Bank Account"},
		{"900", "general", "Capital Account"},
	}
}
