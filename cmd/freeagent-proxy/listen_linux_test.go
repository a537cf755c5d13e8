package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A socket whose owner is too busy to take connections is not mistaken for one that a dead process left.
func TestBusySocketIsLeftAlone(t *testing.T) {
	t.Parallel()
	folder, err := os.MkdirTemp("", "fap")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "busy.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil { // room for one, whom nobody accepts
		t.Fatal(err)
	}
	waiting, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if listener, err := listen(unixPrefix + path); err == nil || !strings.Contains(err.Error(), "another process may serve this socket") {
		t.Errorf("got %v, %v; want it left alone", listener, err)
	}
	_ = syscall.Close(fd) // as its owner's death does
	listener, err := listen(unixPrefix + path)
	if err != nil {
		t.Fatalf("a dead process's socket: %v", err)
	}
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}
