package main

import (
	"io"
	stdlog "log"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logFlush is how long a line may wait in memory: one write for many requests under load, and
// still a log that a person can follow.
const logFlush = 100 * time.Millisecond

// logging is the program's log.
type logging struct {
	*zap.Logger
	level  zap.AtomicLevel // may be changed at any time
	access *accessLog
}

// newLogger writes to w until close is called. Warnings and errors are written at once.
func newLogger(w io.Writer, cfg LogConfig) (log logging, close func()) {
	encoding := zap.NewProductionEncoderConfig()
	encoding.TimeKey = "time"
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder := zapcore.NewJSONEncoder(encoding)
	if cfg.Format == "console" {
		encoder = zapcore.NewConsoleEncoder(encoding)
	}
	unsynced := struct{ io.Writer }{w} // standard error is seldom a file, and a pipe's fsync fails
	buffered := &zapcore.BufferedWriteSyncer{WS: zapcore.AddSync(unsynced), FlushInterval: logFlush}
	log.level = zap.NewAtomicLevelAt(cfg.level())
	log.Logger = zap.New(zapcore.RegisterHooks(zapcore.NewCore(encoder, buffered, log.level), func(e zapcore.Entry) error {
		if e.Level >= zapcore.WarnLevel {
			return buffered.Sync()
		}
		return nil
	}))
	log.access = &accessLog{level: log.level, to: buffered}
	if cfg.Format == "console" {
		log.access.other = log.Logger
	}
	return log, func() { _ = buffered.Stop() }
}

// redirectStdLog makes lines at level debug of what packages tell the global logger, until restore is called: net/http's transport does so
// with what it finds odd about answers, and quotes them, which no line of ours may.
func redirectStdLog(log *zap.Logger) (restore func()) {
	flags, prefix, former := stdlog.Flags(), stdlog.Prefix(), stdlog.Writer()
	stdlog.SetFlags(0)
	stdlog.SetPrefix("")
	stdlog.SetOutput(unquoted{log})
	return func() {
		stdlog.SetFlags(flags)
		stdlog.SetPrefix(prefix)
		stdlog.SetOutput(former)
	}
}

// unquoted logs a line up to the first quote in it.
type unquoted struct{ log *zap.Logger }

func (u unquoted) Write(line []byte) (int, error) {
	if entry := u.log.Check(zap.DebugLevel, "a package says"); entry != nil {
		text, _, cut := strings.Cut(strings.TrimSpace(string(line)), ` "`)
		if cut {
			text += " (the rest is left out)"
		}
		entry.Write(zap.String("text", text))
	}
	return len(line), nil
}

// level is the least level of what is written.
func (c LogConfig) level() zapcore.Level {
	level, err := zapcore.ParseLevel(c.Level)
	if err != nil {
		return zapcore.InfoLevel // validated when the configuration was loaded
	}
	return level
}
