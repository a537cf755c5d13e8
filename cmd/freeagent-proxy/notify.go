package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// systemd, and whoever does as it does, may want to be told how we stand, and that we live: by datagrams to a unix socket (sd_notify(3)),
// which is all that there is to the protocol. github.com/coreos/go-systemd would add no more than this, and reads
// the environment by itself.

// notifyVariables are for the process that systemd started alone.
var notifyVariables = []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}

const (
	// beatEvery is how often, at least, it is looked whether the process is alive and how it stands.
	beatEvery = 2 * time.Second
	// extension is what shutting down is given each time that it shows that it goes on.
	extension = 15 * time.Second
)

// notifier tells systemd. A nil notifier tells nobody.
type notifier struct {
	socket   string        // a path, or behind an @ an abstract name
	watchdog time.Duration // how long systemd waits for a sign of life; 0: it does not
	said     string        // the status; attend's own
}

// newNotifier is nil if nobody wants to be told.
func newNotifier(getenv func(string) string, log *zap.Logger) *notifier {
	n := &notifier{socket: getenv("NOTIFY_SOCKET")}
	if n.socket == "" {
		return nil
	}
	if pid := getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		micros, _ := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64) // what is no number asks for nothing
		n.watchdog = max(0, time.Duration(micros)*time.Microsecond)
	}
	if err := n.send("STATUS=starting"); err != nil {
		log.Warn("systemd cannot be told how the proxy stands; check NOTIFY_SOCKET, or set Type=exec in the unit", zap.Error(err))
	}
	return n
}

// send sends one datagram of assignments. The socket is opened for each: whoever listens may have started anew.
func (n *notifier) send(assignments ...string) error {
	if n == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("open the notify socket: %w", err)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // a full queue must not hold us up
	_, err = conn.Write([]byte(strings.Join(assignments, "\n")))
	return errors.Join(err, conn.Close())
}

// ready says that requests are served, and by which configuration they are to be.
func (n *notifier) ready() { _ = n.send("READY=1") }

// reloading says that the configuration is read anew, until ready. Type=notify-reload needs the moment, on the clock that
// systemd goes by.
func (n *notifier) reloading() {
	if n != nil {
		_ = n.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(monotonic().Microseconds(), 10))
	}
}

// attend says that we are ready, then how we stand, and gives a sign of life before half of the watchdog's time is over, as long as
// standing answers. Where it hangs it is not asked again: no more signs come, and systemd ends us.
func (n *notifier) attend(standing func() (status string)) (stop func()) {
	if n == nil {
		return func() {}
	}
	every := beatEvery
	if n.watchdog > 0 {
		every = max(min(every, n.watchdog/2), time.Millisecond)
	}
	n.ready()
	ended := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		answers := make(chan string, 1)
		ask := func() { answers <- standing() }
		asking := true
		go ask() // it ends with its answer; one that hangs ends with the process
		for {
			select {
			case <-ended:
				return
			case status := <-answers:
				asking = false
				n.alive(status)
			case <-ticker.C:
				if !asking {
					asking = true
					go ask()
				}
			}
		}
	})
	return func() {
		close(ended)
		beating.Wait()
	}
}

// alive gives a sign of life, and says how we stand if that has changed.
func (n *notifier) alive(status string) {
	var assignments []string
	if n.watchdog > 0 {
		assignments = append(assignments, "WATCHDOG=1")
	}
	if status != n.said {
		assignments = append(assignments, "STATUS="+status)
	}
	n.said = status
	if len(assignments) > 0 {
		_ = n.send(assignments...)
	}
}

// stopping says that we shut down, and asks for more time again and again until end is called: what was sent to FreeAgent may
// take longer than TimeoutStopSec=.
func (n *notifier) stopping() (end func()) {
	if n == nil {
		return func() {}
	}
	more := "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(extension.Microseconds(), 10)
	_ = n.send("STOPPING=1", more)
	ended := make(chan struct{})
	var extending sync.WaitGroup
	extending.Go(func() {
		ticker := time.NewTicker(extension / 3)
		defer ticker.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
				_ = n.send(more)
			}
		}
	})
	return func() {
		close(ended)
		extending.Wait()
	}
}
