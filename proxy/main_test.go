package proxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// TestMain also looks for what tests leave behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(inOwnFolder{m}) }

// inOwnFolder gives the tests a folder for temporary files, where no body may be left.
type inOwnFolder struct{ *testing.M }

func (m inOwnFolder) Run() int {
	dir, err := os.MkdirTemp("", "proxy-test-*")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	os.Setenv("TMPDIR", dir)
	code := m.M.Run()
	if left, _ := filepath.Glob(filepath.Join(dir, "freeagent-proxy-*")); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "left behind:", left)
		return 1
	}
	return code
}
