package main

import (
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
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
	line.text = append(line.text[:0], `{"level":"info","time":"`...)
	line.text = s.Began.Add(s.Took).AppendFormat(line.text, time.RFC3339Nano)
	line.text = append(line.text, `","msg":"request"`...)
	_ = s.MarshalLogObject(line)
	line.text = append(line.text, "}\n"...)
	_, _ = a.to.Write(line.text) // there is nobody to tell
	jsonLines.Put(line)
}

var jsonLines = sync.Pool{New: func() any { return &jsonLine{text: make([]byte, 0, 1<<10)} }}

// jsonLine is a JSON object that is being written. It has what the access log needs of an ObjectEncoder, and no more: another type
// of field fails with the first request of any test.
type jsonLine struct {
	zapcore.ObjectEncoder
	text []byte
}

func (l *jsonLine) AddInt(name string, n int) { l.AddInt64(name, int64(n)) }

func (l *jsonLine) AddInt64(name string, n int64) {
	l.text = append(append(append(l.text, `,"`...), name...), `":`...)
	l.text = strconv.AppendInt(l.text, n, 10)
}

func (l *jsonLine) AddString(name, value string) {
	if !isPlain(value) {
		quoted, _ := json.Marshal(value) // a string never fails
		l.text = append(append(append(append(l.text, `,"`...), name...), `":`...), quoted...)
		return
	}
	l.text = append(append(append(append(append(l.text, `,"`...), name...), `":"`...), value...), '"')
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
