package main

import (
	"os"
	"runtime"
	"syscall"
)

// From linux/capability.h and linux/prctl.h.
const (
	capDACOverride   = 1
	capDACReadSearch = 2
	prCapBSetDrop    = 24
)

// execUnprivileged becomes the program, for which a file's mode holds even if root runs it.
func execUnprivileged() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // capabilities are a thread's
	for _, capability := range []uintptr{capDACOverride, capDACReadSearch} {
		// Who may not drop it does not have it.
		_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prCapBSetDrop, capability, 0)
	}
	if err := os.Setenv(roleVariable, roleProgram); err != nil {
		return err
	}
	return syscall.Exec(exe, os.Args, os.Environ())
}
