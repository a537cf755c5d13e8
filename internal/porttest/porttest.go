// Package porttest gives tests ports that stay theirs: for programs that are told where to listen, that are started again there,
// or of which it matters that they are not there.
package porttest

import "testing"

// Address is an address of the loopback on which nobody listens. Whoever is told it may listen there, and again after an end, as
// long as the test runs. Nobody gets the port by asking for a free one.
func Address(t testing.TB) string {
	t.Helper()
	address, release, err := hold()
	if err != nil {
		t.Fatalf("get a port: %v", err)
	}
	t.Cleanup(release)
	return address
}
