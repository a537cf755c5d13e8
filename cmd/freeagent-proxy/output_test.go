package main

import (
	"errors"
	"strings"
	"testing"
)

// fullDisk takes so much, and then no more.
type fullDisk struct{ left int }

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.left < len(p) {
		return 0, errors.New("no space left on device")
	}
	d.left -= len(p)
	return len(p), nil
}

// What was asked for and could not be written is not done: a script must not go on without it.
func TestOutputThatIsLost(t *testing.T) {
	for _, words := range []string{"clients new nightly-feed", "keygen", "version", "man", "completion bash", "--help"} {
		for _, room := range []int{0, 5} {
			var complaint strings.Builder
			none := func(string) string { return "" }
			code := run(t.Context(), strings.Fields(words), none, strings.NewReader(""), &fullDisk{room}, &complaint)
			if code != exitFailed || !strings.Contains(complaint.String(), "could not be written: no space left on device") {
				t.Errorf("%s, with room for %d bytes: exit code %d, %q", words, room, code, complaint.String())
			}
		}
	}
}
