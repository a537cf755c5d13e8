package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// activate starts the program as systemd does: with sockets from descriptor 3 on, and LISTEN_PID naming the program's own
// process. A shell that becomes the program knows that number beforehand.
func activate(w *world, names string, sockets []*os.File, args ...string) *process {
	w.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	p := prepare(w.folder, append([]string{"LISTEN_FDNAMES=" + names}, w.env...), "/bin/sh",
		append([]string{"-c", `LISTEN_PID=$$ LISTEN_FDS=` + string(rune('0'+len(sockets))) + ` exec "$0" "$@"`, exe}, args...)...)
	p.cmd.ExtraFiles = sockets
	if err := p.begin(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(p.finish(w.t))
	return p
}

// dialable is where a listener listens, in the form that listen takes.
func dialable(listener net.Listener) string {
	if listener.Addr().Network() == "unix" {
		return unixPrefix + listener.Addr().String()
	}
	return listener.Addr().String()
}

// socket is a listening socket as systemd holds it, and where it listens.
func socket(t *testing.T, network, address string) (*os.File, string) {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	if unix, ok := listener.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false)
	}
	file, err := listener.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	t.Cleanup(func() { _ = file.Close() })
	return file, dialable(listener)
}

func status(t *testing.T, address string) int {
	t.Helper()
	resp, _ := dial(t, address).send(lines("GET /v2/company HTTP/1.1", "Host: localhost", "Connection: close")).answer(http.MethodGet)
	return resp.StatusCode
}

// The sockets are systemd's: what connects while the proxy is away is served when it is back, and a socket's file stays.
func TestSystemdSockets(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, "")
	w.configure(w.simURL, "listen: systemd\nstore: {file: store}\n"+noLimits)
	w.authorise(w.sim.Authorize("owner"))
	tcp, address := socket(t, "tcp", "127.0.0.1:0")
	unix, path := socket(t, "unix", filepath.Join(w.folder, "passed.sock"))
	sockets := []*os.File{tcp, unix}

	early := dial(t, address).send(lines("GET /v2/company HTTP/1.1", "Host: localhost"))
	p := activate(w, "", sockets, "serve")
	if resp, _ := early.answer(http.MethodGet); resp.StatusCode != http.StatusOK {
		t.Errorf("who came first got %s", resp.Status)
	}
	for _, address := range []string{address, path} {
		if got := status(t, address); got != http.StatusOK {
			t.Errorf("%s: got %d, want 200", address, got)
		}
	}
	w.expect(exitOK, "", []string{"check", "--online"}, `in use by the running proxy`, `account acme: fine`)
	if code, err := p.stop(syscall.SIGTERM); err != nil || code != exitOK {
		t.Fatalf("exit code %d, %v", code, err)
	}
	late := dial(t, path).send(lines("GET /v2/company HTTP/1.1", "Host: localhost"))
	activate(w, "", sockets, "serve")
	if resp, _ := late.answer(http.MethodGet); resp.StatusCode != http.StatusOK {
		t.Errorf("who came between got %s", resp.Status)
	}
}

// By name, some sockets only.
func TestSystemdSocketsByName(t *testing.T) {
	t.Parallel()
	w := newSimulated(t, simNoLimits, "")
	w.configure(w.simURL, "listen: [systemd:api, 127.0.0.1:0]\nstore: {file: store}\n"+noLimits)
	w.authorise(w.sim.Authorize("owner"))
	other, _ := socket(t, "tcp", "127.0.0.1:0")
	api, address := socket(t, "tcp", "127.0.0.1:0")
	p := activate(w, "other:api", []*os.File{other, api}, "serve")
	listening, err := p.listening()
	if err != nil {
		t.Fatal(err)
	}
	if len(listening) != 3 || listening[0] != address { // the socket, a port of its own, the operator's
		t.Errorf("listens on %q, want %s first of three", listening, address)
	}
	if got := status(t, listening[0]); got != http.StatusOK {
		t.Errorf("got %d, want 200", got)
	}
}

// What is missing or cannot be used is said with what to do.
func TestSystemdSocketsRefused(t *testing.T) {
	t.Parallel()
	api, _ := socket(t, "tcp", "127.0.0.1:0")
	everywhere, _ := socket(t, "tcp", "0.0.0.0:0")
	noSocket, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer noSocket.Close()
	for _, c := range []struct {
		listen, want string
		sockets      []*os.File
	}{
		{"systemd", `listen on systemd: no socket was passed to this process; start it by its systemd socket unit`, nil},
		{"systemd:web", `no socket of this name was passed, only ["api"]; set FileDescriptorName=web`, []*os.File{api}},
		{"systemd", `is reachable from other machines, which needs named clients`, []*os.File{everywhere}},
		{"systemd", `file descriptor 3 is no socket to listen on`, []*os.File{noSocket}},
	} {
		w := newSimulated(t, simNoLimits, "")
		w.configure(w.simURL, "listen: "+c.listen+"\nstore: {file: store}\n")
		p := activate(w, "api", c.sockets, "serve")
		if code, err := p.wait(); err != nil || code != exitFailed || !strings.Contains(p.stderr.String(), c.want) {
			t.Errorf("%s: exit code %d, %v, want %q; stderr: %s", c.listen, code, err, c.want, &p.stderr)
		}
	}
	// Another process's, such as a shell's that was started so and passed its environment on, do not count.
	w := newSimulated(t, simNoLimits, "")
	w.configure(w.simURL, "listen: systemd\nstore: {file: store}\n")
	w.env = append(w.env, "LISTEN_PID=1", "LISTEN_FDS=1")
	p := w.start("serve")
	if code, err := p.wait(); err != nil || code != exitFailed || !strings.Contains(p.stderr.String(), "no socket was passed") {
		t.Errorf("exit code %d, %v; stderr: %s", code, err, &p.stderr)
	}
}
