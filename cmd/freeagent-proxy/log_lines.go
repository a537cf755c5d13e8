package main

import (
	"encoding/json"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"

	"freeagent-proxy/proxy"
)

// accessLog writes a line for each request: what zap would write, in a fraction of its time.
type accessLog struct {
	level zap.AtomicLevel
	to    zapcore.WriteSyncer
	other *zap.Logger // by which lines are written that are no JSON; nil: they are
}

// write writes the line of one request. A nil accessLog writes none.
func (a *accessLog) write(s *proxy.Served) {
	switch {
	case a == nil || !a.level.Enabled(zap.InfoLevel):
		return
	case a.other != nil:
		a.other.Info("request", zap.Inline(s))
		return
	}
	line := jsonLines.Get().(*jsonLine)
	line.text.AppendString(`{"level":"info","time":"`)
	line.text.AppendTime(s.Began.Add(s.Took), time.RFC3339Nano)
	line.text.AppendString(`","msg":"request"`)
	_ = s.MarshalLogObject(line)
	line.text.AppendString("}\n")
	_, _ = a.to.Write(line.text.Bytes()) // there is nobody to tell
	line.text.Reset()
	jsonLines.Put(line)
}

var (
	lineBuffers = buffer.NewPool()
	jsonLines   = sync.Pool{New: func() any { return &jsonLine{text: lineBuffers.Get()} }}
)

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
