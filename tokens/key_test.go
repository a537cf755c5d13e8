package tokens_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"freeagent-proxy/tokens"
)

func TestOwnKey(t *testing.T) {
	dir, grant := folder(t)
	path := filepath.Join(dir, "key")
	key := read(t, path)
	if _, err := load(t, tokens.FileConfig{Dir: dir}); err != nil {
		t.Errorf("with its own key: %v", err)
	}
	if !bytes.Equal(read(t, path), key) {
		t.Error("the key was written again")
	}

	sealed := read(t, grant)
	for name, content := range map[string][]byte{"missing": nil, "empty": {}, "cut": key[:20], "another": []byte(tokens.NewKey())} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if content != nil {
			write(t, path, content)
		}
		_, err := load(t, tokens.FileConfig{Dir: dir})
		if !errors.Is(err, tokens.ErrStore) || errors.Is(err, tokens.ErrNoGrant) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v, want ErrStore that names the file", name, err)
		}
		if _, err := os.Stat(path); content == nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error("a new key was made although there are grants")
		}
		write(t, path, key)
	}
	if !bytes.Equal(read(t, grant), sealed) {
		t.Error("the grant was written")
	}
	if _, err := load(t, tokens.FileConfig{Dir: dir}); err != nil {
		t.Errorf("with its key restored: %v", err)
	}
}

// Keys that are configured later take over what the store's own key had sealed.
func TestKeyRotation(t *testing.T) {
	dir, grant := folder(t)
	first, second := newKey(t, "first"), newKey(t, "second")
	ctx := context.Background()
	if got, err := load(t, tokens.FileConfig{Dir: dir, Keys: []tokens.Key{first}}); err != nil || got.RefreshToken != secret+"-refresh" {
		t.Fatalf("Load: %v", err)
	}
	if !bytes.HasPrefix(read(t, grant), []byte("freeagent-proxy grant 1 key=first\n")) {
		t.Error("not sealed anew when it was opened")
	}
	if err := os.Remove(filepath.Join(dir, "key")); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, tokens.FileConfig{Dir: dir, Keys: []tokens.Key{first}}); err != nil {
		t.Errorf("without the own key: %v", err)
	}

	// Read only, nothing is sealed anew; both keys open.
	if _, err := load(t, tokens.FileConfig{Dir: dir, Keys: []tokens.Key{second, first}, ReadOnly: true}); err != nil {
		t.Errorf("read only: %v", err)
	}
	if !bytes.Contains(read(t, grant), []byte("key=first\n")) {
		t.Error("written though read only")
	}
	f := openFile(t, tokens.FileConfig{Dir: dir, Keys: []tokens.Key{second, first}})
	if err := f.Save(ctx, tokens.Grant{Account: account, RefreshToken: "next", Version: 2}, 1); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, tokens.FileConfig{Dir: dir, Keys: []tokens.Key{second}}); err != nil {
		t.Errorf("with the new key alone: %v", err)
	}
	if _, err := load(t, tokens.FileConfig{Dir: dir, Keys: []tokens.Key{first}}); !errors.Is(err, tokens.ErrStore) || !strings.Contains(err.Error(), `"second"`) {
		t.Errorf("with the old key alone: %v, want ErrStore that names the key", err)
	}
}

// What everybody may read or replace protects nothing; a group may, as some volumes are mounted so.
func TestOpenToEverybody(t *testing.T) {
	for _, c := range []struct {
		file string
		mode fs.FileMode
		ok   bool
	}{{"key", 0o604, false}, {"key", 0o660, true}, {"", 0o707, false}, {"", 0o775, true}} {
		dir, _ := folder(t)
		path := filepath.Join(dir, c.file)
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := load(t, tokens.FileConfig{Dir: dir})
		if c.ok && err != nil {
			t.Errorf("%s %04o: %v", path, c.mode, err)
		}
		if !c.ok && (!errors.Is(err, tokens.ErrStore) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "chmod")) {
			t.Errorf("%s %04o: %v, want ErrStore that says what to do", path, c.mode, err)
		}
	}
}
