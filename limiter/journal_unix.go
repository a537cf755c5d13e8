//go:build !windows

package limiter

import "os"

// createOpen makes a file that is renamed while it is open.
func createOpen(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// renameOpen renames a file that is open, and replaces one that is.
func renameOpen(from, to string) error { return os.Rename(from, to) }
