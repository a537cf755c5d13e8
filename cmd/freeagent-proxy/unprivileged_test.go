//go:build !linux

package main

import (
	"os"
	"syscall"
)

// execUnprivileged becomes the program. On this system the tests are not to be run by root.
func execUnprivileged() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Setenv(roleVariable, roleProgram); err != nil {
		return err
	}
	return syscall.Exec(exe, os.Args, os.Environ())
}
