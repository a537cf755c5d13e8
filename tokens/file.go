package tokens

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// FileConfig says where a File keeps its grants.
type FileConfig struct {
	Dir string // is made, with 0700, if it does not exist
	// Keys seal the grants: the first seals, all open. None: a key of its own, made in
	// Dir at first. Once Keys are given that one still opens what it sealed, so that the
	// grants move over to the new key; after that its file may be deleted.
	Keys []Key
	// ReadOnly takes no lock and writes nothing: it reads beside the process that has the lock.
	ReadOnly bool
	// Alone, with ReadOnly, takes the lock all the same, so that nobody writes while it is open. The folder must exist.
	Alone bool
}

// File is the Store for one process: a folder with one sealed file per account.
//
//	DIR/lock                  held by flock(2) as long as the store is open
//	DIR/key                   the store's own key, unless keys are configured
//	DIR/grants/ACCOUNT.grant  see Sealer
//
// A file is replaced in one step, after it and before its folder is synced to disk. What
// cannot be opened is never overwritten: a wrong key must not cost a grant.
type File struct {
	dir      string
	readOnly bool
	sealer   *Sealer // nil: read only, and there is nothing to open
	lock     *flock.Flock

	turns turns // who may refresh an account

	mu     sync.Mutex // held while a grant is compared and written, or removed
	closed bool
}

// ErrLocked: another process has the folder open. It wraps ErrStore.
var ErrLocked = fmt.Errorf("%w: in use by another freeagent-proxy", ErrStore)

// OpenFile opens the folder, and makes what is missing in it. Its errors wrap ErrStore, and name the file
// and what to do; ErrLocked tells that another process is at it.
func OpenFile(cfg FileConfig) (*File, error) {
	f := &File{dir: cfg.Dir, readOnly: cfg.ReadOnly}
	if err := f.open(cfg); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (f *File) open(cfg FileConfig) (err error) {
	switch {
	case !f.readOnly:
		err = f.prepare()
	case cfg.Alone:
		err = f.takeLock()
	}
	if err != nil {
		return err
	}
	keys, err := f.allKeys(cfg.Keys)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return nil
	}
	if f.sealer, err = NewSealer(keys...); err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	if !f.readOnly {
		f.resealAll()
	}
	return nil
}

// prepare makes the folders, takes the lock and clears away what a crash left.
func (f *File) prepare() error {
	if err := os.MkdirAll(f.grants(), 0o700); err != nil {
		return storeError("make", f.grants(), err)
	}
	if err := refuseOthers(f.dir, 0o002); err != nil {
		return err
	}
	if err := f.takeLock(); err != nil {
		return err
	}
	for _, dir := range []string{f.dir, f.grants()} {
		if err := removeLeftovers(dir); err != nil {
			return storeError("tidy", dir, err)
		}
		if err := syncDir(dir); err != nil {
			return storeError("sync", dir, err)
		}
	}
	return nil
}

func (f *File) takeLock() error {
	f.lock = flock.New(f.path("lock"), flock.SetPermissions(0o600))
	switch locked, err := f.lock.TryLock(); {
	case err != nil:
		return storeError("lock", f.path("lock"), err)
	case !locked:
		return fmt.Errorf("%w: folder %s; stop that process, or give this one another folder", ErrLocked, f.dir)
	default:
		return nil
	}
}

// resealAll moves grants to the first key. One that cannot be moved now is moved when it is
// next written; one that cannot be opened says so when it is asked for.
func (f *File) resealAll() {
	accounts, _ := f.Accounts(context.Background())
	for _, account := range accounts {
		grant, stale, err := f.read(account)
		if err == nil && stale {
			_ = f.write(grant)
		}
	}
}

// Load reads and opens the account's grant.
func (f *File) Load(_ context.Context, account string) (Grant, error) {
	grant, _, err := f.read(account)
	return grant, err
}

func (f *File) read(account string) (grant Grant, stale bool, err error) {
	path := f.grantPath(account)
	sealed, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Grant{}, false, f.absent(account)
	}
	if err != nil {
		return Grant{}, false, storeError("read", path, err)
	}
	if f.sealer == nil { // it came after we had looked for a key
		return Grant{}, false, storeError("open", path, errors.New("there was no key when the folder was opened; open it again"))
	}
	grant, stale, err = f.sealer.openGrant(account, sealed)
	if err != nil {
		return Grant{}, false, storeError("open", path, err)
	}
	return grant, stale, nil
}

// absent tells a grant that is not there from a folder that is gone, such as a volume that was
// unmounted: nobody removed the grants in it.
func (f *File) absent(account string) error {
	if _, err := os.Stat(f.grants()); err != nil && !f.readOnly {
		return storeError("read", f.grants(), err)
	}
	return fmt.Errorf("account %q: %w", account, ErrNoGrant)
}

// Save writes the grant, if the stored one is of the previous version.
func (f *File) Save(_ context.Context, next Grant, previous int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.writable(); err != nil {
		return err
	}
	stored, _, err := f.read(next.Account)
	if err != nil && !errors.Is(err, ErrNoGrant) {
		return fmt.Errorf("not overwritten: %w", err)
	}
	if stored.Version != previous {
		return fmt.Errorf("account %q: stored is version %d, expected %d: %w", next.Account, stored.Version, previous, ErrConflict)
	}
	return f.write(next)
}

func (f *File) write(g Grant) error {
	path := f.grantPath(g.Account)
	sealed, err := f.sealer.sealGrant(g)
	if err != nil {
		return storeError("encode", path, err)
	}
	if err := writeFile(path, sealed); err != nil {
		return storeError("write", path, err)
	}
	return nil
}

// Remove deletes the account's grant, also one that cannot be opened.
func (f *File) Remove(_ context.Context, account string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.writable(); err != nil {
		return err
	}
	path := f.grantPath(account)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f.absent(account)
	}
	if err == nil {
		err = syncDir(f.grants())
	}
	if err != nil {
		return storeError("remove", path, err)
	}
	return nil
}

// Accounts lists the accounts that have a grant, readable or not.
func (f *File) Accounts(context.Context) ([]string, error) {
	entries, err := os.ReadDir(f.grants())
	if err != nil && !(f.readOnly && errors.Is(err, fs.ErrNotExist)) {
		return nil, storeError("read", f.grants(), err)
	}
	var accounts []string
	for _, e := range entries {
		if account, ok := unescapeAccount(e.Name()); ok {
			accounts = append(accounts, account)
		}
	}
	slices.Sort(accounts)
	return accounts, nil
}

// writable reports whether the store may be written at all. mu is held.
func (f *File) writable() error {
	switch {
	case f.closed:
		return fmt.Errorf("%w: folder %s is closed", ErrStore, f.dir)
	case f.readOnly:
		return fmt.Errorf("%w: folder %s is opened for reading only", ErrStore, f.dir)
	default:
		return nil
	}
}

// Now is this machine's clock.
func (f *File) Now() time.Time { return time.Now() }

// Close gives the folder to the next process.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.lock == nil {
		return nil
	}
	if err := f.lock.Close(); err != nil {
		return storeError("unlock", f.path("lock"), err)
	}
	return nil
}

func (f *File) path(name string) string { return filepath.Join(f.dir, name) }
func (f *File) grants() string          { return f.path("grants") }
func (f *File) grantPath(account string) string {
	return filepath.Join(f.grants(), escapeAccount(account)+grantSuffix)
}
