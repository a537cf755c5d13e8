package tokens

import (
	"errors"
	"os"
	"path/filepath"
)

// writeFile replaces a file in one step, by MoveFileEx, which is atomic on NTFS as far as is known.
func writeFile(path string, content []byte) error {
	pending, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"*")
	if err != nil {
		return err
	}
	_, err = pending.Write(content)
	err = errors.Join(err, pending.Sync(), pending.Close())
	if err == nil {
		err = os.Rename(pending.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(pending.Name()))
	}
	return nil
}

// syncDir does nothing: Windows syncs no folders, and NTFS keeps a journal of names.
func syncDir(string) error { return nil }
