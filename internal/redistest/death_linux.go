package redistest

import "syscall"

// dieWithParent makes the kernel end the server should the test's process be killed, which runs no cleanup.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
