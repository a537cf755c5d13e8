package simulator

import (
	"fmt"
	"net/http"
	"time"
)

// store inserts a new record. One that needs a reference and brings none gets
// the next number: in one step, or with NumberingDelay as FreeAgent does it,
// which reads the last number first and uses the next one a moment later, so
// that two creates at once come to the same (forum threads 931, 2015, 2515).
func (s *Simulator) store(c *call, f family, attrs object) (*row, error) {
	if delay := time.Duration(c.cfg.NumberingDelay); f.numbered && attrs.text("reference") == "" && delay > 0 {
		attrs = attrs.with("reference", c.company.nextReference(f.name))
		c.sleep(delay)
	}
	c.company.mu.Lock()
	defer c.company.mu.Unlock()
	t := c.company.table(f.name)
	if f.numbered && attrs.text("reference") == "" {
		attrs = attrs.with("reference", t.next())
	}
	if reference := attrs.text("reference"); f.numbered && t.references[reference] > 0 {
		if !c.cfg.DuplicateReferences {
			return nil, apiError{
				status: http.StatusUnprocessableEntity, messages: []string{"reference has already been taken"}, list: true,
				location: c.base + "/v2/" + f.name,
			}
		}
		s.writes.duplicateReference()
	}
	return t.insert(s.data.nextID(), attrs), nil
}

func (co *company) nextReference(family string) string {
	co.mu.Lock()
	defer co.mu.Unlock()
	return co.table(family).next()
}

// next is "001" and on.
func (t *table) next() string { return fmt.Sprintf("%03d", t.last+1) }
