package main

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// roleVariable makes this test binary the program itself, so that the race detector watches
// the processes that tests start as well.
const roleVariable = "FREEAGENT_PROXY_TEST_ROLE"

const (
	roleProgram = "program"
	// roleUnprivileged is the program without root's right to read and write what modes forbid.
	roleUnprivileged = "unprivileged"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(clockVariable); name != "" {
		if err := wrongClock(name); err != nil {
			fmt.Fprintln(os.Stderr, "set the clock:", err)
			os.Exit(100)
		}
	}
	switch os.Getenv(roleVariable) {
	case roleProgram:
		main()
	case roleUnprivileged:
		if err := execUnprivileged(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(100)
		}
	}
	goleak.VerifyTestMain(m)
}
