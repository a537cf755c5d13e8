package tokens

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
)

const (
	grantSuffix = ".grant"
	probeName   = ".probe"
	keyName     = "key"
	// ownKeyID cannot be the id of a configured key.
	ownKeyID = "@file"
	// maxFile is far more than any file of ours has.
	maxFile = 1 << 20
)

// allKeys returns the configured keys and, behind them, the folder's own.
func (f *File) allKeys(keys []Key) ([]Key, error) {
	path := f.path(keyName)
	text, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(keys) > 0:
		return keys, nil
	case errors.Is(err, fs.ErrNotExist):
		return f.makeKey(path)
	case err != nil:
		return nil, storeError("read", path, err)
	}
	if err := refuseOthers(path, 0o007); err != nil {
		return nil, err
	}
	own, err := parseKey(ownKeyID, string(text))
	if err != nil {
		return nil, storeError("read", path, errors.New("it holds no key, 32 bytes in base64; restore it from a backup: without it the grants cannot be opened"))
	}
	return append(keys[:len(keys):len(keys)], own), nil
}

// makeKey makes the folder's own key, but never when there is something that it could not open.
func (f *File) makeKey(path string) ([]Key, error) {
	entries, err := os.ReadDir(f.grants())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, storeError("read", f.grants(), err)
	}
	for _, e := range entries {
		if _, ok := unescapeAccount(e.Name()); ok {
			return nil, storeError("open", path, errors.New(
				"there are grants, but the key that sealed them is missing; restore this file from a backup, or configure the key they are sealed with"))
		}
	}
	if f.readOnly {
		return nil, nil
	}
	text := NewKey()
	if err := writeFile(path, []byte(text+"\n")); err != nil {
		return nil, storeError("write", path, err)
	}
	key, err := parseKey(ownKeyID, text)
	return []Key{key}, err
}

// escapeAccount makes a file name of an account's name that means nothing else to a file
// system, and is not hidden: letters, digits, dash and underscore stay, the rest becomes %XX.
func escapeAccount(account string) string {
	var b strings.Builder
	for i := range len(account) {
		c := account[i]
		if c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func unescapeAccount(file string) (account string, ok bool) {
	escaped, ok := strings.CutSuffix(file, grantSuffix)
	if !ok {
		return "", false
	}
	account, err := url.PathUnescape(escaped)
	return account, err == nil && escapeAccount(account) == escaped
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxFile))
}

// probeFile writes a file of a grant's size and removes it. A grant has 300 to 3,000 bytes.
func probeFile(path string) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(bytes.Repeat([]byte{'.'}, 4<<10))
	return errors.Join(err, file.Sync(), file.Close(), os.Remove(path))
}

// leftover is what a crash leaves: a file that was being written.
var leftover = regexp.MustCompile(`^\.(.*\.grant\d+|key\d+|probe)$`)

func removeLeftovers(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if leftover.MatchString(e.Name()) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// refuseOthers refuses a file or folder that just anybody on the machine has access to. Its group may: that is
// how some volumes are mounted. On Windows a file's mode says nothing of that.
func refuseOthers(path string, access fs.FileMode) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return storeError("look at", path, err)
	}
	if mode := info.Mode().Perm(); mode&access != 0 {
		return storeError("trust", path, fmt.Errorf("every user of this machine has access to it (mode %04o); chmod o-rwx it, and see that nobody used that", mode))
	}
	return nil
}

// storeError names the file, what is wrong with it and what to do.
func storeError(doing, path string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("%w: %s %s: %w", ErrStore, doing, path, err)
	}
	remedy := ""
	switch errno {
	case syscall.EACCES, syscall.EPERM, syscall.EROFS:
		remedy = "; make it readable and writable for the user that runs freeagent-proxy"
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		remedy = "; free some space for it"
	case syscall.ENOENT:
		remedy = "; it was there when the store was opened: mount or restore it"
	case syscall.ENOTDIR, syscall.EISDIR, syscall.EEXIST:
		remedy = "; move what is in its place out of the way"
	}
	// The errno alone: the error around it names a temporary file.
	return fmt.Errorf("%w: %s %s: %w%s", ErrStore, doing, path, errno, remedy)
}
