package simulator

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// data is every company's records.
type data struct {
	// ids rise over all companies and families, as FreeAgent's do: an id that
	// strays into another company is not found there.
	ids atomic.Int64

	mu        sync.Mutex
	companies map[companyKey]*company
}

// companyKey is a user's own company, or a practice's client.
type companyKey struct{ user, subdomain string }

// firstID has four digits: some clients take the first number of two or more
// digits in a URL for the id.
const firstID = 1001

func newData() *data {
	d := &data{}
	d.reset()
	return d
}

func (d *data) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.companies = map[companyKey]*company{}
	d.ids.Store(firstID - 1)
}

func (d *data) nextID() string { return strconv.FormatInt(d.ids.Add(1), 10) }

// company returns the records of a company; it is founded when first asked for.
func (d *data) company(key companyKey) *company {
	d.mu.Lock()
	defer d.mu.Unlock()
	co := d.companies[key]
	if co == nil {
		co = &company{key: key, founded: time.Now(), tables: map[string]*table{}, settings: map[string]any{}}
		co.found(d)
		d.companies[key] = co
	}
	return co
}

// subdomains lists the clients of a practice user that were ever asked for, sorted.
func (d *data) subdomains(user string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []string
	for key := range d.companies {
		if key.user == user && key.subdomain != "" {
			list = append(list, key.subdomain)
		}
	}
	slices.Sort(list)
	return list
}

// company is one company's records. Rows are replaced, never changed, so that
// what was read under mu may be used without it.
type company struct {
	key     companyKey
	founded time.Time
	me      string // id of the user who holds the token

	mu       sync.RWMutex
	tables   map[string]*table
	settings map[string]any // by path
}

// table is the records of one family, oldest first.
type table struct {
	rows []*row
	byID map[string]*row
	// references counts the rows by their reference; last is the highest number among them.
	references map[string]int
	last       int
}

type row struct {
	id               string
	attrs            object // without url, created_at, updated_at
	created, updated time.Time
}

func (co *company) table(family string) *table {
	t := co.tables[family]
	if t == nil {
		t = &table{byID: map[string]*row{}, references: map[string]int{}}
		co.tables[family] = t
	}
	return t
}

func (co *company) find(family, id string) *row {
	co.mu.RLock()
	defer co.mu.RUnlock()
	if t := co.tables[family]; t != nil {
		return t.byID[id]
	}
	return nil
}

// scan returns the family's rows that match, oldest first.
func (co *company) scan(family string, match func(*row) bool) []*row {
	co.mu.RLock()
	defer co.mu.RUnlock()
	t := co.tables[family]
	if t == nil {
		return nil
	}
	var rows []*row
	for _, r := range t.rows {
		if match(r) {
			rows = append(rows, r)
		}
	}
	return rows
}

// insert stores a new row.
func (co *company) insert(family, id string, attrs object) *row {
	co.mu.Lock()
	defer co.mu.Unlock()
	return co.table(family).insert(id, attrs)
}

func (t *table) insert(id string, attrs object) *row {
	// FreeAgent's timestamps are recorded with milliseconds that are always 000.
	now := time.Now().Truncate(time.Second)
	r := &row{id: id, attrs: attrs, created: now, updated: now}
	t.rows = append(t.rows, r)
	t.byID[id] = r
	t.count(attrs, 1)
	return r
}

// update replaces the row's attributes by what change makes of them; nil if it is gone.
func (co *company) update(family, id string, change func(object) (object, error)) (*row, error) {
	co.mu.Lock()
	defer co.mu.Unlock()
	t := co.table(family)
	old := t.byID[id]
	if old == nil {
		return nil, notFound()
	}
	attrs, err := change(old.attrs)
	if err != nil {
		return nil, err
	}
	next := &row{id: id, attrs: attrs, created: old.created, updated: time.Now().Truncate(time.Second)}
	t.byID[id] = next
	t.rows[slices.Index(t.rows, old)] = next
	t.count(old.attrs, -1)
	t.count(attrs, 1)
	return next, nil
}

// remove deletes the row if it is still there.
func (co *company) remove(family, id string) bool {
	co.mu.Lock()
	defer co.mu.Unlock()
	t := co.table(family)
	old := t.byID[id]
	if old == nil {
		return false
	}
	delete(t.byID, id)
	i := slices.Index(t.rows, old)
	t.rows = slices.Delete(t.rows, i, i+1)
	t.count(old.attrs, -1)
	return true
}

// count enters a record's reference, or takes it out again.
func (t *table) count(attrs object, by int) {
	reference := attrs.text("reference")
	if reference == "" {
		return
	}
	t.references[reference] += by
	if t.references[reference] == 0 {
		delete(t.references, reference)
	}
	if n, err := strconv.Atoi(reference); err == nil {
		t.last = max(t.last, n)
	}
}

// name is the company's display name: the subdomain, or the user's, in title case.
func (co *company) name() string {
	name := co.key.subdomain
	if name == "" {
		name = co.key.user
	}
	words := strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune("-_.@ ", r) })
	for i, w := range words {
		first, size := utf8.DecodeRuneInString(w)
		words[i] = string(unicode.ToUpper(first)) + w[size:]
	}
	return strings.Join(words, " ") + " Ltd"
}

// found gives a new company what FreeAgent gives it: its first user and the categories.
func (co *company) found(d *data) {
	co.me = d.nextID()
	co.table("users").insert(co.me, object{
		{"first_name", "Olivia"}, {"last_name", "Owner"}, {"email", emailOf(co.key.user)},
		{"role", "Director"}, {"permission_level", number(8)}, {"opening_mileage", "0.0"},
	})
	for _, c := range categories() {
		co.table("categories").insert(c.code, object{
			{"description", c.description}, {"nominal_code", c.code}, {"category_group", c.group},
			{"auto_sales_tax_rate", "Standard rate"},
		})
	}
}

func emailOf(user string) string {
	if strings.Contains(user, "@") {
		return user
	}
	return user + "@example.com"
}
