package limiter_test

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
	"time"

	"freeagent-proxy/limiter"
)

// Whatever is in the file, the limiter starts, counts within bounds, and leaves a
// file that is whole. A fuzzer does not guess checksums, so it may have them.
func FuzzJournal(f *testing.F) {
	const header = 4 + 4 + 4
	seed := fuzzSeed(f)
	f.Add([]byte(nil), false)
	f.Add([]byte("not a journal"), false)
	f.Add(seed, false)
	f.Add(append(seed, seed...), false)
	first := header + int(binary.LittleEndian.Uint32(seed[4:]))
	f.Add(seed[header:first], true)
	f.Fuzz(func(t *testing.T, data []byte, body bool) {
		if body {
			start := append(seed[:4:4], make([]byte, 8)...)
			binary.LittleEndian.PutUint32(start[4:], uint32(len(data)))
			binary.LittleEndian.PutUint32(start[8:], crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
			data = append(start, data...)
		}
		journal := filepath.Join(t.TempDir(), "journal")
		writeFile(t, journal, data)
		b := budget("acme", 10, time.Hour)
		l := open(t, journal, &events{})
		before := l.Usage(b)[0]
		if before.Remaining < 0 || before.Remaining > 10 || before.Reset < 0 {
			t.Errorf("usage %+v", before)
		}
		if p, err := l.Take(t.Context(), request(0, b)); err == nil {
			p.Sent()
		}
		closed(t, l)

		e := &events{}
		l = open(t, journal, e)
		// A body of the fuzzer's making may say that an hour ago is of no interest.
		after := l.Usage(b)[0]
		if !body && after.Remaining > max(0, before.Remaining-1) && before.Reset > time.Minute {
			t.Errorf("usage %+v after a permit and a restart, before %+v", after, before)
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
