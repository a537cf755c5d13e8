package limiter_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"freeagent-proxy/limiter"
)

func child(role, journal string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LIMITER_CHILD="+role, "LIMITER_JOURNAL="+journal)
	cmd.Stderr = os.Stderr
	return cmd
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// ample is a budget that is never used up.
func ample() limiter.Budget { return budget("acme", 1_000_000, time.Hour) }

func used(l *limiter.Local) int { return 1_000_000 - remaining(l, ample())[0] }

// takeUntilKilled prints, in Unix nanoseconds, when each permit was sent.
func takeUntilKilled(journal string) {
	l := must(limiter.NewLocal(limiter.Config{Journal: journal}))
	for {
		must(l.Take(context.Background(), request(0, ample()))).Sent()
		fmt.Println(time.Now().UnixNano())
		time.Sleep(time.Millisecond)
	}
}

// A process that is killed forgets the last moment at most.
func TestSIGKILL(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	total := 0
	for range 2 {
		cmd := child("killed", journal)
		out := must(cmd.StdoutPipe())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var sent []int64
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			sent = append(sent, must(strconv.ParseInt(lines.Text(), 10, 64)))
			if sent[len(sent)-1]-sent[0] > int64(1500*time.Millisecond) {
				break
			}
		}
		killed := time.Now().UnixNano() // or later
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, out)
		cmd.Wait()
		for _, at := range sent {
			// A tenth of a second is promised; the rest is for a machine that is busy.
			if at < killed-int64(time.Second) {
				total++
			}
		}

		e := &events{}
		l := open(t, journal, e)
		if got := used(l); got < total {
			t.Errorf("%d known after a SIGKILL, want at least %d", got, total)
		}
		closed(t, l)
	}
}

// takeWhileDiskIsFull takes permits until the journal cannot be written, makes
// room, copies what is then written, and prints how many permits there were at each time.
func takeWhileDiskIsFull(journal string) {
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		panic(err)
	}
	resize := func(size uint64) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: limit.Max}); err != nil {
			panic(err)
		}
	}
	resize(512)
	reported := make(chan limiter.Event, 100)
	l := must(limiter.NewLocal(limiter.Config{Journal: journal, Observe: func(e limiter.Event) { reported <- e }}))
	n := 0
	for full := false; !full; n++ {
		must(l.Take(context.Background(), request(0, ample()))).Sent()
		select {
		case e := <-reported:
			fmt.Println(e.Kind)
			full = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	resize(limit.Cur)
	fmt.Println((<-reported).Kind, n)
	if err := os.WriteFile(journal+".copy", must(os.ReadFile(journal)), 0o600); err != nil {
		panic(err)
	}
	must(l.Take(context.Background(), request(0, ample()))).Sent()
	n++
	if err := l.Close(); err != nil {
		panic(err)
	}
	fmt.Println(n)
}

func TestDiskIsFull(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	out, err := child("full", journal).Output()
	if err != nil {
		t.Fatalf("%v, output %s", err, out)
	}
	e := &events{}
	recovered, l := open(t, journal+".copy", e), open(t, journal, e)
	want := fmt.Sprintf("limiter journal failed\nlimiter journal recovered %d\n%d", used(recovered), used(l))
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("output %q, want %q", got, want)
	}
	closed(t, recovered)
	closed(t, l)
	e.expect(t, "after it was full")
}
