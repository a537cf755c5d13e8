package proxy_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"freeagent-proxy/proxy"
)

const (
	freeAgent = "https://api.freeagent.com"
	ours      = "http://freeagent.internal:8080"
)

func outward(format string) proxy.Rewriting {
	return proxy.Rewriting{Format: format, Origins: []string{freeAgent}, With: ours + "/accounts/acme"}
}

func inward(format string) proxy.Rewriting {
	return proxy.Rewriting{Format: format, Origins: []string{ours, strings.Replace(ours, "http:", "https:", 1)}, AnyCase: true, Prefix: "/accounts/acme", With: freeAgent}
}

// inPieces rewrites a stream that comes in pieces of one byte, of half of what is asked for, and as it is; all must
// come out alike.
func inPieces(t *testing.T, r proxy.Rewriting, text string) string {
	t.Helper()
	want := r.Whole(text)
	for name, source := range map[string]func(io.Reader) io.Reader{
		"bytes": iotest.OneByteReader, "halves": iotest.HalfReader, "with the end": iotest.DataErrReader,
	} {
		for _, window := range []int{200, 32 << 10} {
			got, err := io.ReadAll(r.Reader(source(strings.NewReader(text)), window))
			if err != nil || string(got) != want {
				t.Errorf("%s %q in %s, window of %d: %q (%v), want %q", r.Format, text, name, window, got, err, want)
			}
		}
	}
	return want
}

var urlSeeds = []string{
	`{"url":"https://api.freeagent.com/v2/invoices/1","contact":"https://api.freeagent.com/v2/contacts/2"}`,
	`{"url":"https:\/\/api.freeagent.com\/v2\/invoices\/1"}`, `["https://api.freeagent.com","https://api.freeagent.com?x","https://api.freeagent.com#y"]`,
	`{"url":"https://api.freeagent.com.evil/v2","b":"https://api.freeagent.community","c":"see https://api.freeagent.com/v2","d":"\"https://api.freeagent.com/v2"}`,
	`{"url":"https://api.freeagent.com/accounts/acme/v2/x","e":"https:\/\/api.freeagent.com/accounts\/x"}`, `"https:/\/api.freeagent.com/v2`, `"\"https://api.freeagent.com`,
	`<a><url>https://api.freeagent.com/v2/1</url><b>x > https://api.freeagent.com/v2</b><c d="a>https://api.freeagent.com/v2"/>https://api.freeagent.com/v2</a>`,
	"<a>\n  https://api.freeagent.com/v2/1\n</a><!-- > <b>https://api.freeagent.com/ --><c><![CDATA[https://api.freeagent.com]]></c>", "<![CDATA[<b>https://api.freeagent.com/]]", "<!-", "<![CDA", "<a>https://api.freeagent.com]",
	"contact=https%3A%2F%2Fapi.freeagent.com%2Fv2%2Fcontacts%2F1&x=https%3a%2f%2fapi.freeagent.com%2fv2", "a=https://api.freeagent.com/v2/1&b==https://api.freeagent.com&https://api.freeagent.com/=c", "%zz=%&a=%68ttps:%2", "a=https%3A//api.freeagent.com",
	`{"contact":"HTTP://FreeAgent.Internal:8080/accounts/acme/v2/contacts/2","b":"http://freeagent.internal:8080/accounts/acme2/v2"}`, "a=http%3A%2F%2Ffreeagent.internal%3A8080%2Faccounts%2facme%2Fv2", "", "\x00\xff/", `"http:/`,
}

// There and back gives the same bytes, in whatever pieces they come.
func FuzzRewriteThereAndBack(f *testing.F) {
	for _, seed := range urlSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, format := range []string{"json", "xml"} {
			there := inPieces(t, outward(format), text)
			back := inPieces(t, inward(format), there)
			if !strings.Contains(strings.ToLower(text), "freeagent.internal") && back != text {
				t.Errorf("%s %q there: %q, and back: %q", format, text, there, back)
			}
			if !strings.Contains(strings.ReplaceAll(text, `\`, ""), freeAgent) && there != text {
				t.Errorf("%s %q became %q", format, text, there)
			}
		}
	})
}

// Of valid JSON those strings change that begin with FreeAgent's origin, and no other.
func FuzzRewriteJSONValues(f *testing.F) {
	for _, seed := range urlSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var before, after any
		if bytes.ContainsAny(text, `\`) || json.Unmarshal(text, &before) != nil {
			return
		}
		got := outward("json").Whole(string(text))
		if err := json.Unmarshal([]byte(got), &after); err != nil {
			t.Fatalf("%q became %q: %v", text, got, err)
		}
		if want := mapStrings(before, expected); !reflect.DeepEqual(after, want) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// expected is what becomes of a value on its way to the client.
func expected(value string) string {
	rest, ok := strings.CutPrefix(value, freeAgent)
	if !ok || rest != "" && !strings.ContainsRune("/?#", rune(rest[0])) || strings.HasPrefix(rest, "/accounts/") {
		return value
	}
	return ours + "/accounts/acme" + rest
}

// sentBack is what becomes of a value on its way to FreeAgent.
func sentBack(value string) string {
	for _, origin := range []string{ours, strings.Replace(ours, "http:", "https:", 1)} {
		if len(value) < len(origin) || !strings.EqualFold(value[:len(origin)], origin) {
			continue
		}
		rest := value[len(origin):]
		if rest != "" && !strings.ContainsRune("/?#", rune(rest[0])) {
			continue
		}
		if after, ok := strings.CutPrefix(rest, "/accounts/acme"); ok && (after == "" || strings.ContainsRune("/?#", rune(after[0]))) {
			return freeAgent + after
		}
		if !strings.HasPrefix(rest, "/accounts/") {
			return freeAgent + rest
		}
	}
	return value
}

func mapStrings(v any, change func(string) string) any {
	switch v := v.(type) {
	case string:
		return change(v)
	case []any:
		for i := range v {
			v[i] = mapStrings(v[i], change)
		}
	case map[string]any:
		out := make(map[string]any)
		for name, value := range v {
			out[change(name)] = mapStrings(value, change)
		}
		return out
	}
	return v
}

// Of a form those values change that begin with our origin when they are decoded, and no other.
func FuzzRewriteFormValues(f *testing.F) {
	for _, seed := range urlSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := strings.Split(inPieces(t, inward("form"), text), "&")
		pairs := strings.Split(text, "&")
		if len(got) != len(pairs) {
			t.Fatalf("%q became %q", text, got)
		}
		for i, pair := range pairs {
			name, value, _ := strings.Cut(pair, "=")
			if gotName, gotValue, _ := strings.Cut(got[i], "="); gotName != name || decoded(gotValue) != sentBack(decoded(value)) {
				t.Errorf("%q became %q", pair, got[i])
			} else if sentBack(decoded(value)) == decoded(value) && gotValue != value {
				t.Errorf("%q became %q", pair, got[i])
			}
		}
	})
}

// decoded is a form's value, in which a % that begins nothing is itself.
func decoded(value string) string {
	var out strings.Builder
	for i := 0; i < len(value); i++ {
		if plain, err := url.PathUnescape(value[i:min(i+3, len(value))]); value[i] == '%' && err == nil {
			out.WriteString(plain)
			i += 2
		} else {
			out.WriteByte(value[i])
		}
	}
	return out.String()
}
