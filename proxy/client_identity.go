package proxy

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// clients is who may call, by what they are known by.
type clients struct {
	anonymous     *client // everyone; nil if the configuration names clients
	operator      *client // at the operator's own entrance
	self          *client // at our own
	gone          *client // at a listener that was a client's own
	named         map[string]*client
	byKey         map[[sha256.Size]byte]*client
	byCertificate map[string]*client
	byNetwork     []network // the most specific ones first
	trusted       []netip.Prefix
	standIns      standIns
}

// network is where a client calls from.
type network struct {
	netip.Prefix
	client *client
}

func (s *settings) openClients(c *Config, standIns standIns) {
	s.clients = clients{
		operator:      s.openClient(Client{Name: Operator, Weight: 1, MaxWait: c.MaxWait}),
		self:          s.openClient(Client{Name: Self, ReadOnly: true}),
		gone:          new(client),
		named:         make(map[string]*client),
		byKey:         make(map[[sha256.Size]byte]*client),
		byCertificate: make(map[string]*client),
		trusted:       c.TrustedProxies,
		standIns:      standIns,
	}
	if len(c.Clients) == 0 {
		s.clients.anonymous = s.openClient(Client{Name: Anonymous, MaxWait: c.MaxWait})
	}
	for _, c := range c.Clients {
		opened := s.openClient(c)
		s.clients.named[c.Name] = opened
		for _, digest := range c.Keys {
			s.clients.byKey[digest] = opened
		}
		if c.Certificate != "" {
			s.clients.byCertificate[c.Certificate] = opened
		}
		for _, prefix := range c.Networks {
			s.clients.byNetwork = append(s.clients.byNetwork, network{prefix.Masked(), opened})
		}
	}
	s.clients.weigh()
	slices.SortFunc(s.clients.byNetwork, func(a, b network) int { return cmp.Compare(b.Bits(), a.Bits()) })
}

// at is who comes in at a listener of its own, named like its client; nil: the listener is everybody's. A
// client that is configured no more leaves a listener behind which is nobody's.
func (c *clients) at(entrance string) *client {
	switch entrance {
	case "":
		return nil
	case Operator:
		return c.operator
	case Self:
		return c.self
	}
	if found := c.named[entrance]; found != nil {
		return found
	}
	return c.gone
}

// recognise finds the client by what it alone can show: its key, else its certificate. nil: it shows neither.
// A web page cannot make a browser show a key, so whoever does may call us by any name; see admit.
func (c *clients) recognise(r *http.Request) *client {
	if c.anonymous != nil {
		return nil
	}
	if key := apiKey(r); key != "" {
		return c.holder(key)
	}
	scheme, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	var found *client
	switch credentials = strings.TrimSpace(credentials); {
	case strings.EqualFold(scheme, "Bearer"):
		found = c.holder(credentials)
	case strings.EqualFold(scheme, "Basic"):
		found = c.holder(password(credentials))
	}
	if found == nil {
		found = c.certified(r)
	}
	return found
}

// identify names the client: by what it showed, else by the listener that it came in at, else by its address. An unknown
// X-Api-Key is meant for us and wrong; an unknown Authorization may be left over from the time when the
// program called FreeAgent itself.
func (c *clients) identify(r *http.Request, shown, listener *client) (*client, error) {
	switch {
	case shown != nil:
		return shown, nil
	case c.anonymous == nil && apiKey(r) != "":
		return nil, errUnknownKey
	case listener != nil && listener == c.gone:
		return nil, fmt.Errorf("%w: it came in at a listener whose client is configured no more", errUnknownClient)
	case listener != nil:
		return listener, nil
	case c.anonymous != nil:
		return c.anonymous, nil
	}
	addr := c.address(r)
	for _, n := range c.byNetwork {
		if n.Contains(addr) {
			return n.client, nil
		}
	}
	if !addr.IsValid() { // a unix socket has none
		return nil, errUnknownClient
	}
	return nil, fmt.Errorf("%w: it calls from %s", errUnknownClient, addr)
}

func apiKey(r *http.Request) string { return r.Header.Get("X-Api-Key") }

// withKey finds the client of a key. Digests are looked up, not keys: how long that takes tells nothing of any key.
func (c *clients) withKey(key string) *client {
	if key == "" {
		return nil
	}
	return c.byKey[sha256.Sum256([]byte(key))]
}

// password is that of Basic credentials (RFC 7617), or "". Whose it is said to be does not matter.
func password(credentials string) string {
	plain, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(credentials, "="))
	if err != nil {
		return ""
	}
	_, password, _ := strings.Cut(string(plain), ":")
	return password
}

// certified finds the client of the verified certificate that the connection has shown, by one of its URIs, else
// by one of its DNS names, else by its common name.
func (c *clients) certified(r *http.Request) *client {
	if len(c.byCertificate) == 0 || r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	leaf := r.TLS.VerifiedChains[0][0]
	for _, uri := range leaf.URIs {
		if found := c.byCertificate[uri.String()]; found != nil {
			return found
		}
	}
	for _, name := range leaf.DNSNames {
		if found := c.byCertificate[name]; found != nil {
			return found
		}
	}
	return c.byCertificate[leaf.Subject.CommonName]
}
