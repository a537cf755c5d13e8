package simulator

import "fmt"

// maxSeed bounds one call of Seed.
const maxSeed = 1_000_000

// Seed makes count records of a family for user ("": Config.User), or for one
// client of a practice user, without a request: for tests of paging. Their
// names and references are numbered.
func (s *Simulator) Seed(user, subdomain, familyName string, count int) error {
	if count < 1 || count > maxSeed {
		return fmt.Errorf("count: %d does not lie between 1 and %d", count, maxSeed)
	}
	if familyName == "" {
		return fmt.Errorf("family: is missing")
	}
	if user == "" {
		user = s.cfg.Load().User
	}
	co := s.data.company(companyKey{user: user, subdomain: subdomain})
	f := s.family(familyName)
	for i := range count {
		attrs := f.fresh.with("name", fmt.Sprintf("%s %d", humanized(f.one), i+1))
		if f.name == "contacts" {
			attrs = f.fresh.with("organisation_name", fmt.Sprintf("Contact %d", i+1))
		}
		co.mu.Lock()
		t := co.table(f.name)
		if f.numbered {
			attrs = attrs.with("reference", t.next())
		}
		t.insert(s.data.nextID(), attrs)
		co.mu.Unlock()
	}
	return nil
}
