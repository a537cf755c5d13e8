package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"freeagent-proxy/proxy"
)

// What the access log writes is what zap would, whatever is in it.
func TestAccessLog(t *testing.T) {
	encoding := zap.NewProductionEncoderConfig()
	encoding.TimeKey, encoding.EncodeTime = "time", zapcore.RFC3339NanoTimeEncoder
	theirs := zapcore.NewJSONEncoder(encoding)
	order := regexp.MustCompile(`"([a-z_]+)":`)
	moment := time.Date(2026, 11, 26, 1, 2, 3, 400, time.UTC)
	for _, text := range []string{"/v2/company", "", `quote " and \ backslash`, "new\nline \x00\x1f\x7f", "ümlaut 漢字 🙂", "\xff\xfe broken", "<b>&amp;", "\u2028"} {
		for _, at := range []time.Time{moment, moment.In(time.FixedZone("", 3600)), moment.Truncate(time.Second)} {
			s := &proxy.Served{
				Began: at, Took: 1234 * time.Millisecond, Waited: 7 * time.Millisecond, RequestID: "r1", Client: text, Account: "acme", Method: text,
				Path: text, Status: 502, Upstream: text == "", Reason: text, Attempts: 3, TraceID: text,
			}
			want, err := theirs.EncodeEntry(zapcore.Entry{Level: zapcore.InfoLevel, Time: at.Add(s.Took), Message: "request"}, []zap.Field{zap.Inline(s)})
			if err != nil {
				t.Fatal(err)
			}
			got := accessLine(t, LogConfig{Level: "info", Format: "json"}, s)
			var wanted, gotten map[string]any
			if err := json.Unmarshal(want.Bytes(), &wanted); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(got), &gotten); err != nil {
				t.Fatalf("%s: %v", got, err)
			}
			if !reflect.DeepEqual(gotten, wanted) || !reflect.DeepEqual(order.FindAllString(got, -1), order.FindAllString(want.String(), -1)) || strings.Count(got, "\n") != 1 {
				t.Errorf("got  %swant %s", got, want)
			}
		}
	}
}

// Its lines are there at level info, and in the format of all others.
func TestAccessLogFollowsTheLog(t *testing.T) {
	s := &proxy.Served{Path: "/v2/company", Status: 200}
	if got := accessLine(t, LogConfig{Level: "warn", Format: "json"}, s); got != "" {
		t.Errorf("at level warn: %s", got)
	}
	if got := accessLine(t, LogConfig{Level: "info", Format: "console"}, s); !strings.Contains(got, "\tinfo\trequest\t{") || !strings.Contains(got, "/v2/company") {
		t.Errorf("on a console: %s", got)
	}
}

// accessLine is what the log has of one request.
func accessLine(t *testing.T, cfg LogConfig, s *proxy.Served) string {
	t.Helper()
	var out bytes.Buffer
	log, flush := newLogger(&out, cfg)
	log.access.write(s)
	flush()
	return out.String()
}
