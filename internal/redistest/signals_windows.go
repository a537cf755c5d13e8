package redistest

import "syscall"

// There are no such signals here, and no Redis either: sending one fails the test.
const (
	sigStop = syscall.Signal(-1)
	sigCont = syscall.Signal(-2)
)
