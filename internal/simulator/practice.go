package simulator

import (
	"net/http"
	"slices"
)

// practiceOnly are the first segments of what an accountancy practice sees of itself.
func practiceOnly(first string) bool {
	return slices.Contains([]string{"practice", "clients", "account_managers"}, first)
}

// chooseCompany finds the records that the request is about: the user's own
// company, or the client that a practice's X-Subdomain names.
func (s *Simulator) chooseCompany(c *call, first string) error {
	if !c.isPractice() {
		if practiceOnly(first) || c.cfg.RefuseCompanySubdomain && c.r.Header.Get("X-Subdomain") != "" {
			return refusal(http.StatusForbidden, "You are not allowed to access this action.")
		}
		c.company = s.data.company(companyKey{user: c.token.user})
		return nil
	}
	if practiceOnly(first) {
		return nil
	}
	known := len(c.cfg.PracticeClients) == 0 || slices.Contains(c.cfg.PracticeClients, c.subdomain)
	if c.subdomain == "" || !known {
		return refusal(c.cfg.UnknownSubdomainStatus, "Resource not found")
	}
	c.company = s.data.company(companyKey{user: c.token.user, subdomain: c.subdomain})
	return nil
}

// practice answers for the practice itself, which has no company.
func (s *Simulator) practice(c *call, method, path string) (reply, error) {
	if method != http.MethodGet {
		return reply{}, notFound()
	}
	own := &company{key: companyKey{user: c.token.user}}
	manager := object{{"url", ref("/v2/account_managers/1")}, {"name", "Olivia Owner"}, {"email", emailOf(c.token.user)}}
	switch path {
	case "practice":
		return reply{status: http.StatusOK, acted: true, value: object{{"name", own.name()}, {"subdomain", own.subdomain()}}}, nil
	case "account_managers":
		return c.listReply(paging{page: 1, perPage: defaultPerPage, total: 1}, object{{"account_managers", []any{manager}}}), nil
	case "account_managers/1":
		return reply{status: http.StatusOK, acted: true, value: object{{"account_manager", manager}}}, nil
	case "clients":
		return s.clients(c)
	}
	return reply{}, notFound()
}

// clients lists the practice's clients; with minimal_data a page may be larger.
func (s *Simulator) clients(c *call) (reply, error) {
	subdomains := c.cfg.PracticeClients
	if len(subdomains) == 0 {
		subdomains = s.data.subdomains(c.token.user)
	}
	query, most := c.r.URL.Query(), maxPerPage
	if query.Get("minimal_data") == "true" {
		most = maxPerMinimal
	}
	p, err := c.page(query, len(subdomains), most)
	if err != nil {
		return reply{}, err
	}
	list := []any{}
	for _, subdomain := range subdomains[p.from:p.to] {
		co := &company{key: companyKey{user: c.token.user, subdomain: subdomain}}
		list = append(list, object{{"name", co.name()}, {"subdomain", subdomain}, {"status", "active"}, {"account_managers", []any{}}})
	}
	return c.listReply(p, object{{"clients", list}}), nil
}
