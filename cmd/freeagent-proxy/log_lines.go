package main

import (
	"encoding/json"
	"time"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

// lineEncoder writes an entry whose only field is an object of texts and numbers, which the access log's lines are, in a third of
// the time that zap's own encoder takes. What it writes is the same. All else it leaves to that one.
type lineEncoder struct{ zapcore.Encoder }

// Clone is what zap makes before it adds fields of a logger's own; those are not for us.
func (e lineEncoder) Clone() zapcore.Encoder { return e.Encoder.Clone() }

// EncodeEntry writes one line.
func (e lineEncoder) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	if len(fields) != 1 || fields[0].Type != zapcore.InlineMarshalerType || entry.LoggerName != "" || entry.Caller.Defined || entry.Stack != "" {
		return e.Encoder.EncodeEntry(entry, fields)
	}
	line := &jsonLine{text: lineBuffers.Get()}
	line.text.AppendString(`{"level":"`)
	line.text.AppendString(entry.Level.String())
	line.text.AppendString(`","time":"`)
	line.text.AppendTime(entry.Time, time.RFC3339Nano)
	line.text.AppendByte('"')
	line.AddString("msg", entry.Message)
	if err := fields[0].Interface.(zapcore.ObjectMarshaler).MarshalLogObject(line); err != nil {
		line.text.Free()
		return e.Encoder.EncodeEntry(entry, fields)
	}
	line.text.AppendString("}\n")
	return line.text, nil
}

var lineBuffers = buffer.NewPool()

// jsonLine is a JSON object that is being written. It has what the access log needs of an ObjectEncoder, and no more: another type
// of field fails with the first request of any test.
type jsonLine struct {
	zapcore.ObjectEncoder
	text *buffer.Buffer
}

func (l *jsonLine) key(name string) {
	l.text.AppendByte(',')
	l.text.AppendByte('"')
	l.text.AppendString(name)
	l.text.AppendString(`":`)
}

func (l *jsonLine) AddInt(name string, n int) { l.AddInt64(name, int64(n)) }

func (l *jsonLine) AddInt64(name string, n int64) {
	l.key(name)
	l.text.AppendInt(n)
}

func (l *jsonLine) AddString(name, value string) {
	l.key(name)
	if !isPlain(value) {
		quoted, _ := json.Marshal(value) // a string never fails
		l.text.AppendBytes(quoted)
		return
	}
	l.text.AppendByte('"')
	l.text.AppendString(value)
	l.text.AppendByte('"')
}

// isPlain reports whether a text stands in JSON as it is.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
