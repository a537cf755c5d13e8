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
	"time"

	"freeagent-proxy/tokens"
)

func openFile(t *testing.T, cfg tokens.FileConfig) *tokens.File {
	t.Helper()
	f, err := tokens.OpenFile(cfg)
	if err != nil {
		t.Fatalf("OpenFile: %v", err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return f
}

// folder makes a store with one grant, sealed with these keys or its own, and closes it.
func folder(t *testing.T, keys ...tokens.Key) (dir, grant string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "state", "freeagent-proxy")
	f, err := tokens.OpenFile(tokens.FileConfig{Dir: dir, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	g := tokens.Grant{Account: account, AccessToken: secret + "-access", RefreshToken: secret + "-refresh", Version: 1}
	if err := errors.Join(f.Save(context.Background(), g, 0), f.Close()); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, "grants", "acme.grant")
}

func load(t *testing.T, cfg tokens.FileConfig) (tokens.Grant, error) {
	t.Helper()
	f, err := tokens.OpenFile(cfg)
	if err != nil {
		return tokens.Grant{}, err
	}
	defer f.Close()
	return f.Load(context.Background(), account)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFileIsPrivate(t *testing.T) {
	dir, grant := folder(t)
	for path, want := range map[string]fs.FileMode{
		dir: 0o700 | fs.ModeDir, filepath.Join(dir, "grants"): 0o700 | fs.ModeDir,
		grant: 0o600, filepath.Join(dir, "key"): 0o600, filepath.Join(dir, "lock"): 0o600,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if bytes.Contains(read(t, grant), []byte(secret)) {
		t.Error("the grant is not sealed")
	}
	entries, err := filepath.Glob(filepath.Join(dir, "*", ".*"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// What cannot be opened is not overwritten, whatever is wrong with it.
func TestUnreadableGrantIsNotOverwritten(t *testing.T) {
	key := newKey(t, "2026")
	dir, grant := folder(t, key)
	sealed := read(t, grant)
	damaged := bytes.Clone(sealed)
	damaged[len(damaged)/2] ^= 1
	ctx := context.Background()
	for name, c := range map[string]struct {
		content []byte
		key     tokens.Key
	}{
		"wrong key":     {sealed, newKey(t, "2026")},
		"unknown key":   {sealed, newKey(t, "2027")},
		"damaged":       {damaged, key},
		"cut":           {sealed[:len(sealed)-1], key},
		"empty":         {[]byte{}, key},
		"newer version": {bytes.Replace(sealed, []byte("grant 1"), []byte("grant 2"), 1), key},
		"other account": {newSealer(t, key).Seal("other", []byte(`{"account":"other"}`)), key},
		"not a grant":   {newSealer(t, key).Seal(account, []byte(secret)), key},
	} {
		write(t, grant, c.content)
		f, err := tokens.OpenFile(tokens.FileConfig{Dir: dir, Keys: []tokens.Key{c.key}})
		if err != nil {
			t.Fatalf("%s: OpenFile: %v", name, err)
		}
		_, loadErr := f.Load(ctx, account)
		for what, err := range map[string]error{
			"Load":             loadErr,
			"Save as new":      f.Save(ctx, tokens.Grant{Account: account, RefreshToken: "x", Version: 2}, 0),
			"Save as the next": f.Save(ctx, tokens.Grant{Account: account, RefreshToken: "x", Version: 2}, 1),
		} {
			if !errors.Is(err, tokens.ErrStore) || errors.Is(err, tokens.ErrNoGrant) || errors.Is(err, tokens.ErrConflict) {
				t.Errorf("%s: %s: %v, want ErrStore", name, what, err)
			} else if !strings.Contains(err.Error(), grant) || strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %s: %v; want the file named, and no secret", name, what, err)
			}
		}
		if got, err := f.Accounts(ctx); err != nil || len(got) != 1 {
			t.Errorf("%s: Accounts = %v, %v; want the one there is", name, got, err)
		}
		if !bytes.Equal(read(t, grant), c.content) {
			t.Errorf("%s: overwritten", name)
		}
		if name == "wrong key" {
			if err := f.Remove(ctx, account); err != nil {
				t.Errorf("Remove, an operator's command: %v", err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A grant that was cut at any byte is an error, never another grant.
func TestCutGrant(t *testing.T) {
	key := newKey(t, "2026")
	dir, grant := folder(t, key)
	sealed := read(t, grant)
	f := openFile(t, tokens.FileConfig{Dir: dir, Keys: []tokens.Key{key}})
	for i := range sealed {
		write(t, grant, sealed[:i])
		if _, err := f.Load(context.Background(), account); !errors.Is(err, tokens.ErrStore) {
			t.Fatalf("cut at %d: %v, want ErrStore", i, err)
		}
	}
}

// A manager on a grant that cannot be read spends nothing, and goes on when it is restored.
func TestManagerOnAnUnreadableGrant(t *testing.T) {
	agent := newFreeAgent()
	dir := t.TempDir()
	key := newKey(t, "2026")
	f := openFile(t, tokens.FileConfig{Dir: dir, Keys: []tokens.Key{key}})
	ctx := context.Background()
	if err := f.Save(ctx, tokens.Grant{Account: account, RefreshToken: agent.grant(), Version: 1}, 0); err != nil {
		t.Fatal(err)
	}
	grant := filepath.Join(dir, "grants", "acme.grant")
	sealed := read(t, grant)
	write(t, grant, sealed[:50])
	r := newRigOn(t, agent, f, agent.listen(t, 0))
	if err := r.Start(ctx, []string{account}); !errors.Is(err, tokens.ErrStore) || !strings.Contains(err.Error(), grant) {
		t.Errorf("Start: %v, want ErrStore that names the file", err)
	}
	if reason := r.state(tokens.StateTrouble).Reason; !strings.Contains(reason, grant) {
		t.Errorf("reason %q does not name the file", reason)
	}
	write(t, grant, sealed)
	r.token()
	r.refreshes(1)
}

func TestLeftoversAreClearedAway(t *testing.T) {
	dir, grant := folder(t)
	leftovers := []string{
		filepath.Join(dir, "grants", ".acme.grant123456"), filepath.Join(dir, "grants", ".probe"), filepath.Join(dir, ".key99"),
	}
	others := []string{filepath.Join(dir, "grants", ".keep"), filepath.Join(dir, "control.sock"), filepath.Join(dir, "grants", "notes.txt")}
	for _, path := range append(leftovers, others...) {
		write(t, path, []byte("x"))
	}
	if _, err := load(t, tokens.FileConfig{Dir: dir, ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(leftovers[0]); err != nil {
		t.Error("a read-only store cleared something away")
	}
	if _, err := load(t, tokens.FileConfig{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	for _, path := range leftovers {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there", path)
		}
	}
	for _, path := range append(others, grant) {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s is gone", path)
		}
	}
}

func TestReadOnly(t *testing.T) {
	dir, _ := folder(t)
	ctx := context.Background()
	writer := openFile(t, tokens.FileConfig{Dir: dir})
	reader := openFile(t, tokens.FileConfig{Dir: dir, ReadOnly: true})
	if got, err := reader.Load(ctx, account); err != nil || got.Version != 1 {
		t.Errorf("Load beside the writer = %v, %v", got, err)
	}
	if err := writer.Save(ctx, tokens.Grant{Account: account, RefreshToken: "next", Version: 2}, 1); err != nil {
		t.Fatal(err)
	}
	if got, err := reader.Load(ctx, account); err != nil || got.Version != 2 {
		t.Errorf("Load after the writer wrote = %v, %v", got, err)
	}
	_, lockErr := reader.Lock(ctx, account)
	for what, err := range map[string]error{
		"Save": reader.Save(ctx, tokens.Grant{Account: account, Version: 3}, 2), "Remove": reader.Remove(ctx, account), "Lock": lockErr,
	} {
		if !errors.Is(err, tokens.ErrStore) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v, want ErrStore", what, err)
		}
	}

	missing := filepath.Join(t.TempDir(), "none")
	empty := openFile(t, tokens.FileConfig{Dir: missing, ReadOnly: true})
	if got, err := empty.Accounts(ctx); err != nil || len(got) != 0 {
		t.Errorf("Accounts of a folder that does not exist = %v, %v", got, err)
	}
	if _, err := empty.Load(ctx, account); !errors.Is(err, tokens.ErrNoGrant) {
		t.Errorf("Load from a folder that does not exist: %v, want ErrNoGrant", err)
	}
	if _, err := os.Stat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a read-only store made its folder")
	}
	folderMade := openFile(t, tokens.FileConfig{Dir: missing})
	if err := folderMade.Save(ctx, tokens.Grant{Account: account, RefreshToken: "x", Version: 1}, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := empty.Load(ctx, account); !errors.Is(err, tokens.ErrStore) {
		t.Errorf("Load of what came after it was opened: %v, want ErrStore", err)
	}
}

// Whoever reads alone keeps writers out, and is kept out by them.
func TestReadOnlyAlone(t *testing.T) {
	dir, _ := folder(t)
	alone := tokens.FileConfig{Dir: dir, ReadOnly: true, Alone: true}
	reader := openFile(t, alone)
	if got, err := reader.Load(context.Background(), account); err != nil || got.Version != 1 {
		t.Errorf("Load = %v, %v", got, err)
	}
	if _, err := tokens.OpenFile(tokens.FileConfig{Dir: dir}); !errors.Is(err, tokens.ErrLocked) {
		t.Errorf("a writer beside it: %v, want ErrLocked", err)
	}
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	openFile(t, tokens.FileConfig{Dir: dir})
	if _, err := tokens.OpenFile(alone); !errors.Is(err, tokens.ErrLocked) {
		t.Errorf("beside a writer: %v, want ErrLocked", err)
	}
}

func TestClosedFile(t *testing.T) {
	dir, _ := folder(t)
	ctx := context.Background()
	f := openFile(t, tokens.FileConfig{Dir: dir})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	openFile(t, tokens.FileConfig{Dir: dir}) // the next one
	_, lockErr := f.Lock(ctx, account)
	for what, err := range map[string]error{
		"Save": f.Save(ctx, tokens.Grant{Account: account, Version: 2}, 1), "Remove": f.Remove(ctx, account), "Lock": lockErr,
	} {
		if !errors.Is(err, tokens.ErrStore) {
			t.Errorf("%s after Close: %v, want ErrStore", what, err)
		}
	}
}

// A folder that is gone, like a volume that was unmounted, is no grant that was removed: a manager
// goes on from memory, and all is well when the folder is back.
func TestFolderIsGone(t *testing.T) {
	agent := newFreeAgent()
	dir := filepath.Join(t.TempDir(), "store")
	f := openFile(t, tokens.FileConfig{Dir: dir})
	r := newRigOn(t, agent, f, agent.listen(t, 0))
	r.authorised()
	stored := r.stored()
	gone := dir + ".gone"
	ctx := context.Background()
	r.agent.trouble = func() { // just when the store is to be written
		if err := os.Rename(dir, gone); err != nil {
			t.Error(err)
		}
	}
	g := stored
	g.ExpiresAt = g.ObtainedAt
	if err := r.Put(ctx, g); err != nil {
		t.Fatal(err)
	}
	if got := bearer(t, r.token()); got != 3 {
		t.Errorf("token %d, want 3", got)
	}
	_, loadErr := f.Load(ctx, account)
	_, listErr := f.Accounts(ctx)
	for what, err := range map[string]error{
		"Load": loadErr, "Accounts": listErr, "Remove": f.Remove(ctx, account), "Save": f.Save(ctx, stored, 0),
	} {
		if !errors.Is(err, tokens.ErrStore) || errors.Is(err, tokens.ErrNoGrant) || !strings.Contains(err.Error(), "mount or restore it") {
			t.Errorf("%s: %v, want ErrStore that says what to do", what, err)
		}
	}
	if err := os.Rename(gone, dir); err != nil {
		t.Fatal(err)
	}
	if err := r.closeWithin(10 * time.Second); err != nil {
		t.Errorf("Close: %v", err)
	}
	if got, want := r.stored().AccessToken, secret+"-access-3="; got != want {
		t.Errorf("stored %q, want %q", got, want)
	}
}

// Things in the place of other things.
func TestInTheWay(t *testing.T) {
	for name, prepare := range map[string]func(dir string) (path string){
		"a file instead of the folder": func(dir string) string { write(t, dir, nil); return dir },
		"a file instead of grants": func(dir string) string {
			_ = os.MkdirAll(dir, 0o700)
			path := filepath.Join(dir, "grants")
			write(t, path, nil)
			return path
		},
		"a folder instead of the key": func(dir string) string {
			path := filepath.Join(dir, "key")
			_ = os.MkdirAll(path, 0o700)
			return path
		},
	} {
		dir := filepath.Join(t.TempDir(), "store")
		path := prepare(dir)
		_, err := load(t, tokens.FileConfig{Dir: dir})
		if !errors.Is(err, tokens.ErrStore) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want ErrStore that names %s", name, err, path)
		}
	}
	dir, grant := folder(t)
	if err := errors.Join(os.Remove(grant), os.Mkdir(grant, 0o700)); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, tokens.FileConfig{Dir: dir})
	if err := f.Save(context.Background(), tokens.Grant{Account: account, Version: 1}, 0); !errors.Is(err, tokens.ErrStore) || !strings.Contains(err.Error(), "out of the way") {
		t.Errorf("Save over a folder: %v", err)
	}
}
