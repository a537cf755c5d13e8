package proxy

import "net/url"

// settings is what of a Config may be replaced while requests are served. It is never changed once it is made; each request
// reads it once, when it begins, and is judged by that alone.
type settings struct {
	accounts   map[string]*account
	clients    clients
	hosts      map[string]bool
	publicURL  *url.URL
	oneAtATime oneAtATime
}

func newSettings(c *Config, standIns standIns) *settings {
	s := &settings{
		accounts:   make(map[string]*account),
		hosts:      make(map[string]bool),
		publicURL:  c.PublicURL,
		oneAtATime: newOneAtATime(c.OneAtATime),
	}
	for _, host := range c.Hosts {
		s.hosts[canonicalHost(host)] = true
	}
	s.openAccounts(c.Accounts, c.Egress)
	s.openClients(c, standIns)
	return s
}

// Reconfigure replaces Accounts, Clients, PublicURL, Hosts, MaxWait, Egress, TrustedProxies and OneAtATime for all requests that
// begin from now on, on connections that are open already, too. Those under way go on as they began. The other fields of
// c are not looked at: they hold for a Proxy's life.
func (p *Proxy) Reconfigure(c Config) { p.settings.Store(newSettings(&c, p.standIns)) }
