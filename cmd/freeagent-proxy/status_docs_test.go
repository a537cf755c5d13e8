package main

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"freeagent-proxy/internal/admin"
)

const statusDocs = "../../docs/status.md"

// statusFields is the JSON paths of all that the type can hold, such as accounts[].last_refresh.at. A budget's, which stands in
// several places, are those of the place where it is embedded, and told once.
func statusFields(path string, typ reflect.Type) (fields []string) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous {
			continue // a budget
		}
		at, inner := strings.TrimPrefix(path+"."+name, "."), f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			if inner.Kind() == reflect.Slice {
				at += "[]"
			}
			inner = inner.Elem()
		}
		switch {
		case inner == reflect.TypeFor[admin.Budget]():
			fields = append(fields, at)
		case inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]():
			if inner != reflect.TypeFor[admin.Store]() {
				fields = append(fields, at)
			}
			fields = append(fields, statusFields(at, inner)...)
		default:
			fields = append(fields, at)
		}
	}
	return fields
}

// Each field is documented, and each that is documented exists.
func TestStatusIsDocumented(t *testing.T) {
	t.Parallel()
	want := append(statusFields("", reflect.TypeFor[admin.Status]()), statusFields("", reflect.TypeFor[admin.Budget]())...)
	var got []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(readText(t, statusDocs), -1) {
		got = append(got, row[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	for _, field := range want {
		if !slices.Contains(got, field) {
			t.Errorf("%s does not document %s", statusDocs, field)
		}
	}
	for _, field := range got {
		if !slices.Contains(want, field) {
			t.Errorf("%s documents %s, which /api/status does not have", statusDocs, field)
		}
	}
	if len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Errorf("%s documents a field twice: %q", statusDocs, got)
	}
}
