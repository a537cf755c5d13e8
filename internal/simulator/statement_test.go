package simulator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/simulator"
)

func TestStatements(t *testing.T) {
	s := free(t)
	bank := s.make("bank_accounts", `{"bank_account":{"name":"B"}}`)
	upload := "/v2/bank_transactions/statement?bank_account=" + s.url + bank
	file := func(content string) (string, string) {
		return "--X\r\nContent-Disposition: form-data; name=\"statement\"; filename=\"s\"\r\n\r\n" + content + "\r\n--X--\r\n", "Content-Type: multipart/form-data; boundary=X"
	}
	post := func(body string, header ...string) {
		t.Helper()
		equal(t, "body", s.must(200, "POST", upload, body, header...).body, "")
	}
	list := func() []map[string]any {
		return s.must(200, "GET", "/v2/bank_transactions?bank_account="+bank, "").list(t)
	}
	post(`{"statement":[{"dated_on":"2026-01-01","amount":-100,"description":"Council"},{"dated_on":"2026-01-01","amount":"5.0","description":"quoted"}]}`)
	equal(t, "a quoted amount is not imported", len(list()), 1)
	post(`{"statement":[{"dated_on":"2026-01-01","amount":-100.0,"description":"Council"},{"dated_on":"2026-01-02","amount":-100,"description":"Council"}]}`)
	equal(t, "the same again is left out", len(list()), 2)
	post(`[{"dated_on":"2026-01-02","amount":-100,"description":"Council"},{"dated_on":"2026-01-02","amount":-7,"description":"bare"}]`)
	equal(t, "an array without a root", len(list()), 3)
	s.must(406, "POST", upload, `[]`)
	post(`<statement type="array"><transaction><dated-on>2026-01-03</dated-on><amount>7.5</amount><description>X</description></transaction></statement>`)
	csv, kind := file("04/01/2026,12.50,From CSV\n")
	post(csv, kind)
	ofx, _ := file("<OFX><STMTTRN><DTPOSTED>20260105120000<TRNAMT>-3.2<NAME>From OFX<FITID>f1</STMTTRN></OFX>")
	post(ofx, kind)
	qif, _ := file("!Type:Bank\nD06/01/2026\nT1,000.00\nPFrom QIF\n^\n")
	post(qif, kind)
	var got []string
	for _, r := range list() {
		got = append(got, fmt.Sprint(r["dated_on"], r["amount"], r["description"]))
	}
	equal(t, "transactions", strings.Join(got, " | "), "2026-01-01-100.0Council | 2026-01-02-100.0Council | 2026-01-02-7.0bare | 2026-01-037.5X | 2026-01-0412.5From CSV | 2026-01-05-3.2From OFX | 2026-01-061000.0From QIF")

	transaction := strings.TrimPrefix(list()[0]["url"].(string), s.url)
	s.must(201, "POST", "/v2/bank_transaction_explanations", `{"bank_transaction_explanation":{"bank_transaction":"`+transaction+`","gross_value":"-40.0"}}`)
	explained := s.must(200, "GET", transaction, "").record(t)
	equal(t, "unexplained", explained["unexplained_amount"], any("-60.0"))
	equal(t, "nested", len(explained["bank_transaction_explanations"].([]any)), 1)
	location := s.must(201, "POST", "/v2/bank_transaction_explanations", `{"bank_transaction_explanation":{"bank_transaction":"`+transaction+`","gross_value":"-60.0"}}`).Header.Get("Location")
	equal(t, "relative Location", strings.HasPrefix(location, "/v2/bank_transaction_explanations/"), true)
	equal(t, "explained", len(s.must(200, "GET", "/v2/bank_transactions?view=unexplained&bank_account="+bank, "").list(t)), 6)
	s.must(200, "DELETE", transaction, "")
	s.must(404, "POST", "/v2/bank_transactions/statement?bank_account=1", `{"statement":[]}`)
	s.must(406, "POST", upload, `{"statement":[]}`)
	s.must(406, "POST", upload, "")
}

func TestStatementDelay(t *testing.T) {
	s := start(t, simulator.Config{Enforcement: simulator.EnforceOff, StatementDelay: simulator.Duration(2 * time.Second)})
	bank := s.make("bank_accounts", `{"bank_account":{"name":"B"}}`)
	s.must(200, "POST", "/v2/bank_transactions/statement?bank_account="+bank, `{"statement":[{"dated_on":"2026-01-01","amount":1}]}`)
	count := func() int {
		return len(s.must(200, "GET", "/v2/bank_transactions?bank_account="+bank, "").list(t))
	}
	equal(t, "at once", count(), 0)
	wait(t, func() bool { return count() == 1 })
}
