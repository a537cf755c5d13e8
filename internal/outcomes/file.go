package outcomes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"
)

// file is the store of one process: a folder with one sealed file per record. Whoever opens it must have the folder to
// itself; a record of another owner's is then of a process that has ended.
//
//	DIR/SCOPE/ID   SCOPE: digest of account and client, ID: see Name
//
// A file is replaced in one step, after it and before its folder is synced to disk. Of waiting records it has none: they
// end with the process.
type file struct {
	dir    string
	clock  *fileClock
	mu     sync.Mutex
	scopes map[string]*scope
	// writing is read-locked while a record is written, so that the sweep, which locks it, does not take one for the
	// expired record in whose place it comes.
	writing sync.RWMutex
}

// scope is what one client keeps in one account.
type scope struct {
	units  int
	broken bool // its last write failed
}

// OpenFile opens the folder, and makes it if it is missing.
func OpenFile(dir string, cfg Config) (*Book, error) {
	f := &file{dir: dir, clock: newFileClock(), scopes: make(map[string]*scope)}
	if err := errors.Join(os.MkdirAll(dir, 0o700), syncDir(filepath.Dir(dir))); err != nil {
		return nil, fileError("make", dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fileError("read", dir, err)
	}
	for _, e := range entries {
		if e.IsDir() {
			f.scopes[e.Name()] = &scope{}
		}
	}
	f.sweep()
	return newBook(cfg, f), nil
}

func (f *file) lease() time.Duration { return 0 }
func (f *file) close() error         { return nil }

func scopeOf(r *record) string {
	account, client := sha256.Sum256([]byte(r.account)), sha256.Sum256([]byte(r.client))
	digest := sha256.Sum256(append(account[:], client[:]...))
	return hex.EncodeToString(digest[:8])
}

func (f *file) path(r *record) string { return filepath.Join(f.dir, scopeOf(r), r.id) }

// scope returns the record's scope. mu is held.
func (f *file) scope(r *record) *scope {
	name := scopeOf(r)
	if f.scopes[name] == nil {
		f.scopes[name] = &scope{}
	}
	return f.scopes[name]
}

func (f *file) begin(_ context.Context, r *record) (*record, error) {
	f.follow()
	path := f.path(r)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && expired(info):
		return nil, f.admit(r)
	case err != nil:
		return nil, fileError("look at", path, err)
	}
	found := &record{id: r.id}
	if found.sealed, err = os.ReadFile(path); err != nil {
		return nil, fileError("read", path, err)
	}
	return found, nil
}

// admit lets a record come, unless it could not be kept. Nothing is written for one that waits; but where the last write failed it is
// tried, so that a request learns of it now, and the operator hears that it is over when it is.
func (f *file) admit(r *record) error {
	f.mu.Lock()
	s := f.scope(r)
	full, broken := s.units >= MaxUnits, s.broken
	f.mu.Unlock()
	if broken {
		path := filepath.Join(filepath.Dir(f.path(r)), "."+r.id+"0") // as a crash leaves them
		if err := f.inFolder(path, func() error { return probeFile(path) }); err != nil {
			return fileError("write", path, err)
		}
		f.tell(s, nil)
	}
	if full {
		return ErrFull
	}
	return nil
}

// probeFile writes a file as large as most records, and removes it.
func probeFile(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, most))
	return errors.Join(err, file.Sync(), file.Close(), os.Remove(path))
}

func expired(info fs.FileInfo) bool { return time.Since(info.ModTime()) > Life }

func (f *file) put(_ context.Context, r *record) (lost bool, err error) {
	f.mu.Lock()
	s := f.scope(r)
	f.mu.Unlock()
	path := f.path(r)
	f.writing.RLock()
	err = f.inFolder(path, func() error { return writeFile(path, r.sealed) })
	f.writing.RUnlock()
	f.tell(s, err)
	if err != nil {
		return false, fileError("write", path, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.units += r.units
	return false, nil
}

// tell notes how a write into a scope ended.
func (f *file) tell(s *scope, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.broken = err != nil
}

// inFolder writes a file, and makes its scope's folder if there is none: it is the first one, or somebody has removed the folder.
// The folder of all scopes is not made again: if that is gone it may be on a disk that comes back, with what is known.
func (f *file) inFolder(path string, write func() error) error {
	err := write()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syncDir(f.dir); err != nil { // its name, too, must survive a power cut
		return err
	}
	return write()
}

// forget removes the record. Its units are counted anew when the folder is swept.
func (f *file) forget(_ context.Context, r *record) error {
	if r.state == waiting {
		return nil // it has no file
	}
	path := f.path(r)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fileError("remove", path, err)
	}
	return nil
}

// leftover is what a crash leaves: a file that was being written.
var leftover = regexp.MustCompile(`^\.[0-9a-f]{64}\d+$`)

// sweep removes what has expired, and counts what is left.
func (f *file) sweep() {
	f.follow()
	for _, name := range f.scopeNames() {
		taken := f.sweepScope(filepath.Join(f.dir, name))
		f.mu.Lock()
		f.scopes[name].units = taken
		f.mu.Unlock()
	}
}

func (f *file) scopeNames() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.scopes))
}

// sweepScope returns the units of what is left. What cannot be removed now is tried again at the next time.
func (f *file) sweepScope(dir string) (taken int) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		// A file that is being written is minutes old at most.
		switch path := filepath.Join(dir, e.Name()); {
		case leftover.MatchString(e.Name()):
			if time.Since(info.ModTime()) > time.Hour {
				_ = os.Remove(path)
			}
		case expired(info):
			f.expire(path)
		default:
			taken += units(int(info.Size()))
		}
	}
	return taken
}

// expire removes a record unless another one has come in its place.
func (f *file) expire(path string) {
	f.writing.Lock()
	defer f.writing.Unlock()
	if info, err := os.Stat(path); err == nil && expired(info) {
		_ = os.Remove(path)
	}
}

// fileError names the file, what is wrong with it and what to do.
func fileError(doing, path string, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("%s %s: %w", doing, path, err)
	}
	remedy := ""
	switch errno {
	case syscall.EACCES, syscall.EPERM, syscall.EROFS:
		remedy = "; make it readable and writable for the user that runs freeagent-proxy"
	case syscall.ENOSPC, syscall.EDQUOT:
		remedy = "; free some space for it"
	case syscall.ENOENT:
		remedy = "; its folder was there when the proxy started: mount or restore it"
	}
	return fmt.Errorf("%s %s: %w%s", doing, path, errno, remedy)
}
