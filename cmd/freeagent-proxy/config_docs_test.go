package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	examplePath = "../../config.example.yaml"
	tablePath   = "../../docs/configuration.md"
)

func readText(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// settingsOf is the keys of all that Config can hold, such as accounts.NAME.app or limits.api[].per.
func settingsOf(section string, typ reflect.Type) []string {
	var keys []string
	for _, f := range fieldsOf(reflect.New(typ).Elem()) {
		for _, key := range f.keys() {
			key = strings.TrimPrefix(section+"."+key, ".")
			switch typ := reflect.TypeOf(f.target).Elem(); {
			case typ == reflect.TypeFor[Secret]():
				keys = append(keys, key)
			case typ.Kind() == reflect.Struct:
				keys = append(keys, settingsOf(key, typ)...)
			case typ.Kind() == reflect.Map:
				keys = append(keys, settingsOf(key+".NAME", typ.Elem())...)
			case typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Struct:
				keys = append(append(keys, key), settingsOf(key+"[]", typ.Elem())...)
			default:
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// TestConfigExampleLoads: as it is, the example shows the defaults.
func TestConfigExampleLoads(t *testing.T) {
	getenv := fakeEnv("FREEAGENT_CLIENT_SECRET=s")
	got, err := loadConfig(examplePath, getenv)
	if err != nil {
		t.Fatal(err)
	}
	if name, ok := got.DefaultAccount(); name != "acme" || !ok || got.Accounts[name].App != "main" {
		t.Errorf("got default account %q of %+v, want acme with app main", name, got.Accounts)
	}
	want := defaultConfig(getenv)
	want.Apps, want.Accounts, want.Variables = got.Apps, got.Accounts, got.Variables
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant the defaults\n%+v", got, want)
	}
}

// TestConfigExampleIsComplete turns on the settings that are off ("#key") and finds every one there is.
func TestConfigExampleIsComplete(t *testing.T) {
	folder := t.TempDir()
	key := strings.Repeat("A", 43) + "="
	for name, secret := range map[string]string{"old.key": key, "second-app.secret": "s", "otlp.headers": "a=b"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := regexp.MustCompile(`(?m)^( *)#([^ \n])`).ReplaceAllString(readText(t, examplePath), "$1$2")
	d := &decoder{
		problems: &problems{file: "config.example.yaml", lines: map[string]int{}},
		getenv: fakeEnv("FREEAGENT_CLIENT_SECRET=s", "FREEAGENT_PROXY_KEY="+key, "FREEAGENT_PROXY_ADMIN_PASSWORD=p",
			"FREEAGENT_PROXY_REDIS=redis://localhost", "FREEAGENT_PROXY_REDIS_PASSWORD=p", "FREEAGENT_PROXY_SENTINEL_PASSWORD=p",
			"FREEAGENT_PROXY_OTLP_HEADERS=api-key=k"),
		folder: folder,
	}
	c := defaultConfig(d.getenv)
	d.decodeFile([]byte(all), &c)
	_, err := c.finish(d.problems)
	if all := (*configError)(nil); errors.As(err, &all) {
		alternative := regexp.MustCompile(`keep one of the two|redis-ca.pem|redis-client.pem|server.pem`)
		for _, p := range all.problems {
			if !alternative.MatchString(p.text) {
				t.Error(p)
			}
		}
	}
	named := regexp.MustCompile(`^(apps|accounts|clients)\.[^.]+`)
	index := regexp.MustCompile(`\[\d+\]`)
	given := map[string]bool{}
	for key := range d.lines {
		given[index.ReplaceAllString(named.ReplaceAllString(key, "$1.NAME"), "[]")] = true
	}
	for _, key := range settingsOf("", reflect.TypeFor[Config]()) {
		if !given[key] {
			t.Errorf("config.example.yaml does not have %s", key)
		}
	}
}

// TestConfigTable: docs/configuration.md has every setting, and none that there is not.
func TestConfigTable(t *testing.T) {
	_, table, found := strings.Cut(readText(t, tablePath), "\n## Settings\n")
	if !found {
		t.Fatal("no Settings in docs/configuration.md")
	}
	got := map[string]bool{}
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) == 6 { // key, meaning, default, unit, and the ends
			for _, key := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				got[key[1]] = true
			}
		}
	}
	want := settingsOf("", reflect.TypeFor[Config]())
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(got)); !slices.Equal(got, want) {
		t.Errorf("docs/configuration.md has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestConfigTableOrder: who looks at the table and the example side by side finds the sections of both in the same order.
func TestConfigTableOrder(t *testing.T) {
	_, table, _ := strings.Cut(readText(t, tablePath), "\n## Settings\n")
	order := func(text, pattern string) (sections []string) {
		for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			if !slices.Contains(sections, found[1]) {
				sections = append(sections, found[1])
			}
		}
		return sections
	}
	got := order(readText(t, examplePath), `(?m)^#?([a-z_]+):`)
	want := order(table, "(?m)^\\| `([a-z_]+)[.`]")
	if len(want) < 17 || !slices.Equal(got, want) {
		t.Errorf("config.example.yaml has\n%s\ndocs/configuration.md\n%s", got, want)
	}
}

// TestConfigTableDefaults: the defaults that the table states are the ones that hold.
func TestConfigTableDefaults(t *testing.T) {
	table := readText(t, tablePath)
	c := defaultConfig(fakeEnv())
	for key, value := range map[string]string{
		"listen":            c.Listen[0],
		"admin.listen":      c.Admin.Listen,
		"upstream.base_url": c.Upstream.BaseURL.String(),
		"upstream.timeout":  "75s",
		"limits.guard":      c.Limits.Guard.String(),
		"limits.max_wait":   c.Limits.MaxWait.String(),
		"log.level":         c.Log.Level,

		"writes.one_at_a_time": "[" + strings.Join(c.Writes.OneAtATime, ", ") + "]",
		"log.format":           c.Log.Format,
	} {
		row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(key) + "` \\|[^|]*\\| `([^`]*)` \\|").FindStringSubmatch(table)
		if row == nil || row[1] != value {
			t.Errorf("%s: got row %q, want default %s", key, row, value)
		}
	}
	if c.Upstream.Timeout != 75*time.Second {
		t.Errorf("got upstream.timeout %s, and the table says 75s", c.Upstream.Timeout)
	}
}
