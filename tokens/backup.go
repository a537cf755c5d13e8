package tokens

import (
	"context"
	"errors"
	"fmt"
)

// backup is a folder with a second copy of the grants that this process wrote into another store.
type backup struct{ *File }

func openBackup(dir string, keys []Key) (*backup, error) {
	file, err := OpenFile(FileConfig{Dir: dir, Keys: keys})
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return &backup{file}, nil
}

// keep writes a grant over an older one. undo puts back what was there.
func (b *backup) keep(next Grant) (undo func() error, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.writable(); err != nil {
		return nil, err
	}
	before, _, err := b.read(next.Account)
	if err != nil && !errors.Is(err, ErrNoGrant) {
		return nil, fmt.Errorf("not overwritten: %w", err)
	}
	if before.Version >= next.Version {
		return func() error { return nil }, nil
	}
	if err := b.write(next); err != nil {
		return nil, err
	}
	return func() error {
		if before.Version == 0 {
			return b.Remove(context.Background(), next.Account)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.write(before)
	}, nil
}

// What RedisConfig.Degraded is told of.
const (
	DegradedBackup   = "backup of the grants in Redis"
	DegradedReplicas = "redis replicas" // fewer than WaitReplicas have a write
)

// keep writes a grant into the backup, if there is one. That this fails costs nothing yet, and is told.
func (r *Redis) keep(next Grant) (undo func()) {
	if r.backup == nil {
		return func() {}
	}
	takeBack, err := r.backup.keep(next)
	r.degrade(DegradedBackup, err)
	if err != nil {
		return func() {}
	}
	return func() { r.degrade(DegradedBackup, takeBack()) }
}

// keptSince returns what the backup has that is newer than what Redis has of the account. A grant that was removed
// since leaves the backup too.
func (r *Redis) keptSince(account string, stored reading) (Grant, bool) {
	if r.backup == nil {
		return Grant{}, false
	}
	kept, err := r.backup.Load(context.Background(), account)
	switch {
	case errors.Is(err, ErrNoGrant):
		return Grant{}, false
	case err != nil:
		r.degrade(DegradedBackup, err)
		return Grant{}, false
	case kept.Version > stored.newest():
		return kept, true
	case stored.removal != 0:
		r.drop(account)
	}
	return Grant{}, false
}

// drop removes a grant from the backup.
func (r *Redis) drop(account string) {
	if r.backup == nil {
		return
	}
	err := r.backup.Remove(context.Background(), account)
	if errors.Is(err, ErrNoGrant) {
		err = nil
	}
	r.degrade(DegradedBackup, err)
}

// kept lists the accounts in the backup.
func (r *Redis) kept() []string {
	if r.backup == nil {
		return nil
	}
	accounts, err := r.backup.Accounts(context.Background())
	r.degrade(DegradedBackup, err)
	return accounts
}
