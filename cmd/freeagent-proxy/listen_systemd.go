package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// systemd, and whoever does as it does, can bind the sockets and pass them to the program it starts: as file descriptors from
// 3 on, with LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES in the environment (sd_listen_fds(3)). So the proxy needs no
// right to bind a low port, and connections wait while it restarts.

const (
	// inheritedPrefix marks a listen address that is an inherited socket: all of them, or with a colon those of that name.
	inheritedPrefix = "systemd"
	// firstInherited is SD_LISTEN_FDS_START.
	firstInherited = 3
)

// inheritedSockets is what the environment says of sockets that were passed.
type inheritedSockets struct{ pid, count, names string }

func inheritedFrom(getenv func(string) string) inheritedSockets {
	return inheritedSockets{getenv("LISTEN_PID"), getenv("LISTEN_FDS"), getenv("LISTEN_FDNAMES")}
}

// given reports whether sockets were passed to this process.
func (i inheritedSockets) given() bool {
	return i.number() > 0 && i.pid == strconv.Itoa(os.Getpid())
}

func (i inheritedSockets) number() int {
	n, _ := strconv.Atoi(i.count) // what is no number is none
	return n
}

// inheritedName takes an address of listen apart. An empty name is all sockets.
func inheritedName(address string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(address, inheritedPrefix)
	if !ok || rest == "" {
		return "", ok
	}
	return rest[1:], rest[0] == ':'
}

func isInherited(address string) bool {
	_, ok := inheritedName(address)
	return ok
}

// take returns the listeners of that name (FileDescriptorName= in the socket unit), or all of them. Each can be taken once.
// anywhere: other machines may reach them.
func (i inheritedSockets) take(name string, anywhere bool) ([]net.Listener, error) {
	if !i.given() {
		return nil, errors.New("no socket was passed to this process; start it by its systemd socket unit, or write host:port into listen")
	}
	names := strings.Split(i.names, ":")
	var taken []net.Listener
	for n := range i.number() {
		if name != "" && (n >= len(names) || names[n] != name) {
			continue
		}
		listener, err := inherit(firstInherited+n, anywhere)
		if err != nil {
			return nil, errors.Join(err, closeAll(taken))
		}
		taken = append(taken, listener)
	}
	if len(taken) == 0 {
		return nil, fmt.Errorf("no socket of this name was passed, only %q; set FileDescriptorName=%s in the socket unit", names, name)
	}
	return taken, nil
}

// inherit makes a listener of a file descriptor, which is ours from then on.
func inherit(fd int, anywhere bool) (net.Listener, error) {
	file := os.NewFile(uintptr(fd), fmt.Sprintf("passed socket %d", fd))
	listener, err := net.FileListener(file) // a duplicate that programs we might start do not get
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("file descriptor %d is no socket to listen on: %w; Accept=no must hold in the socket unit", fd, err)
	}
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok && !anywhere && !tcp.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("%s is reachable from other machines, which needs named clients; add clients, or set ListenStream= to a loopback address", tcp), listener.Close())
	}
	return listener, nil
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
