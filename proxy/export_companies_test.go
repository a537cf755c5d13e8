package proxy

import (
	"fmt"
	"testing"
)

// MaxStrange is how many names an account may have that FreeAgent has not shown to know.
const MaxStrange = maxStrange

// MakeUp lets so many names come for an account, as if requests did.
func MakeUp(t *testing.T, p *Proxy, account string, names int) {
	t.Helper()
	for i := range names {
		to := passage{client: &client{}, account: p.settings.Load().accounts[account], subdomain: fmt.Sprint("made-up-", i)}
		if strange, err := p.companies.admit(to); !strange || err != nil {
			t.Fatalf("name %d: %v, %v", i, strange, err)
		}
	}
}
