package porttest

import (
	"net"
	"testing"
)

// Who is told the address may listen there again and again, and nobody is there between.
func TestAddress(t *testing.T) {
	address := Address(t)
	for range 3 {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Fatal("somebody listens there")
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
