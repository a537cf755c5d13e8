package tokens_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"freeagent-proxy/tokens"
)

func newKey(t testing.TB, id string) tokens.Key {
	t.Helper()
	key, err := tokens.ParseKey(id, tokens.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSealer(t testing.TB, keys ...tokens.Key) *tokens.Sealer {
	t.Helper()
	sealer, err := tokens.NewSealer(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return sealer
}

func TestNewKey(t *testing.T) {
	text := tokens.NewKey()
	if raw, err := base64.StdEncoding.DecodeString(text); err != nil || len(raw) != 32 {
		t.Errorf("NewKey = %q, want 32 bytes in standard base64", text)
	}
	if text == tokens.NewKey() {
		t.Error("two keys are the same")
	}
	if _, err := tokens.ParseKey("a", text+"\n"); err != nil {
		t.Errorf("ParseKey with a newline behind the key: %v", err)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	good := tokens.NewKey()
	for name, c := range map[string]struct{ id, text string }{
		"no id":        {"", good},
		"blank in id":  {"a b", good},
		"newline":      {"a\n", good},
		"reserved id":  {"@file", good},
		"long id":      {strings.Repeat("a", 65), good},
		"empty":        {"a", ""},
		"16 bytes":     {"a", base64.StdEncoding.EncodeToString(make([]byte, 16))},
		"33 bytes":     {"a", base64.StdEncoding.EncodeToString(make([]byte, 33))},
		"hexadecimals": {"a", strings.Repeat("ab", 32)},
		"url alphabet": {"a", base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 32))},
	} {
		_, err := tokens.ParseKey(c.id, c.text)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if len(c.text) > 8 && strings.Contains(err.Error(), c.text[:8]) {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
	}
}

func TestSealer(t *testing.T) {
	old, recent := newKey(t, "2025"), newKey(t, "2026")
	plain := []byte("a grant")
	sealed := newSealer(t, old).Seal("acme", plain)
	if bytes.Contains(sealed, plain) {
		t.Error("it is not sealed")
	}
	if bytes.Equal(sealed, newSealer(t, old).Seal("acme", plain)) {
		t.Error("the same twice: the nonce is not random")
	}
	got, stale, err := newSealer(t, old).Open("acme", sealed)
	if err != nil || stale || !bytes.Equal(got, plain) {
		t.Errorf("Open = %q, %v, %v", got, stale, err)
	}
	got, stale, err = newSealer(t, recent, old).Open("acme", sealed)
	if err != nil || !stale || !bytes.Equal(got, plain) {
		t.Errorf("Open with a newer key in front = %q, %v, %v; want it stale", got, stale, err)
	}
	for name, c := range map[string]struct {
		sealer  *tokens.Sealer
		account string
		sealed  []byte
		want    string
	}{
		"another account":     {newSealer(t, old), "other", sealed, "2025"},
		"key not configured":  {newSealer(t, recent), "acme", sealed, "not configured"},
		"another key, its id": {newSealer(t, newKey(t, "2025")), "acme", sealed, "another key"},
		"empty":               {newSealer(t, old), "acme", nil, "empty"},
		"newer version":       {newSealer(t, old), "acme", []byte("freeagent-proxy grant 2 key=2025\nxyz"), "newer"},
		"something else":      {newSealer(t, old), "acme", []byte(`{"access_token":"x"}`), "damaged"},
	} {
		_, _, err := c.sealer.Open(c.account, c.sealed)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
	if _, err := tokens.NewSealer(); err == nil {
		t.Error("a sealer without a key")
	}
	if _, err := tokens.NewSealer(old, newKey(t, "2025")); err == nil {
		t.Error("a sealer with one id twice")
	}
	if _, err := tokens.NewSealer(tokens.Key{ID: "x"}); err == nil {
		t.Error("a sealer with a key without secret")
	}
}

// Nothing that was cut or changed anywhere opens.
func TestDamagedSeal(t *testing.T) {
	sealer := newSealer(t, newKey(t, "2026"))
	sealed := sealer.Seal("acme", bytes.Repeat([]byte("a grant "), 40))
	for i := range sealed {
		if _, _, err := sealer.Open("acme", sealed[:i]); err == nil {
			t.Fatalf("opened though cut at byte %d", i)
		}
		for bit := range 8 {
			damaged := bytes.Clone(sealed)
			damaged[i] ^= 1 << bit
			if _, _, err := sealer.Open("acme", damaged); err == nil {
				t.Fatalf("opened though bit %d of byte %d is another", bit, i)
			}
		}
	}
	if _, _, err := sealer.Open("acme", append(bytes.Clone(sealed), 0)); err == nil {
		t.Error("opened though there is a byte too many")
	}
}

func FuzzOpen(f *testing.F) {
	sealer := newSealer(f, newKey(f, "2026"))
	f.Add(sealer.Seal("acme", []byte("a grant")))
	f.Add([]byte("freeagent-proxy grant 1 key=2026\n"))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		plain, _, err := sealer.Open("acme", sealed)
		if err == nil && string(plain) != "a grant" {
			t.Errorf("opened %q, which nobody sealed", plain)
		}
	})
}
