package proxy

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// storedZip writes gzip that is not compressed (RFC 1951, section 3.2.4). It needs no memory, where compressing takes
// more than a megabyte.
type storedZip struct {
	out    *bytes.Buffer
	begun  bool
	digest uint32
	length uint32 // modulo 2^32, as the format has it
}

// storedHeader begins a gzip member: deflate, no flags, no time, no extra flags, unknown system (RFC 1952, section 2.3).
var storedHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

func (z *storedZip) Write(p []byte) (int, error) {
	z.begin()
	z.digest = crc32.Update(z.digest, crc32.IEEETable, p)
	z.length += uint32(len(p))
	for rest := p; len(rest) > 0; {
		const most = 1<<16 - 1
		n := min(len(rest), most)
		z.block(0, rest[:n])
		rest = rest[n:]
	}
	return len(p), nil
}

// Close ends the member with an empty last block.
func (z *storedZip) Close() error {
	z.begin()
	z.block(1, nil)
	trailer := binary.LittleEndian.AppendUint32(nil, z.digest)
	z.out.Write(binary.LittleEndian.AppendUint32(trailer, z.length))
	return nil
}

func (z *storedZip) begin() {
	if !z.begun {
		z.begun = true
		z.out.Write(storedHeader)
	}
}

// block writes a block of that text; last is 1 for the last one.
func (z *storedZip) block(last byte, text []byte) {
	n := uint16(len(text))
	head := binary.LittleEndian.AppendUint16([]byte{last}, n)
	z.out.Write(binary.LittleEndian.AppendUint16(head, ^n))
	z.out.Write(text)
}
