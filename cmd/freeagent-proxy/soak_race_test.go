//go:build race

package main

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The race detector makes ten thousand creates take minutes, so this test binary lets another one without it do them.
func TestTenThousandInvoices(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run", "^TestTenThousandInvoices$", ".").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestTenThousandInvoices") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
