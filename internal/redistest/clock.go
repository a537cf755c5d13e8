package redistest

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// ownClock is a library that a server is started with. It tells a time that is as far ahead of the machine's as a file says, in
// nanoseconds; time that passes is not touched. (faketime's does not get along with Redis's memory allocator.)
const ownClock = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *ahead;

__attribute__((constructor)) static void start(void) {
	int file = open(getenv("REDISTEST_CLOCK"), O_RDONLY);
	if (file < 0) _exit(3);
	ahead = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
	if (ahead == MAP_FAILED) _exit(3);
}

int clock_gettime(clockid_t id, struct timespec *t) {
	int failed = syscall(SYS_clock_gettime, id, t);
	if (failed || id != CLOCK_REALTIME || !ahead) return failed;
	long long all = t->tv_sec * 1000000000LL + t->tv_nsec + *ahead;
	t->tv_sec = all / 1000000000LL;
	t->tv_nsec = all % 1000000000LL;
	return 0;
}

int gettimeofday(struct timeval *t, void *zone) {
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	t->tv_sec = now.tv_sec;
	t->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *t) {
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (t) *t = now.tv_sec;
	return now.tv_sec;
}
`

// OwnClock gives the server a clock of its own, which SetClock sets.
func OwnClock() Option {
	return func(s *Server) {
		s.clock = filepath.Join(s.dir, "clock")
		s.SetClock(0)
		source := s.clock + ".c"
		if err := os.WriteFile(source, []byte(ownClock), 0o600); err != nil {
			s.t.Fatal(err)
		}
		if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", s.clock+".so", source).CombinedOutput(); err != nil {
			s.t.Fatalf("build the server's clock: %v; install what is missing: apt-get install gcc libc6-dev\n%s", err, out)
		}
	}
}

// SetClock sets the clock of a server that was started with OwnClock so far ahead of the machine's, or behind it.
func (s *Server) SetClock(ahead time.Duration) {
	s.t.Helper()
	file, err := os.OpenFile(s.clock, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(binary.NativeEndian.AppendUint64(nil, uint64(ahead))); err != nil {
		s.t.Fatal(err)
	}
}

// environment is the process's; nil: ours.
func (s *Server) environment() []string {
	if s.clock == "" {
		return nil
	}
	return append(os.Environ(), "LD_PRELOAD="+s.clock+".so", "REDISTEST_CLOCK="+s.clock)
}
