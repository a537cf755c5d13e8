package limiter_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"freeagent-proxy/limiter"
)

// Whatever is in the file, the limiter starts, counts within bounds, and writes a file that is whole.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("not a journal"))
	f.Add(fuzzSeed(f))
	f.Add(append(fuzzSeed(f), fuzzSeed(f)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		journal := filepath.Join(t.TempDir(), "journal")
		writeFile(t, journal, data)
		b := limiter.Budget{Key: "acme", Windows: []limiter.Window{{Requests: 10, Per: time.Hour}, {Requests: 20, Per: 24 * time.Hour}}}
		l := open(t, journal, &events{})
		first := l.Usage(b)
		for _, u := range first {
			if u.Remaining < 0 || u.Remaining > u.Window.Requests || u.Reset < 0 {
				t.Errorf("usage %+v", u)
			}
		}
		if p, err := l.Take(t.Context(), request(0, b)); err == nil {
			p.Release()
		}
		closed(t, l)

		e := &events{}
		l = open(t, journal, e)
		if got := l.Usage(b); !slices.EqualFunc(got, first, func(got, first limiter.Usage) bool { return got.Remaining <= first.Remaining }) && len(data) > 0 {
			t.Errorf("usage %v after a restart, want no more than %v", got, first)
		}
		closed(t, l)
		e.expect(t, "the next start")
	})
}

// fuzzSeed is a journal that knows of everything that there is.
func fuzzSeed(f *testing.F) []byte {
	journal := filepath.Join(f.TempDir(), "journal")
	l, err := limiter.NewLocal(limiter.Config{Journal: journal})
	if err != nil {
		f.Fatal(err)
	}
	for i := range 5 {
		p, err := l.Take(f.Context(), request(0, budget("acme", 10, time.Hour), budget("egress", 10, time.Hour)))
		if err != nil {
			f.Fatal(err)
		}
		if i%2 == 0 {
			p.Sent()
		}
	}
	l.Pause("acme", time.Hour)
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(journal)
	if err != nil {
		f.Fatal(err)
	}
	return data
}
