//go:build !windows

package outcomes

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// writeFile replaces a file in one step. When it returns nil the new content survives a power cut.
func writeFile(path string, content []byte) error {
	dir := filepath.Dir(path)
	pending, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() { _ = pending.Cleanup() }() // nothing to do once it was replaced
	if _, err := pending.Write(content); err != nil {
		return err
	}
	if err := pending.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
