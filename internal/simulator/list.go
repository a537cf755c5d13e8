package simulator

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The page sizes that are documented.
const (
	defaultPerPage = 25
	maxPerPage     = 100
	maxPerMinimal  = 500 // of /v2/clients with minimal_data=true
)

// list is one page of a family.
func (s *Simulator) list(c *call, f family) (reply, error) {
	query := c.r.URL.Query()
	if len(f.filters) > 0 && !slices.ContainsFunc(f.filters, query.Has) {
		return reply{}, refusal(http.StatusBadRequest, "%s is missing", strings.Join(f.filters, " or "))
	}
	rows := c.company.scan(f.name, s.matcher(f, query))
	order(rows, query.Get("sort"))
	p, err := c.page(query, len(rows), maxPerPage)
	if err != nil {
		return reply{}, err
	}
	nested := query.Get("nested_"+f.items) == "true"
	list := make([]any, 0, p.to-p.from)
	for _, r := range rows[p.from:p.to] {
		list = append(list, c.render(f, r, nested))
	}
	return c.listReply(p, object{{f.name, list}}), nil
}

// listReply is a page with its headers. Link is there and empty when one page holds everything (recorded).
func (c *call) listReply(p paging, value object) reply {
	return reply{
		status: http.StatusOK, acted: true, value: value,
		header: [][2]string{{"Link", p.link(c)}, {"X-Total-Count", strconv.Itoa(p.total)}},
	}
}

// matcher understands filters by reference, updated_since, from_date, to_date
// and the views that are statuses. FreeAgent ignores what it does not know.
func (s *Simulator) matcher(f family, query url.Values) func(*row) bool {
	var conditions []func(*row) bool
	for name, target := range s.references {
		if id := idOf(query.Get(name)); id != "" {
			want := ref("/v2/" + target + "/" + id)
			conditions = append(conditions, func(r *row) bool { return r.attrs.get(name) == want })
		}
	}
	if since, err := time.Parse(time.RFC3339, query.Get("updated_since")); err == nil && f.knowsUpdatedSince() {
		conditions = append(conditions, func(r *row) bool { return !r.updated.Before(since) })
	}
	if from := query.Get("from_date"); from != "" {
		conditions = append(conditions, func(r *row) bool { return r.attrs.text("dated_on") >= from })
	}
	if to := query.Get("to_date"); to != "" {
		conditions = append(conditions, func(r *row) bool { return r.attrs.text("dated_on") <= to })
	}
	if view := matchView(query.Get("view")); view != nil {
		conditions = append(conditions, view)
	}
	return func(r *row) bool {
		return !slices.ContainsFunc(conditions, func(holds func(*row) bool) bool { return !holds(r) })
	}
}

// knowsUpdatedSince holds for the families whose documents mention the filter; the others ignore it.
func (f family) knowsUpdatedSince() bool {
	return slices.Contains([]string{
		"bank_transaction_explanations", "bank_transactions", "bills", "contacts", "credit_note_reconciliations",
		"credit_notes", "estimates", "expenses", "invoices", "journal_sets", "tasks", "timeslips",
	}, f.name)
}

// matchView returns nil for a view that shows everything or is not known here.
func matchView(view string) func(*row) bool {
	switch view {
	case "draft", "open", "overdue", "paid", "approved", "rejected", "scheduled_to_email", "active", "completed", "cancelled", "hidden":
		status := strings.ReplaceAll(view, "_", " ")
		return func(r *row) bool { return strings.EqualFold(r.attrs.text("status"), status) }
	case "open_or_overdue", "recent_open_or_overdue":
		return func(r *row) bool { s := r.attrs.text("status"); return s == "Open" || s == "Overdue" }
	case "unexplained":
		return func(r *row) bool { return rational(r.attrs.get("unexplained_amount")).Sign() != 0 }
	case "explained":
		return func(r *row) bool { return rational(r.attrs.get("unexplained_amount")).Sign() == 0 }
	}
	return nil
}

// order sorts by created_at, updated_at or an attribute; a hyphen turns it round.
func order(rows []*row, by string) {
	name, descending := strings.CutPrefix(by, "-")
	if name == "" {
		return
	}
	slices.SortStableFunc(rows, func(a, b *row) int {
		if descending {
			a, b = b, a
		}
		switch name {
		case "created_at":
			return a.created.Compare(b.created)
		case "updated_at":
			return a.updated.Compare(b.updated)
		}
		return strings.Compare(a.attrs.text(name), b.attrs.text(name))
	})
}

// paging is the part of a list that was asked for.
type paging struct {
	page, perPage, total int
	from, to             int // indices
}

func (c *call) page(query url.Values, total, most int) (paging, error) {
	p := paging{page: atLeastOne(query.Get("page"), 1), perPage: atLeastOne(query.Get("per_page"), defaultPerPage), total: total}
	if p.perPage > most && c.cfg.PerPageOverLimit == PerPageRefuse {
		return p, refusal(http.StatusBadRequest, "per_page must not exceed %d", most)
	}
	p.perPage = min(p.perPage, most)
	p.from = min((min(p.page, p.last()+1)-1)*p.perPage, total)
	p.to = min(p.from+p.perPage, total)
	return p, nil
}

func (p paging) last() int { return max(1, (p.total+p.perPage-1)/p.perPage) }

func atLeastOne(text string, otherwise int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return otherwise
	}
	return n
}

// link is the Link header: as seen live, single quotes and last before next, or as documented.
func (p paging) link(c *call) string {
	type target struct {
		rel  string
		page int
		show bool
	}
	back, on := p.page > 1, p.page < p.last()
	targets := []target{{"first", 1, back}, {"prev", p.page - 1, back}, {"last", p.last(), on}, {"next", p.page + 1, on}}
	quote := "'"
	if c.cfg.LinkQuotes == LinkDouble {
		quote = `"`
		targets = []target{{"prev", p.page - 1, back}, {"next", p.page + 1, on}, {"first", 1, back}, {"last", p.last(), on}}
	}
	query := c.r.URL.Query()
	query.Set("per_page", strconv.Itoa(p.perPage))
	var parts []string
	for _, t := range targets {
		if t.show {
			query.Set("page", strconv.Itoa(t.page))
			parts = append(parts, fmt.Sprintf("<%s%s?%s>; rel=%s%s%s", c.base, c.path, query.Encode(), quote, t.rel, quote))
		}
	}
	return strings.Join(parts, ", ")
}
