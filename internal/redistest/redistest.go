// Package redistest starts real Redis servers for tests: one alone, a Cluster of three masters, a master that a Sentinel
// watches over. Each server listens on a free port of the loopback, keeps its files in a folder of the test's own and
// ends with the test. Only processes that were started here are ever signalled, by their ids.
//
// A redis-server that is not installed fails the test, with the command that installs it.
package redistest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"freeagent-proxy/internal/porttest"
)

const (
	// Password is the default user's, of a server that was started with User.
	Password = "default-password"

	// patience is far more than a server takes to start, or a Cluster or Sentinel to settle, on a busy machine. A Sentinel that
	// was not run for 2 s does nothing for 30 s (TILT), since it does not trust its clock.
	patience = 70 * time.Second
	pollEach = 10 * time.Millisecond
	install  = "apt-get install redis-server redis-sentinel"
)

// Server is one redis-server process, or what starts it again.
type Server struct {
	t       testing.TB
	program string   // redis-server or redis-sentinel
	dir     string   // its configuration, data and log
	port    int      // plain, or TLS
	lines   []string // of its configuration, but for the ports
	files   *Files   // nil: plain
	acl     bool
	clock   string // the file that says how far its clock was set; "": it is the machine's

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd did
}

// Option changes how a server is started.
type Option func(*Server)

// Set is a line of the server's configuration, such as Set("maxmemory", "2mb").
func Set(directive ...string) Option {
	return func(s *Server) { s.lines = append(s.lines, strings.Join(directive, " ")) }
}

// Persistent makes the server write each command to its disk before it answers, so that Restart brings all of it back.
func Persistent() Option {
	return func(s *Server) { s.lines = append(s.lines, "appendonly yes", "appendfsync always") }
}

// User adds an ACL user with the rules given, such as "~fap:*", "&*" and "+@all", and gives Password to the default user.
func User(name, password string, rules ...string) Option {
	return func(s *Server) {
		if !s.acl {
			s.lines = append(s.lines, "user default on >"+Password+" ~* &* +@all")
		}
		s.acl = true
		s.lines = append(s.lines, fmt.Sprintf("user %s on >%s %s", name, password, strings.Join(rules, " ")))
	}
}

// Start starts one server. Without options it is plain, open, and keeps nothing on disk unless SAVE is sent to it.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	return start(t, "redis-server", options...)
}

func start(t testing.TB, program string, options ...Option) *Server {
	t.Helper()
	s := &Server{t: t, program: program, dir: t.TempDir()}
	for _, o := range options {
		o(s)
	}
	for range 5 { // another process may take the port before the server does
		s.port = freePort(t)
		if s.launch() {
			t.Cleanup(s.Kill)
			return s
		}
	}
	t.Fatalf("%s does not start:\n%s", program, s.log())
	return nil
}

// launch starts the process and waits until it answers; false: it ended instead.
func (s *Server) launch() bool {
	s.t.Helper()
	path, err := exec.LookPath(s.program)
	if err != nil {
		s.t.Fatalf("%v; install it: %s", err, install)
	}
	s.configure()
	s.cmd = exec.Command(path, filepath.Join(s.dir, "redis.conf"))
	s.cmd.SysProcAttr = dieWithParent()
	s.cmd.Env = s.environment()
	if s.program == "redis-sentinel" {
		s.cmd.Args = append(s.cmd.Args, "--sentinel")
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	s.ended = ended
	go func(cmd *exec.Cmd) {
		defer close(ended)
		_ = cmd.Wait()
	}(s.cmd)
	client := redis.NewClient(s.Options())
	defer client.Close()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case <-ended:
			return false
		case <-time.After(pollEach):
		}
		var refused redis.Error // it answers, though it may be loading, or want more than a PING
		if err := client.Ping(s.t.Context()).Err(); err == nil || errors.As(err, &refused) && !redis.HasErrorPrefix(err, "LOADING") {
			return true
		}
	}
	s.t.Fatalf("%s does not answer:\n%s", s.program, s.log())
	return false
}

// configure writes the configuration; a Sentinel's forgets what it had learnt.
func (s *Server) configure() {
	s.t.Helper()
	port := []string{"port " + strconv.Itoa(s.port)}
	if s.files != nil {
		port = []string{"port 0", "tls-port " + strconv.Itoa(s.port)}
	}
	lines := slices.Concat(port, []string{
		"bind 127.0.0.1",
		"dir " + s.dir,
		"logfile " + filepath.Join(s.dir, "log"),
	}, s.lines)
	if s.program == "redis-server" {
		lines = append(lines, `save ""`, "repl-diskless-sync-delay 0")
	}
	if err := os.WriteFile(filepath.Join(s.dir, "redis.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) log() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(text)
}

// Addr is host and port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// PID is the process's id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Options are those of a client that may do all. Each call returns new ones, for the caller to change.
func (s *Server) Options() *redis.Options {
	o := &redis.Options{Addr: s.Addr(), TLSConfig: s.TLS()}
	if s.acl {
		o.Password = Password
	}
	return o
}

// TLS is a client's configuration, with its certificate; nil for a plain server.
func (s *Server) TLS() *tls.Config {
	if s.files == nil {
		return nil
	}
	return s.files.client.Clone()
}

// Files are the certificates of a server that was started with TLS.
func (s *Server) Files() Files { return *s.files }

// Client returns a client that may do all, and is closed when t ends.
func (s *Server) Client(t testing.TB) *redis.Client {
	t.Helper()
	return closing(t, redis.NewClient(s.Options()))
}

func closing[C redis.UniversalClient](t testing.TB, client C) C {
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Kill ends the process at once, with SIGKILL, and waits for that.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.ended
}

// Ended waits until the process has ended by itself.
func (s *Server) Ended() {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatalf("%s does not end:\n%s", s.program, s.log())
	}
}

// Stop halts the process, with SIGSTOP: its connections stay open and nothing answers.
func (s *Server) Stop() { s.signal(sigStop) }

// Cont lets a halted process go on.
func (s *Server) Cont() { s.signal(sigCont) }

func (s *Server) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.t.Fatalf("%v to %s: %v", signal, s.program, err)
	}
}

// Restart kills the process, if it runs, and starts it again on the same port with what is on its disk: all if it is
// Persistent, else what SAVE last wrote, else nothing.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if !s.launch() {
		s.t.Fatalf("%s does not start again:\n%s", s.program, s.log())
	}
}

// RestartEmpty is Restart without what is on the disk.
func (s *Server) RestartEmpty() {
	s.t.Helper()
	s.Kill()
	for _, data := range []string{"dump.rdb", "appendonlydir"} {
		if err := os.RemoveAll(filepath.Join(s.dir, data)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.Restart()
}

// freePort returns a port of the loopback on which nobody listens but who is told it, as often as that begins anew.
func freePort(t testing.TB) int {
	t.Helper()
	_, text, _ := net.SplitHostPort(porttest.Address(t))
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// until polls until done returns nil, and fails with its last error.
func until(t testing.TB, what string, done func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(pollEach) {
		if err = done(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}
