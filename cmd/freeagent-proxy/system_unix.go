//go:build !windows

package main

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"syscall"
)

// openFiles is how many files, sockets among them, this process may have open. Go has raised the limit to the hard one.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
}

// refused reports whether nobody listens at a socket.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// lacksSockets is for systems that may have no unix sockets.
func lacksSockets(error) bool { return false }

// openToAll reports whether every user of the machine may read a file.
func openToAll(file fs.FileInfo) bool { return file.Mode().Perm()&0o004 != 0 }

// protect says who may connect to a socket.
func protect(socket string, mode fs.FileMode) error { return os.Chmod(socket, mode) }

// isOurs reports whether a file belongs to the user that we run as.
func isOurs(file fs.FileInfo) bool {
	about, ok := file.Sys().(*syscall.Stat_t)
	return ok && int(about.Uid) == os.Getuid()
}
