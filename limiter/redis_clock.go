package limiter

import "encoding/binary"

// clockWords are what a question begins with.
func (s *Redis) clockWords(text []byte) []byte {
	text = binary.BigEndian.AppendUint64(text, 0)
	text = binary.BigEndian.AppendUint64(text, 0)
	return binary.BigEndian.AppendUint64(text, 1<<52)
}
