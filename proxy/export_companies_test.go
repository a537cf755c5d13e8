package proxy

import (
	"fmt"
	"testing"
)

// MaxStrange is how many names a client may ask for that FreeAgent has not shown to know.
const MaxStrange = maxStrange

// MakeUp lets a client ask for so many names at an account.
func MakeUp(t *testing.T, p *Proxy, account, by string, names int) {
	t.Helper()
	for i := range names {
		to := passage{client: &client{Client: Client{Name: by}}, account: p.settings.Load().accounts[account], subdomain: fmt.Sprint("made-up-", i)}
		if strange, err := p.companies.admit(to); !strange || err != nil {
			t.Fatalf("name %d: %v, %v", i, strange, err)
		}
	}
}
