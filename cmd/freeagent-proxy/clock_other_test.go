//go:build !linux || !amd64

package main

import (
	"errors"
	"runtime"
)

// canSkew: processes here have the machine's clock.
const canSkew = false

func wrongClock(string) error {
	return errors.New("a process has no clock of its own on " + runtime.GOOS + "/" + runtime.GOARCH + "; run this test on linux/amd64")
}
