package limiter

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"time"
)

// record is the news of one budget in the journal. Its times are Unix
// nanoseconds: only the wall clock survives a restart.
type record struct {
	key     string
	keep    int
	span    time.Duration
	open    int
	written int64
	paused  int64   // until when; 0 if it is not
	stamps  []int64 // new since the record before
}

// A record is recordStart (by which one is found in a damaged file), the length
// and the checksum of its body, 4 bytes each, and the body: the fields in order;
// keep, span, open and the lengths of key and stamps as varints, times in 8
// bytes; all little-endian.
const (
	recordStart = "\xf7lj\x01"
	headerSize  = len(recordStart) + 4 + 4
)

// maxKeep is more permits than any window has: a record with more is none.
const maxKeep = 1 << 24

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// append appends the record to data.
func (r *record) append(data []byte) []byte {
	data = append(data, recordStart...)
	header := len(data)
	data = append(data, make([]byte, 8)...)
	body := len(data)
	data = binary.AppendUvarint(data, uint64(len(r.key)))
	data = append(data, r.key...)
	data = binary.AppendUvarint(data, uint64(r.keep))
	data = binary.AppendUvarint(data, uint64(r.span))
	data = binary.AppendUvarint(data, uint64(r.open))
	data = binary.LittleEndian.AppendUint64(data, uint64(r.written))
	data = binary.LittleEndian.AppendUint64(data, uint64(r.paused))
	data = binary.AppendUvarint(data, uint64(len(r.stamps)))
	data = slices.Grow(data, 8*len(r.stamps))
	for _, s := range r.stamps {
		data = binary.LittleEndian.AppendUint64(data, uint64(s))
	}
	binary.LittleEndian.PutUint32(data[header:], uint32(len(data)-body))
	binary.LittleEndian.PutUint32(data[header+4:], crc32.Checksum(data[body:], castagnoli))
	return data
}

// readRecords returns the records in data and how many bytes belong to none.
// Zeros at the end do not count: a file system may leave them after a crash.
func readRecords(data []byte) (records []record, skipped int) {
	for len(data) > 0 {
		if r, size, ok := readRecord(data); ok {
			records = append(records, r)
			data = data[size:]
			continue
		}
		next := bytes.Index(data[1:], []byte(recordStart)) + 1
		if next == 0 {
			return records, skipped + len(bytes.TrimRight(data, "\x00"))
		}
		skipped += next
		data = data[next:]
	}
	return records, skipped
}

// readRecord returns the record that data begins with and its size.
func readRecord(data []byte) (r record, size int, ok bool) {
	if len(data) < headerSize || string(data[:len(recordStart)]) != recordStart {
		return r, 0, false
	}
	length := int64(binary.LittleEndian.Uint32(data[len(recordStart):]))
	checksum := binary.LittleEndian.Uint32(data[len(recordStart)+4:])
	if length > int64(len(data)-headerSize) {
		return r, 0, false
	}
	size = headerSize + int(length)
	body := data[headerSize:size]
	if crc32.Checksum(body, castagnoli) != checksum {
		return r, 0, false
	}
	c := cursor{rest: body}
	r.key = string(c.take(c.uvarint(maxKeep)))
	r.keep = int(c.uvarint(maxKeep))
	r.span = time.Duration(c.uvarint(uint64(never)))
	r.open = int(c.uvarint(maxKeep))
	r.written = c.int64()
	r.paused = c.int64()
	r.stamps = make([]int64, min(c.uvarint(maxKeep), uint64(len(c.rest)/8)))
	for i := range r.stamps {
		r.stamps[i] = c.int64()
	}
	return r, size, !c.short && len(c.rest) == 0
}

// cursor reads what record.append wrote.
type cursor struct {
	rest  []byte
	short bool // there was not what was asked for
}

func (c *cursor) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(c.rest)
	if n <= 0 || v > most {
		c.rest, c.short = nil, true
		return 0
	}
	c.rest = c.rest[n:]
	return v
}

func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.rest)) {
		c.rest, c.short = nil, true
		return nil
	}
	taken := c.rest[:n]
	c.rest = c.rest[n:]
	return taken
}

func (c *cursor) int64() int64 {
	b := c.take(8)
	if c.short {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(b))
}
