package tokens_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain also is the other process of the tests that need one.
func TestMain(m *testing.M) {
	if role := os.Getenv("TOKENS_TEST_CHILD"); role != "" {
		os.Exit(child(role))
	}
	goleak.VerifyTestMain(m)
}
