package turns_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is also the main function of the process that takes a turn and is killed.
func TestMain(m *testing.M) {
	if addr := os.Getenv(childVariable); addr != "" {
		holdUntilKilled(addr)
		return
	}
	goleak.VerifyTestMain(m)
}
