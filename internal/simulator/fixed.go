package simulator

import (
	"net/http"
	"strings"
)

// fixed returns what answers a path that is not a family's list or record, or nil.
func (s *Simulator) fixed(c *call, method string, segments []string) func() (reply, error) {
	path := strings.Join(segments, "/")
	if practiceOnly(segments[0]) {
		return func() (reply, error) { return s.practice(c, method, path) }
	}
	switch path {
	case "currencies", "depreciation_profiles", "sales_tax": // pages of the documents, but no resources
		return func() (reply, error) { return reply{}, notFound() }
	case "categories":
		return func() (reply, error) { return s.categories(c, method) }
	case "users/me":
		return func() (reply, error) { return s.me(c, method) }
	case "bank_transactions/statement":
		return func() (reply, error) { return s.statement(c, method) }
	case "invoices/default_additional_text", "estimates/default_additional_text", "account_locks":
		return func() (reply, error) { return c.setting(method, path, segments[len(segments)-1]) }
	}
	if len(segments) == 2 && segments[0] == "categories" {
		return func() (reply, error) { return s.category(c, method, segments[1]) }
	}
	document := c.document(segments)
	if document == nil {
		return nil
	}
	return func() (reply, error) {
		if method != http.MethodGet {
			return reply{}, notFound()
		}
		return reply{status: http.StatusOK, acted: true, value: document}, nil
	}
}

// document is what can only be read: the company, and reports without figures.
func (c *call) document(segments []string) object {
	switch path := strings.Join(segments, "/"); path {
	case "company":
		return object{{"company", c.company.document()}}
	case "company/business_categories":
		return object{{"business_categories", []any{"Accountancy & Bookkeeping", "Software Development"}}}
	case "company/tax_timeline":
		return object{{"timeline_items", []any{}}}
	case "cis_bands":
		return object{{"available_bands", []any{}}}
	case "email_addresses":
		return object{{"email_addresses", []any{"Olivia Owner <" + emailOf(c.company.key.user) + ">"}}}
	case "cashflow":
		empty := object{{"total", number(0)}, {"months", []any{}}}
		return object{{"cashflow", object{{"balance", number(0)}, {"incoming", empty}, {"outgoing", empty}}}}
	case "accounting/profit_and_loss/summary":
		return object{{"profit_and_loss_summary", object{{"income", "0"}, {"expenses", "0"}, {"operating_profit", "0"}, {"less", []any{}}, {"retained_profit", "0"}}}}
	case "accounting/trial_balance/summary", "accounting/trial_balance/summary/opening_balances":
		return object{{"trial_balance_summary", []any{}}}
	case "accounting/balance_sheet", "accounting/balance_sheet/opening_balances":
		return object{{"balance_sheet", object{{"capital_assets", object{{"accounts", []any{}}, {"net_book_value", number(0)}}}, {"total_assets", number(0)}}}}
	case "accounting/transactions":
		return object{{"transactions", []any{}}}
	case "invoices/timeline":
		return object{{"invoice_timeline_items", []any{}}}
	case "expenses/mileage_settings":
		return object{{"mileage_settings", object{{"engine_type_and_size_options", []any{}}, {"mileage_rates", []any{}}}}}
	case "journal_sets/opening_balances":
		return object{{"journal_set", object{{"url", ref("/v2/" + path)}, {"description", "Opening Balances"}, {"journal_entries", []any{}}}}}
	case "ec_moss/sales_tax_rates":
		return object{{"sales_tax_rates", []any{}}}
	}
	return periodic(segments)
}

// periodic are the reports by year.
func periodic(segments []string) object {
	switch {
	case len(segments) == 2 && segments[0] == "payroll":
		return object{{"periods", []any{}}}
	case len(segments) == 3 && segments[0] == "payroll":
		return object{{"period", object{{"payslips", []any{}}}}}
	case len(segments) == 2 && segments[0] == "payroll_profiles":
		return object{{"profiles", []any{}}}
	case len(segments) == 3 && segments[0] == "users" && segments[2] == "self_assessment_returns":
		return object{{"self_assessment_returns", []any{}}}
	}
	return nil
}

func (co *company) document() object {
	founded := co.founded.UTC().Format("2006-01-02")
	return object{
		{"url", ref("/v2/company")}, {"name", co.name()}, {"subdomain", co.subdomain()}, {"type", "UkLimitedCompany"},
		{"currency", "GBP"}, {"mileage_units", "miles"}, {"company_start_date", founded}, {"freeagent_start_date", founded},
		{"first_accounting_year_end", co.founded.UTC().AddDate(1, 0, 0).Format("2006-01-02")},
		{"company_registration_number", "01234567"}, {"sales_tax_registration_status", "Not Registered"},
		{"sales_tax_name", "VAT"}, {"sales_tax_is_value_added", true}, {"supports_auto_sales_tax_on_purchases", true},
		{"created_at", timestamp(co.founded.Truncate(1e9))}, {"updated_at", timestamp(co.founded.Truncate(1e9))},
	}
}

func (co *company) subdomain() string {
	if co.key.subdomain != "" {
		return co.key.subdomain
	}
	return strings.ToLower(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, co.key.user))
}

// setting is a value of the company that has a path of its own.
func (c *call) setting(method, path, name string) (reply, error) {
	body, err := c.parsed()
	if err != nil {
		return reply{}, err
	}
	c.company.mu.Lock()
	defer c.company.mu.Unlock()
	switch method {
	case http.MethodGet:
	case http.MethodPut:
		o, _ := body.(object)
		if !o.has(name) {
			return reply{}, refusal(http.StatusBadRequest, "param is missing or the value is empty: %s", name)
		}
		c.company.settings[path] = o.get(name)
	case http.MethodDelete:
		delete(c.company.settings, path)
		return reply{status: http.StatusOK, acted: true}, nil
	default:
		return reply{}, notFound()
	}
	return reply{status: http.StatusOK, acted: true, value: object{{name, c.company.settings[path]}}}, nil
}

// me is the user who holds the token.
func (s *Simulator) me(c *call, method string) (reply, error) {
	switch method {
	case http.MethodGet:
		return s.read(c, s.family("users"), c.company.me)
	case http.MethodPut:
		return s.update(c, s.family("users"), c.company.me)
	}
	return reply{}, notFound()
}
