//go:build unix

package main

import (
	"math"
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
