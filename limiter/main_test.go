package limiter_test

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is also the main function of the processes that process_test.go starts.
func TestMain(m *testing.M) {
	switch journal := os.Getenv("LIMITER_JOURNAL"); os.Getenv("LIMITER_CHILD") {
	case "killed":
		takeUntilKilled(journal)
	case "full":
		takeWhileDiskIsFull(journal)
	default:
		flag.Set("rapid.checks", "1000")
		flag.Set("test.parallel", "8") // those that are parallel wait most of the time
		goleak.VerifyTestMain(m)
	}
}
