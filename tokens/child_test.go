package tokens_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"freeagent-proxy/tokens"
)

// child is what the test binary does as another process: it opens the folder that it runs in
// (nobody could reach it by its path) and plays a role.
func child(role string) int {
	if role == "replica" {
		call, err := time.ParseDuration(os.Getenv("TOKENS_TEST_CALL"))
		if err == nil {
			err = childReplica(os.Getenv("TOKENS_TEST_REDIS"), os.Getenv("TOKENS_TEST_ENDPOINT"), os.Getenv("TOKENS_TEST_KEY"), call)
		}
		fmt.Println(err)
		return 1
	}
	if err := prepareChild(role); err != nil {
		fmt.Println(err)
		return 2
	}
	f, err := tokens.OpenFile(tokens.FileConfig{Dir: "."})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer f.Close()
	ctx := context.Background()
	switch role {
	case "hold": // until it is killed
		fmt.Println("open")
		time.Sleep(time.Minute)
	case "write": // the same
		stored, err := f.Load(ctx, account)
		for ; err == nil || errors.Is(err, tokens.ErrNoGrant); fmt.Println(stored.Version) {
			next := tokens.Grant{Account: account, RefreshToken: strings.Repeat("x", 2000), Version: stored.Version + 1}
			if err = f.Save(ctx, next, stored.Version); err == nil {
				stored = next
			}
		}
		fmt.Println(err)
	default: // "confined", "full": a try to write
		_, err := f.Lock(ctx, account)
		fmt.Println("lock:", err)
		next := tokens.Grant{Account: account, RefreshToken: strings.Repeat("x", 3000), Version: 2}
		fmt.Println("save:", f.Save(ctx, next, 1))
		if role == "confined" {
			fmt.Println("remove:", f.Remove(ctx, account))
		}
	}
	return 0
}

// prepareChild makes "confined" an unprivileged process, and "full" one that cannot write any file of more than 100 bytes.
func prepareChild(role string) error {
	switch {
	case role == "full":
		signal.Ignore(syscall.SIGXFSZ)
		return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 100, Max: 100})
	case role == "confined" && os.Getuid() == 0:
		return errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody))
	}
	return nil
}

const nobody = 65534

func start(t *testing.T, role, dir string) (cmd *exec.Cmd, lines *bufio.Scanner) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TOKENS_TEST_CHILD="+role)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// run plays a role to its end and returns what it printed.
func run(t *testing.T, role, dir string) string {
	t.Helper()
	cmd, lines := start(t, role, dir)
	var out strings.Builder
	for lines.Scan() {
		out.WriteString(lines.Text() + "\n")
	}
	_ = cmd.Wait()
	return out.String()
}

func TestSecondProcess(t *testing.T) {
	dir, _ := folder(t)
	first := openFile(t, tokens.FileConfig{Dir: dir})
	if got := run(t, "hold", dir); !strings.Contains(got, "in use by another freeagent-proxy") || !strings.Contains(got, "folder .") {
		t.Errorf("the second process says %q", got)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	cmd, lines := start(t, "hold", dir)
	if !lines.Scan() || lines.Text() != "open" {
		t.Fatalf("the process says %q", lines.Text())
	}
	if _, err := load(t, tokens.FileConfig{Dir: dir}); !errors.Is(err, tokens.ErrLocked) || !errors.Is(err, tokens.ErrStore) {
		t.Errorf("OpenFile beside it: %v, want ErrLocked", err)
	}
	if _, err := load(t, tokens.FileConfig{Dir: dir, ReadOnly: true}); err != nil {
		t.Errorf("OpenFile for reading beside it: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, err := load(t, tokens.FileConfig{Dir: dir}); err != nil {
		t.Errorf("OpenFile after it was killed: %v", err)
	}
}

// A process that writes all the time is killed at random instants: what it had stored is there,
// and the folder is never unreadable.
func TestKilledWhileWriting(t *testing.T) {
	dir := t.TempDir()
	var stored int64
	for round := range 40 {
		cmd, lines := start(t, "write", dir)
		if !lines.Scan() {
			t.Fatalf("round %d: the process wrote nothing", round)
		}
		kill := time.AfterFunc(rand.N(20*time.Millisecond), func() { _ = cmd.Process.Kill() })
		for more := true; more; more = lines.Scan() {
			if _, err := fmt.Sscan(lines.Text(), &stored); err != nil {
				t.Fatalf("round %d: the process says %q", round, lines.Text())
			}
		}
		_ = cmd.Wait()
		kill.Stop()
		g, err := load(t, tokens.FileConfig{Dir: dir})
		if err != nil || g.Version < stored {
			t.Fatalf("round %d: version %d, %v; want at least %d", round, g.Version, err, stored)
		}
	}
	if stored < 40 {
		t.Errorf("only %d writes", stored)
	}
}

// A full disk: a clear error, nothing overwritten, and the lock says so before a refresh token is spent.
func TestFullDisk(t *testing.T) {
	dir, grant := folder(t)
	before := read(t, grant)
	got := run(t, "full", dir)
	for _, want := range []string{"lock: grant store: write ", "save: grant store: write grants/acme.grant: file too large; free some space"} {
		if !strings.Contains(got, want) {
			t.Errorf("said:\n%swant %q", got, want)
		}
	}
	if string(read(t, grant)) != string(before) {
		t.Error("overwritten")
	}
	entries, err := filepath.Glob(filepath.Join(dir, "grants", ".*"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// A folder that the process may read but not write.
func TestReadOnlyFolder(t *testing.T) {
	dir, grant := folder(t)
	before := read(t, grant)
	if os.Getuid() == 0 { // who may write everywhere; the child is nobody
		for _, path := range []string{dir, filepath.Join(dir, "grants"), filepath.Join(dir, "key"), filepath.Join(dir, "lock"), grant} {
			if err := os.Chown(path, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
	}
	chmod := func(mode fs.FileMode) {
		for _, path := range []string{filepath.Join(dir, "grants"), dir} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	chmod(0o500)
	defer chmod(0o700)
	got := run(t, "confined", dir)
	for _, want := range []string{
		"lock: grant store: write grants/.probe: permission denied; make it readable and writable",
		"save: grant store: write grants/acme.grant: permission denied; make it readable and writable",
		"remove: grant store: remove grants/acme.grant: permission denied; make it readable and writable",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("said:\n%swant %q", got, want)
		}
	}
	if string(read(t, grant)) != string(before) {
		t.Error("overwritten")
	}
}
