package simulator

import (
	"bytes"
	"encoding/csv"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// entry is one line of a bank statement.
type entry struct{ date, amount, description, fitID string }

// statement is POST /v2/bank_transactions/statement: 200 says only that it was
// accepted; transactions appear StatementDelay later, those that are new by
// date, amount and description (docs: bank_transactions).
func (s *Simulator) statement(c *call, method string) (reply, error) {
	if method != http.MethodPost {
		return reply{}, notFound()
	}
	account := idOf(c.r.URL.Query().Get("bank_account"))
	if c.company.find("bank_accounts", account) == nil {
		return reply{}, notFound()
	}
	entries, found, err := c.entries()
	if err != nil {
		return reply{}, err
	}
	if !found {
		return reply{}, refusal(http.StatusNotAcceptable, "statement is missing or empty")
	}
	co, delay := c.company, time.Duration(c.cfg.StatementDelay)
	if delay == 0 {
		s.importEntries(co, account, entries)
	} else {
		time.AfterFunc(delay, func() { s.importEntries(co, account, entries) })
	}
	return reply{status: http.StatusOK, acted: true}, nil
}

func (s *Simulator) importEntries(co *company, account string, entries []entry) {
	co.mu.Lock()
	defer co.mu.Unlock()
	t := co.table("bank_transactions")
	known := map[entry]bool{}
	bank := ref("/v2/bank_accounts/" + account)
	for _, r := range t.rows {
		if r.attrs.get("bank_account") == bank {
			known[entry{date: r.attrs.text("dated_on"), amount: r.attrs.text("amount"), description: r.attrs.text("description")}] = true
		}
	}
	for _, e := range entries {
		if known[entry{date: e.date, amount: e.amount, description: e.description}] {
			continue
		}
		t.insert(s.data.nextID(), object{
			{"amount", e.amount}, {"bank_account", bank}, {"dated_on", e.date}, {"description", e.description},
			{"full_description", e.description + "/OTHER/£" + strings.TrimPrefix(e.amount, "-")},
			{"uploaded_at", timestamp(time.Now().Truncate(time.Second))}, {"unexplained_amount", e.amount}, {"is_manual", false},
			{"transaction_id", e.fitID}, {"matching_transactions_count", number(0)},
		})
	}
}

// entries reads the statement in any of its forms; found is false when there is none.
func (c *call) entries() (list []entry, found bool, err error) {
	kind, params, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if kind == "multipart/form-data" {
		list, found = fileEntries(c.body, params["boundary"])
		return list, found, nil
	}
	body, err := c.parsed()
	if err != nil {
		return nil, false, err
	}
	lines, bare := body.([]any) // "a JSON array", say the docs, and show it below a root
	if o, ok := body.(object); ok && !bare {
		lines, _ = o.get("statement").([]any)
	}
	isXML := bytes.HasPrefix(bytes.TrimSpace(c.body), []byte("<"))
	for _, line := range lines {
		o, ok := line.(object)
		_, quoted := o.get("amount").(string)
		if !ok || quoted && !isXML { // a quoted amount is accepted and not imported (alekc/freeagent, docs/api-quirks.md)
			continue
		}
		list = append(list, entry{o.text("dated_on"), decimal(rational(o.get("amount"))), o.text("description"), o.text("fitid")})
	}
	return list, len(lines) > 0, nil
}

// fileEntries reads the field "statement" of a form: OFX, QIF or CSV.
func fileEntries(body []byte, boundary string) (list []entry, found bool) {
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := r.NextPart()
		if err != nil {
			return nil, false
		}
		if part.FormName() != "statement" {
			continue
		}
		text, err := io.ReadAll(part)
		if err != nil || len(bytes.TrimSpace(text)) == 0 {
			return nil, false
		}
		switch content := string(text); {
		case strings.Contains(content, "<STMTTRN>"):
			return ofxEntries(content), true
		case strings.HasPrefix(content, "!Type:"):
			return qifEntries(content), true
		default:
			return csvEntries(content), true
		}
	}
}

var ofxField = regexp.MustCompile(`<(DTPOSTED|TRNAMT|NAME|MEMO|FITID)>([^<\r\n]*)`)

func ofxEntries(text string) []entry {
	var list []entry
	for _, block := range strings.Split(text, "<STMTTRN>")[1:] {
		var e entry
		for _, m := range ofxField.FindAllStringSubmatch(block, -1) {
			value := strings.TrimSpace(m[2])
			switch m[1] {
			case "DTPOSTED":
				e.date = isoDate(value[:min(8, len(value))], "20060102")
			case "TRNAMT":
				e.amount = decimal(rational(value))
			case "FITID":
				e.fitID = value
			default:
				e.description = strings.TrimSpace(e.description + " " + value)
			}
		}
		list = append(list, e)
	}
	return list
}

func qifEntries(text string) []entry {
	var list []entry
	var e entry
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		switch line[0] {
		case 'D':
			e.date = isoDate(line[1:], "02/01/2006")
		case 'T':
			e.amount = decimal(rational(strings.ReplaceAll(line[1:], ",", "")))
		case 'P':
			e.description = line[1:]
		case '^':
			list = append(list, e)
			e = entry{}
		}
	}
	return list
}

// csvEntries reads lines of date, amount, description, as FreeAgent's help page has them.
func csvEntries(text string) []entry {
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord = -1
	lines, _ := r.ReadAll() // what comes before a broken line counts
	var list []entry
	for _, fields := range lines {
		if len(fields) >= 3 {
			list = append(list, entry{date: isoDate(fields[0], "02/01/2006"), amount: decimal(rational(fields[1])), description: fields[2]})
		}
	}
	return list
}

// isoDate returns the date as YYYY-MM-DD, or as it was when it has another form.
func isoDate(text, layout string) string {
	if t, err := time.Parse(layout, strings.TrimSpace(text)); err == nil {
		return t.Format(time.DateOnly)
	}
	return text
}
