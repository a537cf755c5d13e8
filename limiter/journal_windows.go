package limiter

import (
	"os"
	"path/filepath"
)

// createOpen makes a file that is renamed while it is open. Windows allows that if it was opened so, as os.Root does, and
// os.OpenFile does not.
func createOpen(name string) (*os.File, error) {
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenFile(filepath.Base(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// renameOpen renames a file that is open, and replaces one that is, by POSIX's rules (Windows 10 1709 and later, NTFS).
func renameOpen(from, to string) error {
	root, err := os.OpenRoot(filepath.Dir(from))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.Rename(filepath.Base(from), filepath.Base(to))
}
