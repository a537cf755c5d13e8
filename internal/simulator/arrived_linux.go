package simulator

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// kernelTick is the most by which the kernel's answer may be too much.
const kernelTick = 10 * time.Millisecond

// sinceReceived is how long ago the machine received the last that came on a connection, at least.
func sinceReceived(conn net.Conn) (age time.Duration) {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { // a connection that is closed by now tells nothing
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			age = time.Duration(info.Last_data_recv) * time.Millisecond
		}
	})
	return max(0, age-kernelTick)
}
