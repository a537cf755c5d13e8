package main

import (
	"errors"
	"io/fs"
	"math"
	"syscall"
)

// openFiles is without a limit here.
func openFiles() int { return math.MaxInt32 }

// refused reports whether nobody listens at a socket: WSAECONNREFUSED, which is none of package syscall's names.
func refused(err error) bool { return errors.Is(err, syscall.Errno(10061)) }

// lacksSockets reports whether this Windows is too old for unix sockets: WSAEAFNOSUPPORT.
func lacksSockets(err error) bool { return errors.Is(err, syscall.Errno(10047)) }

// openToAll cannot be told from a file's mode: who may read it is in its access control list, mostly its folder's.
func openToAll(fs.FileInfo) bool { return false }

// protect leaves it to the folder's access control list who may connect to a socket.
func protect(string, fs.FileMode) error { return nil }

// isOurs is not told by a file's mode here.
func isOurs(fs.FileInfo) bool { return false }
