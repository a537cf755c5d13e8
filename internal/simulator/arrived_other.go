//go:build !linux

package simulator

import (
	"net"
	"time"
)

// sinceReceived is not known here.
func sinceReceived(net.Conn) time.Duration { return 0 }
