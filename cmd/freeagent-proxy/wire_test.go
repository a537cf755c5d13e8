package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// wire is a program at a socket, that sends exact bytes.
type wire struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

// dial connects to host:port, or to unix:/path.
func dial(t *testing.T, address string) *wire {
	t.Helper()
	network, address := "tcp", address
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		network, address = "unix", path
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return over(t, conn)
}

// over makes a wire of a connection, which it closes at the test's end.
func over(t *testing.T, conn net.Conn) *wire {
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	return &wire{t, conn, bufio.NewReader(conn)}
}

// send writes. That the other side has hung up is seen when its answer is read.
func (w *wire) send(text ...string) *wire {
	w.t.Helper()
	_, err := io.WriteString(w.Conn, strings.Join(text, ""))
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		w.t.Fatal(err)
	}
	return w
}

// halfClose says that no more will be sent, as `nc -N` does.
func (w *wire) halfClose() *wire {
	_ = w.Conn.(interface{ CloseWrite() error }).CloseWrite()
	return w
}

// answer reads one answer to a request of that method.
func (w *wire) answer(method string) (*http.Response, string) {
	w.t.Helper()
	resp, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("read an answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatalf("read an answer's body: %v", err)
	}
	return resp, string(body)
}

// rest reads to the end of the connection. A reset is an end, too.
func (w *wire) rest() string {
	w.t.Helper()
	rest, err := io.ReadAll(w.in)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		w.t.Fatalf("read to the end: %v, after %.200q", err, rest)
	}
	return string(rest)
}

// lines joins lines as HTTP does, and ends a header with an empty one.
func lines(text ...string) string { return strings.Join(text, "\r\n") + "\r\n\r\n" }
