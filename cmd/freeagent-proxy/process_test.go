package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what should come soon, on a machine that is busy.
const patience = 30 * time.Second

// What must never be seen in anything that the program prints: the mark of all secrets that tests
// configure, and what every token and code of the simulator begins with.
const (
	mark       = "MARKED"
	tokenBegin = "c2ltdWxhdG9yOg"
)

const clientSecret = mark + "-client-secret"

// process is the program at work, see roleVariable.
type process struct {
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr transcript
	ended          chan struct{} // closed when it has been waited for
}

// launch starts the program. Whoever does it calls kill at last, and complaints.
func launch(dir string, env []string, args ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := prepare(dir, env, exe, args...)
	return p, p.begin()
}

// prepare makes what begin starts: the program, or one that becomes it.
func prepare(dir string, env []string, name string, args ...string) *process {
	p := &process{ended: make(chan struct{}), cmd: exec.Command(name, args...)}
	p.cmd.Dir = dir
	p.cmd.Env = append([]string{
		roleVariable + "=" + roleProgram,
		"GORACE=atexit_sleep_ms=0", // or each exit takes a second
	}, env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	return p
}

func (p *process) begin() (err error) {
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.cmd.Wait() // the exit code says it
		close(p.ended)
	}()
	return nil
}

// start is launch for as long as the test runs.
func start(t testing.TB, dir string, env []string, args ...string) *process {
	t.Helper()
	p, err := launch(dir, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.finish(t))
	return p
}

// finish ends the process with its test.
func (p *process) finish(t testing.TB) func() {
	return func() {
		p.kill()
		for _, complaint := range p.complaints() {
			t.Error(complaint)
		}
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// wait returns the exit code, or an error if it does not end.
func (p *process) wait() (code int, err error) {
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		return 0, fmt.Errorf("%s does not end; stdout: %s\nstderr: %s", p, &p.stdout, &p.stderr)
	}
}

// stop sends a signal and waits for the end.
func (p *process) stop(s os.Signal) (code int, err error) {
	if err := p.cmd.Process.Signal(s); err != nil {
		return 0, fmt.Errorf("%s: %w; stderr: %s", p, err, &p.stderr)
	}
	return p.wait()
}

// halt stops the process by SIGSTOP, and waits until none of its threads runs.
func (p *process) halt(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stop of "+p.String(), func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		return err == nil && !slices.ContainsFunc(threads, func(file string) bool {
			stat, err := os.ReadFile(file) // 1 (name) T …
			return err == nil && !bytes.Contains(stat, []byte(") T "))
		})
	})
}

func (p *process) String() string { return "freeagent-proxy " + strings.Join(p.cmd.Args[1:], " ") }

// await returns the submatches of what the process has printed, as soon as it has. Of its log that is whole lines alone: what has
// been read so far may end within one.
func (p *process) await(t *transcript, pattern string) ([]string, error) {
	re := regexp.MustCompile(pattern)
	deadline := time.After(patience)
	for {
		text, grown := t.read()
		if t == &p.stderr {
			text = text[:strings.LastIndex(text, "\n")+1]
		}
		if found := re.FindStringSubmatch(text); found != nil {
			return found, nil
		}
		select {
		case <-grown:
		case <-p.ended:
			if text, _ := t.read(); re.MatchString(text) {
				continue
			}
			return nil, fmt.Errorf("%s ended without printing %q; stdout: %s\nstderr: %s", p, pattern, &p.stdout, &p.stderr)
		case <-deadline:
			return nil, fmt.Errorf("%s does not print %q; stdout: %s\nstderr: %s", p, pattern, &p.stdout, &p.stderr)
		}
	}
}

// printed is await for the standard output.
func (p *process) printed(pattern string) ([]string, error) { return p.await(&p.stdout, pattern) }

// listening returns the addresses that a serve process has logged: those for programs, then the operator's.
func (p *process) listening() ([]string, error) {
	// The operator's line comes after the others.
	if _, err := p.await(&p.stderr, `"serving the operator"`); err != nil {
		return nil, err
	}
	var addresses []string
	for line := range strings.Lines(p.stderr.String()) {
		var logged struct{ Msg, Listen string }
		if json.Unmarshal([]byte(line), &logged) == nil && strings.HasPrefix(logged.Msg, "serving ") {
			addresses = append(addresses, logged.Listen)
		}
	}
	return addresses, nil
}

// complaints are what no process may do, whatever it is there for.
func (p *process) complaints() []string {
	var all []string
	for name, text := range map[string]string{"stdout": p.stdout.String(), "stderr": p.stderr.String()} {
		for _, never := range []string{mark, tokenBegin, "DATA RACE", "panic", "goroutine "} {
			if strings.Contains(text, never) {
				all = append(all, fmt.Sprintf("%s: %q in its %s: %s", p, never, name, text))
			}
		}
	}
	logsJSON := p.logsJSON()
	for line := range strings.Lines(p.stderr.String()) {
		if strings.HasPrefix(line, "freeagent-proxy: ") {
			break // from here on it is why the program failed
		}
		whole := strings.HasSuffix(line, "\n") // it may have been killed while it wrote
		if logsJSON && whole && !json.Valid([]byte(line)) {
			all = append(all, fmt.Sprintf("%s logged what is not JSON: %q", p, line))
		}
	}
	return all
}

func (p *process) logsJSON() bool { return strings.HasPrefix(p.stderr.String(), "{") }

// transcript is what a process has printed so far.
type transcript struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed when there is more; nil while nobody waits
}

func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.grown != nil {
		close(t.grown)
		t.grown = nil
	}
	return t.text.Write(b)
}

func (t *transcript) read() (text string, grown <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.grown == nil {
		t.grown = make(chan struct{})
	}
	return t.text.String(), t.grown
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}
