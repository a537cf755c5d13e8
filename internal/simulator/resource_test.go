package simulator_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

// free is a simulator whose limits are out of the way.
func free(t *testing.T) *sim {
	return start(t, simulator.Config{Enforcement: simulator.EnforceOff})
}

// TestCycle creates, reads, updates, lists and deletes a record of every family
// that a client library knows, and of one that nobody knows.
func TestCycle(t *testing.T) {
	s := free(t)
	contact := s.make("contacts", `{"contact":{"organisation_name":"Acme"}}`)
	project := s.make("projects", `{"project":{"contact":"`+s.url+contact+`","name":"P"}}`)
	task := s.make("tasks", `{"task":{"project":"`+s.url+project+`","name":"T"}}`)
	bank := s.make("bank_accounts", `{"bank_account":{"name":"Current"}}`)
	me := s.must(200, "GET", "/v2/users/me", "").record(t)["url"].(string)

	for _, test := range []struct{ family, one, create, filter string }{
		{"contacts", "contact", `"first_name":"Ann"`, ""},
		{"projects", "project", `"name":"Q","contact":"` + contact + `"`, "contact=" + contact},
		{"tasks", "task", `"name":"U","project":"` + project + `"`, "project=" + project},
		{"timeslips", "timeslip", `"hours":"1.5","dated_on":"2026-01-02","user":"` + me + `","project":"` + project + `","task":"` + task + `"`, "from_date=2026-01-01&to_date=2026-01-31"},
		{"invoices", "invoice", `"contact":"` + contact + `","dated_on":"2026-01-02","payment_terms_in_days":14`, "view=draft"},
		{"estimates", "estimate", `"contact":"` + contact + `","dated_on":"2026-01-02","reference":"E1"`, ""},
		{"credit_notes", "credit_note", `"contact":"` + contact + `"`, ""},
		{"bills", "bill", `"contact":"` + contact + `","reference":"B1","total_value":"12.0"`, ""},
		{"expenses", "expense", `"user":"` + me + `","gross_value":"-12.0","category":"285"`, ""},
		{"bank_accounts", "bank_account", `"name":"Savings"`, ""},
		{"bank_transaction_explanations", "bank_transaction_explanation", `"bank_account":"` + bank + `","gross_value":"-5.0","category":"001"`, "bank_account=" + bank},
		{"users", "user", `"first_name":"Bo","email":"bo@example.com"`, ""},
		{"notes", "note", `"note":"Call","contact":"` + contact + `"`, "contact=" + contact},
		{"journal_sets", "journal_set", `"description":"J","journal_entries":[{"category":"001","debit_value":"1.0"}]`, ""},
		{"properties", "property", `"address1":"1 High St"`, ""},
		{"capital_asset_types", "capital_asset_type", `"name":"Vans"`, ""},
		{"price_list_items", "price_list_item", `"code":"A"`, ""},
		{"sales_tax_periods", "sales_tax_period", `"sales_tax_name":"VAT"`, ""},
		{"things_unheard_of", "things_unheard_of", `"a":"b"`, ""},
	} {
		t.Run(test.family, func(t *testing.T) {
			body := `{"` + test.one + `":{` + test.create + `}}`
			made := s.must(201, "POST", "/v2/"+test.family, body)
			record := made.record(t)
			url := record["url"].(string)
			path := strings.TrimPrefix(url, s.url)
			if location := made.Header.Get("Location"); location != url && location != path {
				t.Errorf("Location %q, want %q", location, url)
			}
			for _, name := range []string{"created_at", "updated_at"} {
				if _, err := time.Parse("2006-01-02T15:04:05.000Z", record[name].(string)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			equal(t, "url read", s.must(200, "GET", path, "").record(t)["url"], any(url))
			updated := s.must(200, "PUT", path, `{"`+test.one+`":{"remark":"new","url":"`+url+`"}}`).record(t)
			equal(t, "updated", updated["remark"], any("new"))
			found := false
			for _, r := range s.must(200, "GET", "/v2/"+test.family+"?per_page=100&"+test.filter, "").list(t) {
				found = found || r["url"] == url && r["remark"] == "new"
			}
			equal(t, "listed", found, true)
			gone := s.must(200, "DELETE", path, "")
			equal(t, "body of DELETE", gone.body, "")
			equal(t, "type of DELETE", gone.Header.Get("Content-Type"), "application/json")
			equal(t, "after DELETE", s.must(404, "GET", path, "").body, `{"errors":{"error":{"message":"Resource not found"}}}`)
			s.must(404, "DELETE", path, "")
			s.must(404, "PUT", path, body)
		})
	}
}

func TestSingletonsAndReports(t *testing.T) {
	s := free(t)
	equal(t, "company", s.must(200, "GET", "/v2/company", "").record(t)["url"], any(s.url+"/v2/company"))
	equal(t, "me", s.must(200, "GET", "/v2/users/me", "").record(t)["email"], any("owner@example.com"))
	s.must(200, "PUT", "/v2/users/me", `{"user":{"first_name":"Zoe"}}`)
	equal(t, "me", s.must(200, "GET", "/v2/users/me", "").record(t)["first_name"], any("Zoe"))
	for _, path := range []string{
		"company/business_categories", "company/tax_timeline", "cis_bands", "email_addresses", "cashflow", "accounting/profit_and_loss/summary",
		"accounting/trial_balance/summary", "accounting/balance_sheet", "accounting/transactions", "invoices/timeline", "expenses/mileage_settings",
		"journal_sets/opening_balances", "ec_moss/sales_tax_rates", "payroll/2026", "payroll/2026/1", "payroll_profiles/2026", "vat_returns", "users/1001/self_assessment_returns",
	} {
		s.must(200, "GET", "/v2/"+path, "")
		s.must(404, "POST", "/v2/"+path, `{"a":{"b":"c"}}`)
	}
	for _, path := range []string{"currencies", "sales_tax", "depreciation_profiles", "nothing/at/all", "Invoices", "a%20b"} {
		s.must(404, "GET", "/v2/"+path, "")
	}
	s.must(404, "GET", "/elsewhere", "")
	s.must(404, "PATCH", "/v2/users/me", `{"user":{}}`)
	text := `{"default_additional_text":"Pay soon"}`
	equal(t, "setting", s.must(200, "GET", "/v2/invoices/default_additional_text", "").body, `{"default_additional_text":null}`)
	equal(t, "setting", s.must(200, "PUT", "/v2/invoices/default_additional_text", text).body, text)
	equal(t, "setting", s.must(200, "GET", "/v2/invoices/default_additional_text", "").body, text)
	s.must(200, "DELETE", "/v2/invoices/default_additional_text", "")
}

func TestCategories(t *testing.T) {
	s := free(t)
	all := s.must(200, "GET", "/v2/categories", "").body
	for _, key := range []string{"admin_expenses_categories", "cost_of_sales_categories", "income_categories", "general_categories"} {
		if !strings.Contains(all, `"`+key+`":[{"url":"`+s.url+`/v2/categories/`) {
			t.Errorf("no %s in %s", key, all)
		}
	}
	made := s.must(201, "POST", "/v2/categories", `{"category":{"description":"Mine","nominal_code":"047","category_group":"income"}}`)
	equal(t, "Location", made.Header.Get("Location"), s.url+"/v2/categories/047")
	want := `{"income_categories":{"url":"` + s.url + `/v2/categories/047","description":"Mine","nominal_code":"047"}}`
	equal(t, "created", made.body, want)
	equal(t, "read", s.must(200, "GET", "/v2/categories/047", "").body, want)
	s.must(422, "POST", "/v2/categories", `{"category":{"nominal_code":"047","category_group":"income"}}`)
	s.must(200, "PUT", "/v2/categories/047", `{"category":{"description":"Ours"}}`)
	equal(t, "updated", strings.Contains(s.must(200, "GET", "/v2/categories", "").body, `"Ours"`), true)
	s.must(200, "DELETE", "/v2/categories/047", "")
	s.must(404, "GET", "/v2/categories/047", "")
	s.must(400, "POST", "/v2/categories", `{"category":{"category_group":"income"}}`)
}

func TestErrors(t *testing.T) {
	s := free(t)
	contact := s.make("contacts", `{"contact":{"organisation_name":"Acme"}}`)
	object := func(message string) string { return `{"errors":{"error":{"message":"` + message + `"}}}` }
	parse := object("Error occurred while parsing request parameters")
	for _, test := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "invoices", `{"invoice":{"dated_on":"2026-01-01"}}`, 422, object("Contact not found")},
		{"POST", "invoices", `{"invoice":{"contact":"999"}}`, 422, object("Contact not found")},
		{"POST", "timeslips", `{"timeslip":{"project":"999"}}`, 422, object("Project not found")},
		{"POST", "invoices", `{"invoice":{"contact":"` + contact + `","invoice_items":{"0":{"price":"1"}}}}`, 400, object("'invoice_items' parameter does not match expected type 'array'")},
		{"POST", "contacts", `{"contact":`, 400, parse},
		{"POST", "contacts", `{"contact":{}} {}`, 400, parse},
		{"POST", "contacts", strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200), 400, parse},
		{"POST", "contacts", `<contact><first-name>`, 400, parse},
		{"POST", "contacts", ``, 400, object("param is missing or the value is empty: contact")},
		{"POST", "contacts", `{"contact":[1]}`, 400, object("'contact' parameter does not match expected type 'hash'")},
		{"GET", "bank_transactions", ``, 400, object("bank_account is missing")},
		{"GET", "bank_transaction_explanations", ``, 400, object("bank_account is missing")},
		{"GET", "notes", ``, 400, object("contact or project is missing")},
		{"POST", "notes", `{"note":{"note":"x"}}`, 400, object("contact or project is missing")},
		{"POST", "stock_items", `{"stock_item":{"a":"b"}}`, 404, object("Resource not found")},
		{"POST", "bank_transactions", `{"bank_transaction":{"a":"b"}}`, 404, object("Resource not found")},
		{"DELETE", "contacts", ``, 404, object("Resource not found")},
		{"GET", "contacts/1/unheard_of", ``, 404, object("Resource not found")},
		{"GET", "practice", ``, 403, object("You are not allowed to access this action.")},
	} {
		got := s.do(test.method, "/v2/"+test.path, test.body)
		if got.StatusCode != test.status || got.body != test.want {
			t.Errorf("%s %s %s:\ngot  %d %s\nwant %d %s", test.method, test.path, test.body, got.StatusCode, got.body, test.status, test.want)
		}
	}
	xml := s.must(404, "GET", "/v2/contacts/1", "", "Accept: application/xml")
	equal(t, "in XML", strings.Join(strings.Fields(xml.body), ""),
		`<?xmlversion="1.0"encoding="UTF-8"?><freeagent><errors><error><message>Resourcenotfound</message></error></errors></freeagent>`)
	s.make("invoices", `{"invoice":{"contact":"`+contact+`"}}`)
	s.must(403, "DELETE", contact, "")
	estimate := s.make("estimates", `{"estimate":{"contact":"`+contact+`"}}`)
	s.must(200, "PUT", estimate+"/transitions/mark_as_approved", "")
	s.must(409, "DELETE", estimate, "")
}

func TestReferences(t *testing.T) {
	s := free(t)
	contact := s.make("contacts", `{"contact":{"organisation_name":"Acme"}}`)
	id := contact[strings.LastIndex(contact, "/")+1:]
	for _, form := range []string{
		`"` + s.url + contact + `"`, `"https://api.freeagent.com/v2/contacts/` + id + `"`, `"https://acme.freeagent.com/contacts/` + id + `"`,
		`"` + id + `"`, id, `"` + strings.ReplaceAll(s.url+contact, "/", `\/`) + `"`,
	} {
		made := s.must(201, "POST", "/v2/invoices", `{"invoice":{"contact":`+form+`}}`).record(t)
		equal(t, form, made["contact"], any(s.url+contact))
	}
	for _, filter := range []string{id, s.url + contact, strings.ReplaceAll(s.url+contact, ":", "%3A")} {
		equal(t, filter, len(s.must(200, "GET", "/v2/invoices?contact="+filter, "").list(t)), 6)
	}
	equal(t, "another contact", len(s.must(200, "GET", "/v2/invoices?contact=1", "").list(t)), 0)
	project := s.make("projects", `{"project":{"contact":"`+id+`","name":"P"}}`)
	task := s.must(201, "POST", "/v2/tasks?project="+s.url+project, `{"task":{"name":"T"}}`).record(t)
	equal(t, "parent in the query", task["project"], any(s.url+project))

	cfg := s.Config()
	cfg.UnknownReferences, cfg.PublicURL = true, "https://api.freeagent.example/"
	if err := s.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	made := s.must(201, "POST", "/v2/invoices", `{"invoice":{"contact":"77"}}`)
	equal(t, "public_url", made.record(t)["contact"], any("https://api.freeagent.example/v2/contacts/77"))
	equal(t, "public_url", strings.HasPrefix(made.Header.Get("Location"), "https://api.freeagent.example/v2/invoices/"), true)
}

func TestInvoiceLife(t *testing.T) {
	s := free(t)
	contact := s.make("contacts", `{"first_name":"Ann"}`) // unwrapped
	items := `[{"description":"Work","price":"100.0","quantity":"2.5","sales_tax_rate":"20.0"},{"description":"Rest","price":0.05,"quantity":1}]`
	made := s.must(201, "POST", "/v2/invoices", `{"invoice":{"contact":"`+contact+`","dated_on":"2026-01-31","payment_terms_in_days":30,"invoice_items":`+items+`}}`).record(t)
	for name, want := range map[string]any{
		"status": "Draft", "reference": "001", "due_on": "2026-03-02", "net_value": "250.05", "sales_tax_value": "50.0", "total_value": "300.05", "due_value": "300.05",
	} {
		equal(t, name, made[name], want)
	}
	path := strings.TrimPrefix(made["url"].(string), s.url)
	lines := made["invoice_items"].([]any)
	equal(t, "price sent as a number", lines[1].(map[string]any)["price"], any("0.05"))
	first := lines[0].(map[string]any)["url"].(string)

	equal(t, "items in a list", s.must(200, "GET", "/v2/invoices", "").list(t)[0]["invoice_items"], nil)
	nested := s.must(200, "GET", "/v2/invoices?nested_invoice_items=true", "").list(t)[0]["invoice_items"].([]any)
	equal(t, "nested items", len(nested), 2)

	updated := s.must(200, "PUT", path, `{"invoice":{"invoice_items":[{"url":"`+first+`","_destroy":1},{"description":"More","price":"1.0","quantity":"1"}]}}`).record(t)
	equal(t, "items after destroying one and adding one", len(updated["invoice_items"].([]any)), 2)
	equal(t, "total", updated["total_value"], any("1.05"))

	equal(t, "sent", s.must(200, "PUT", path+"/transitions/mark_as_sent", "").record(t)["status"], any("Open"))
	other := s.make("contacts", `{"first_name":"Bo"}`)
	locked := s.must(422, "PUT", path, `{"invoice":{"contact":"`+other+`","invoice_items":[{"description":"New"}]}}`)
	equal(t, "locked", locked.body, `{"errors":[{"message":"contact_id is locked and cannot be changed"},{"message":"invoice_items.description is locked and cannot be changed"}]}`)
	s.must(200, "PUT", path, `{"invoice":{"comments":"still open to this","contact":"`+contact+`"}}`)
	s.must(404, "PUT", path+"/transitions/mark_as_eaten", "")

	bank := s.make("bank_accounts", `{"bank_account":{"name":"B"}}`)
	explanation := s.make("bank_transaction_explanations", `{"bank_transaction_explanation":{"bank_account":"`+bank+`","paid_invoice":"`+path+`","gross_value":"1.05"}}`)
	paid := s.must(200, "GET", path, "").record(t)
	equal(t, "paid", fmt.Sprint(paid["status"], paid["paid_value"], paid["due_value"]), "Paid1.050.0")
	s.must(200, "DELETE", explanation, "")
	equal(t, "no longer paid", s.must(200, "GET", path, "").record(t)["status"], any("Open"))

	duplicate := s.must(200, "POST", path+"/duplicate", "").record(t)
	equal(t, "duplicate", fmt.Sprint(duplicate["status"], duplicate["reference"]), "Draft002")
	s.must(200, "POST", path+"/send_email", `{"invoice":{"email":{"use_template":true}}}`)
	content := s.must(200, "GET", path+"/pdf", "").record(t)["content"].(string)
	raw, err := base64.StdEncoding.DecodeString(content) // which ignores line breaks
	if err != nil || !strings.HasPrefix(string(raw), "%PDF-") || !strings.Contains(content, "\n") {
		t.Errorf("pdf: %v %q", err, content)
	}
	credit := s.must(200, "PUT", strings.TrimPrefix(duplicate["url"].(string), s.url)+"/transitions/convert_to_credit_note", "")
	equal(t, "credit note", strings.HasPrefix(credit.body, `{"credit_note":{"url":"`+s.url+`/v2/credit_notes/`), true)

	estimate := s.make("estimates", `{"estimate":{"contact":"`+contact+`","estimate_items":[{"price":"3.0","quantity":"1"}]}}`)
	converted := s.must(200, "PUT", estimate+"/transitions/convert_to_invoice", "").record(t)
	equal(t, "invoice from the estimate", fmt.Sprint(converted["total_value"], converted["status"]), "3.0Draft")
	equal(t, "estimate", s.must(200, "GET", estimate, "").record(t)["status"], any("Invoiced"))
}

func TestBatchTimerAttachment(t *testing.T) {
	s := free(t)
	batch := s.must(201, "POST", "/v2/expenses", `{"expenses":[{"gross_value":"1.0"},{"gross_value":"2.0","attachment":{"data":"aGVsbG8=","file_name":"a.png","content_type":"image/png"}}]}`).list(t)
	equal(t, "batch", len(batch), 2)
	attachment := batch[1]["attachment"].(map[string]any)
	equal(t, "data comes back", attachment["data"], nil)
	equal(t, "content_src", strings.HasPrefix(attachment["content_src"].(string), "https://freeagent-attachments.s3."), true)
	s.must(200, "GET", strings.TrimPrefix(attachment["url"].(string), s.url), "")
	s.must(200, "DELETE", strings.TrimPrefix(attachment["url"].(string), s.url), "")

	slip := s.make("timeslips", `{"timeslip":{"hours":"1.0"}}`)
	running := s.must(200, "POST", slip+"/timer", `{"timer":{}}`).record(t)
	equal(t, "running", running["timer"].(map[string]any)["running"], any(true))
	equal(t, "stopped", s.must(200, "DELETE", slip+"/timer", "").record(t)["timer"], nil)
}

func TestBillTotals(t *testing.T) {
	s := free(t)
	contact := s.make("contacts", `{"first_name":"Ann"}`)
	for body, want := range map[string]string{
		`"total_value":"12.5"`: "12.5", `"total_value":12.5`: "12.5", `"bill_items":[{"total_value":"10.0"},{"total_value":"2.0"}]`: "12.0",
	} {
		bill := s.must(201, "POST", "/v2/bills", `{"bill":{"contact":"`+contact+`",`+body+`}}`).record(t)
		equal(t, body, fmt.Sprint(bill["total_value"], bill["due_value"]), want+want)
	}
}

func TestPractice(t *testing.T) {
	s := free(t)
	s.token = s.AccessToken("practice")
	equal(t, "practice", s.must(200, "GET", "/v2/practice", "").body, `{"name":"Practice Ltd","subdomain":"practice"}`)
	s.must(404, "GET", "/v2/invoices", "")
	s.must(201, "POST", "/v2/contacts", `{"first_name":"Ann"}`, "X-Subdomain: client-one")
	equal(t, "client-one", len(s.must(200, "GET", "/v2/contacts", "", "X-Subdomain: client-one").list(t)), 1)
	equal(t, "client-two", len(s.must(200, "GET", "/v2/contacts", "", "X-Subdomain: client-two").list(t)), 0)
	clients := s.must(200, "GET", "/v2/clients", "").list(t)
	equal(t, "clients", fmt.Sprint(len(clients), clients[0]["subdomain"]), "2client-one")
	equal(t, "managers", len(s.must(200, "GET", "/v2/account_managers", "").list(t)), 1)
	s.must(200, "GET", "/v2/account_managers/1", "")
	s.must(404, "GET", "/v2/practice/else", "")
	s.must(404, "POST", "/v2/practice", "{}")

	cfg := s.Config()
	for i := range 150 {
		cfg.PracticeClients = append(cfg.PracticeClients, fmt.Sprintf("c%03d", i))
	}
	cfg.UnknownSubdomainStatus, cfg.RefuseCompanySubdomain = http.StatusUnauthorized, true
	if err := s.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	equal(t, "a page of clients", len(s.must(200, "GET", "/v2/clients?per_page=500", "").list(t)), 100)
	equal(t, "minimal clients", len(s.must(200, "GET", "/v2/clients?per_page=500&minimal_data=true", "").list(t)), 150)
	s.must(401, "GET", "/v2/contacts", "", "X-Subdomain: client-one")
	s.must(200, "GET", "/v2/contacts", "", "X-Subdomain: c000")
	s.token = s.AccessToken("owner")
	s.must(403, "GET", "/v2/contacts", "", "X-Subdomain: c000")
}

func TestCompaniesAreApart(t *testing.T) {
	s := free(t)
	contact := s.make("contacts", `{"first_name":"Ann"}`)
	s.token = s.AccessToken("other")
	s.must(404, "GET", contact, "")
	s.must(422, "POST", "/v2/invoices", `{"invoice":{"contact":"`+contact+`"}}`)
	s.must(200, "GET", "/v2/contacts", "", "X-Subdomain: ignored")
}
