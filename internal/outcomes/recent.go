package outcomes

import (
	"slices"
	"time"
)

// recent are outcomes that a Redis has, and may lose. They are bounded in number and size; the oldest go first.
type recent struct {
	order   []string
	byID    map[string]*record
	size    int
	suspect bool // the store may have lost them
}

const (
	maxRecent     = 4096
	maxRecentSize = 8 << 20
)

func (r *recent) add(one record) {
	if r.byID == nil {
		r.byID = make(map[string]*record)
	}
	if old := r.byID[one.id]; old != nil { // it had expired
		r.order = slices.DeleteFunc(r.order, func(id string) bool { return id == one.id })
		r.size -= old.weight()
	}
	one.units = 0
	r.byID[one.id] = &one
	r.order = append(r.order, one.id)
	r.size += one.weight()
	for len(r.order) > maxRecent || r.size > maxRecentSize {
		r.dropOldest()
	}
}

func (r *recent) dropOldest() {
	oldest := r.byID[r.order[0]]
	delete(r.byID, oldest.id)
	r.order = r.order[1:]
	r.size -= oldest.weight()
}

// weight is what a record takes in memory: sealed and not, and what goes with it.
func (r *record) weight() int { return len(r.sealed) + len(r.answer.Body) + 1<<10 }

// find returns the outcome of that id, if it has not expired.
func (r *recent) find(id string, now time.Time) *record {
	one := r.byID[id]
	if one == nil || now.After(one.expires()) {
		return nil
	}
	return one
}

// list are all that have not expired, the oldest first.
func (r *recent) list(now time.Time) []record {
	for len(r.order) > 0 && now.After(r.byID[r.order[0]].expires()) {
		r.dropOldest()
	}
	all := make([]record, 0, len(r.order))
	for _, id := range r.order {
		all = append(all, *r.byID[id])
	}
	return all
}
