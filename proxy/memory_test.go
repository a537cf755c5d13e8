package proxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A crowd of clients costs disk, not memory: beyond 16 MiB of bodies that are held at once even
// small ones go to files, which have no name. Bodies that are small in chunks hold what they are.
func TestBodiesShareTheMemory(t *testing.T) {
	const crowd = 20
	for _, c := range []struct {
		framing, body string
		inFiles       int
	}{
		{"chunks", `{"small":"body"}`, 0},
		{"length", strings.Repeat("b", mib), crowd - 16},
	} {
		arrived, leave := make(chan struct{}, crowd), make(chan struct{})
		r, u := withUpstream(t, func(q *received) bool {
			q.read()
			arrived <- struct{}{}
			q.wait(leave)
			return q.write(reply(200, fine))
		})
		var asking sync.WaitGroup
		before := bodyFiles(t)
		for range crowd { // one after the other: until it is read, a body in chunks holds a megabyte
			asking.Go(func() { r.post(c.framing, c.body).passed(t, 200, fine) })
			<-arrived
		}
		if got := bodyFiles(t) - before; got != c.inFiles {
			t.Errorf("%d bodies of %d bytes: %d in files, want %d", crowd, len(c.body), got, c.inFiles)
		}
		close(leave)
		asking.Wait()
		for _, q := range u.all() {
			equal(t, "hash", q.sha256, hashOf(c.body))
		}
		soon(t, "files closed", func() bool { return bodyFiles(t) == before })
	}
}

// bodyFiles counts the temporary files of bodies that this process has open.
func bodyFiles(t *testing.T) int {
	t.Helper()
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, d := range descriptors {
		target, _ := os.Readlink(filepath.Join("/proc/self/fd", d.Name())) // one that was closed meanwhile
		if strings.Contains(target, "freeagent-proxy-body-") {
			n++
			if !strings.HasSuffix(target, " (deleted)") {
				t.Errorf("%s has a name", target)
			}
		}
	}
	return n
}

// A full disk is our trouble, told as such; the next small body needs no disk.
func TestNoDisk(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	r, u := withUpstream(t, well)
	c := r.dial().send(r.request("POST", "/v2/x", strings.Repeat("x", 2*mib)))
	got := c.answer("POST")
	got.refused(t, 503, "the disk with the temporary files")
	equal(t, "Retry-After", got.header.Get("Retry-After"), "10")
	u.nothing()
	if n := len(r.log.lines("request failed in the proxy itself; if the error names a file see to the disk, else please report it")); n != 1 {
		t.Errorf("%d errors logged, want 1", n)
	}
	r.do("POST", "/v2/x", fmt.Sprint(u.url)).passed(t, 200, fine)
}
