package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"freeagent-proxy/tokens"
)

// manager is who started the program, as systemd does: it hears what it is told.
type manager struct {
	t    *testing.T
	name string      // for NOTIFY_SOCKET
	said chan string // all of it: the socket's own queue is short, and what finds it full is lost
}

// newManager listens at a path, or at an abstract name.
func newManager(t *testing.T, abstract bool) *manager {
	t.Helper()
	folder, err := os.MkdirTemp("", "fap")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	m := &manager{t: t, name: filepath.Join(folder, "notify"), said: make(chan string, 100_000)}
	if abstract {
		m.name = "@" + m.name
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	hearing := inBackground(func() {
		for buffer := make([]byte, 4096); ; {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			m.said <- string(buffer[:n])
		}
	})
	t.Cleanup(func() {
		conn.Close()
		hearing.Wait()
	})
	return m
}

// hears waits for a message that contains all of this, and returns it.
func (m *manager) hears(patience time.Duration, want ...string) string {
	m.t.Helper()
	said, err := m.listen(patience, want...)
	if err != nil {
		m.t.Fatalf("does not hear %q: %v", want, err)
	}
	return said
}

func (m *manager) listen(patience time.Duration, want ...string) (string, error) {
	deadline := time.After(patience)
	for heard := []string(nil); ; {
		select {
		case said := <-m.said:
			if !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(said, w) }) {
				return said, nil
			}
			heard = append(heard, said)
		case <-deadline:
			return "", fmt.Errorf("not for %s; heard: %s", patience, strings.Join(heard, " | "))
		}
	}
}

// falls waits until nothing has been said for so long.
func (m *manager) falls(silent time.Duration) {
	m.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err := m.listen(silent); err != nil {
			return
		}
	}
	m.t.Fatal("it goes on saying that it lives")
}

// systemd hears when the proxy is ready, how it stands, that it lives, when it reloads and when it stops.
func TestNotify(t *testing.T) {
	for _, abstract := range []bool{false, true} {
		t.Run(fmt.Sprintf("abstract=%v", abstract), func(t *testing.T) { t.Parallel(); notified(t, newManager(t, abstract)) })
	}
}

func notified(t *testing.T, m *manager) {
	w := newSimulated(t, simNoLimits, "")
	w.configure(w.simURL, reloadable+noLimits)
	freeAgent := w.bar("/v2/company")
	freeAgent.let()
	w.env = append(w.env, "NOTIFY_SOCKET="+m.name, "WATCHDOG_USEC="+strconv.Itoa(int((300*time.Millisecond).Microseconds())))
	r := &reloaded{world: w, client: w.client(false), proxy: w.start("serve")}
	m.hears(patience, "STATUS=starting")
	m.hears(patience, "READY=1")
	addresses, err := r.proxy.listening()
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + addresses[0]
	r.gets(http.StatusServiceUnavailable, "/v2/company") // ready is not authorised
	m.hears(patience, "STATUS=serving, 0 of 1 account ready; account acme needs authorisation")
	w.authorise(w.sim.Authorize("owner"))
	m.hears(patience, "WATCHDOG=1", "STATUS=serving, 1 account ready")

	before := monotonic()
	r.become(noLimits, "nothing")
	said := m.hears(patience, "RELOADING=1", "MONOTONIC_USEC=")
	_, text, _ := strings.Cut(said, "MONOTONIC_USEC=")
	if at, err := strconv.ParseInt(text, 10, 64); err != nil || at < before.Microseconds() || at > monotonic().Microseconds() {
		t.Errorf("reloading at %q, want microseconds from %d", text, before.Microseconds())
	}
	m.hears(patience, "READY=1")
	write(t, filepath.Join(w.folder, "config.yaml"), "nonsense: 1")
	r.says("unknown key")
	m.hears(patience, "RELOADING=1")
	m.hears(patience, "READY=1")
	m.hears(patience, "STATUS=serving by the former configuration")
	r.become(noLimits, "nothing")

	freeAgent.shut()
	seen := len(w.arrivals())
	var slow sync.WaitGroup
	slow.Go(func() { r.gets(http.StatusOK, "/v2/company") })
	eventually(t, "the request at FreeAgent", func() bool { return len(w.arrivals()) > seen })
	if err := r.proxy.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.hears(patience, "STOPPING=1", "EXTEND_TIMEOUT_USEC=")
	m.hears(patience, "WATCHDOG=1")
	m.hears(patience, "EXTEND_TIMEOUT_USEC=") // again: it goes on
	freeAgent.let()
	slow.Wait()
	if code, err := r.proxy.wait(); err != nil || code != exitOK {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// A process that does not run gives no sign of life, and one that runs again does.
func TestWatchdogOfStoppedProcess(t *testing.T) {
	t.Parallel()
	m := newManager(t, false)
	w := newSimulated(t, simNoLimits, noLimits)
	w.env = append(w.env, "NOTIFY_SOCKET="+m.name, "WATCHDOG_USEC=200000")
	p, _ := w.serve()
	m.hears(patience, "WATCHDOG=1")
	p.halt(t)
	m.falls(300 * time.Millisecond)
	if said, err := m.listen(time.Second); err == nil {
		t.Errorf("a stopped process says %q", said)
	}
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	m.hears(patience, "WATCHDOG=1")
}

// A process in which requests hang gives no sign of life, and one that gets over it does: here whoever asks for an account's app
// hangs, with the account's lock held.
func TestWatchdogOfDeadlock(t *testing.T) {
	ctx := context.Background()
	upstream, _ := parseURL("http://127.0.0.1:1")
	cfg := demoConfig(upstream, t.TempDir(), "")
	cfg.Seed = Secret{}
	s, err := newServer(ctx, cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.close(ctx) }()
	name, _ := cfg.DefaultAccount()
	if got, want := s.standing(), "serving, 0 of 1 account ready; account "+name+" needs authorisation"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := s.tokens.Close(ctx); err != nil {
		t.Fatal(err)
	}
	var stuck atomic.Bool
	held, free := make(chan struct{}, 1), make(chan struct{})
	s.tokens = tokens.New(tokens.Config{Store: s.store, Endpoint: newEndpoint(cfg), App: func(string) (tokens.App, bool) {
		if stuck.Load() {
			select {
			case held <- struct{}{}:
			default:
			}
			<-free
		}
		return tokens.App{}, true
	}})
	m := newManager(t, false)
	n := newNotifier(fakeEnv("NOTIFY_SOCKET="+m.name, "WATCHDOG_USEC=100000", "WATCHDOG_PID="+strconv.Itoa(os.Getpid())), zap.NewNop())
	defer n.attend(s.standing)()
	m.hears(patience, "WATCHDOG=1", "STATUS=serving")
	stuck.Store(true)
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	asking.Go(func() { _, _ = s.tokens.Token(ctx, name) })
	<-held
	cancel()
	m.falls(300 * time.Millisecond)
	if said, err := m.listen(500 * time.Millisecond); err == nil {
		t.Errorf("amid a deadlock it says %q", said)
	}
	stuck.Store(false)
	close(free)
	m.hears(patience, "WATCHDOG=1")
}

// What is for this process alone is not handed on to programs that it starts, nor heeded if it is for another one.
func TestNotifyIsForUsAlone(t *testing.T) {
	for _, name := range notifyVariables {
		t.Setenv(name, "/nobody")
	}
	getenv := environment()
	for _, name := range notifyVariables {
		if got := getenv(name); got != "/nobody" {
			t.Errorf("%s: got %q", name, got)
		}
		if left, there := os.LookupEnv(name); there {
			t.Errorf("%s is handed on: %q", name, left)
		}
	}
	m := newManager(t, false)
	n := newNotifier(fakeEnv("NOTIFY_SOCKET="+m.name, "WATCHDOG_USEC=1000000", "WATCHDOG_PID=1"), zap.NewNop())
	if n.watchdog != 0 {
		t.Error("another process's watchdog is heeded")
	}
	if n := newNotifier(fakeEnv(), zap.NewNop()); n != nil {
		t.Error("somebody is told, though nobody asked")
	}
}
