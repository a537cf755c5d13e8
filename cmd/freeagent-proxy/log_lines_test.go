package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// someLine is an object as the access log's are.
type someLine struct {
	text   string
	number int
}

func (l someLine) MarshalLogObject(line zapcore.ObjectEncoder) error {
	line.AddString("text", l.text)
	line.AddInt("number", l.number)
	line.AddString("empty", "")
	line.AddInt64("long", int64(l.number)<<32)
	return nil
}

// What lineEncoder writes is what zap's encoder would, whatever is in it.
func TestLineEncoder(t *testing.T) {
	encoding := zap.NewProductionEncoderConfig()
	encoding.TimeKey, encoding.EncodeTime = "time", zapcore.RFC3339NanoTimeEncoder
	theirs := zapcore.NewJSONEncoder(encoding)
	ours := lineEncoder{zapcore.NewJSONEncoder(encoding)}
	order := regexp.MustCompile(`"([a-z]+)":`)
	moment := time.Date(2026, 11, 26, 1, 2, 3, 400, time.UTC)
	for _, text := range []string{"/v2/company", "", `quote " and \ backslash`, "new\nline \x00\x1f\x7f", "ümlaut 漢字 🙂", "\xff\xfe broken", "<b>&amp;", "\u2028"} {
		for _, fields := range [][]zap.Field{
			{zap.Inline(someLine{text, -7})},
			{zap.String("other", text)},
			{zap.Inline(someLine{text, 1}), zap.Bool("more", true)},
			nil,
		} {
			for _, at := range []time.Time{moment, moment.In(time.FixedZone("", 3600)), moment.Truncate(time.Second)} {
				entry := zapcore.Entry{Level: zapcore.InfoLevel, Time: at, Message: "request " + text}
				want, err := theirs.EncodeEntry(entry, fields)
				if err != nil {
					t.Fatal(err)
				}
				got, err := ours.EncodeEntry(entry, fields)
				if err != nil {
					t.Fatal(err)
				}
				var wanted, gotten map[string]any
				if err := json.Unmarshal(want.Bytes(), &wanted); err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(got.Bytes(), &gotten); err != nil {
					t.Fatalf("%s: %v", got, err)
				}
				if !reflect.DeepEqual(gotten, wanted) || !reflect.DeepEqual(order.FindAll(got.Bytes(), -1), order.FindAll(want.Bytes(), -1)) || bytes.Count(got.Bytes(), []byte("\n")) != 1 {
					t.Errorf("got  %swant %s", got, want)
				}
			}
		}
	}
}
