package build_test

import (
	"encoding/json"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
)

// mayImport says which of our packages each of our packages may import. The commands, below cmd, may import all. A new
// package fails the test until it has a line here: who may know it is decided when it is made.
var mayImport = map[string][]string{
	"proxy":              {"limiter", "tokens", "internal/outcomes", "internal/turns"},
	"tokens":             {},
	"limiter":            {},
	"internal/simulator": {},
	"internal/admin":     {},
	"internal/turns":     {},
	"internal/bench":     {"limiter", "proxy", "tokens", "internal/simulator"},
	"internal/build":     {},
	"internal/outcomes":  {},
	"internal/tracing":   {},
	"internal/release":   {},
	"internal/porttest":  {},
	"internal/redistest": {"internal/porttest"}, // real servers for the tests of all others

	"internal/browsertest": {}, // a real browser for them
}

// onlyInCommands are the libraries for what a command line is made of: settings and flags.
var onlyInCommands = []string{"github.com/goccy/go-yaml", "github.com/spf13/cobra", "github.com/spf13/pflag"}

// silent are the packages that return errors and report events, and leave it to their caller to log.
var silent = []string{"tokens", "limiter", "internal/outcomes", "internal/turns"}

// loggers are what a silent package must not import.
var loggers = []string{"go.uber.org/zap", "log"}

// A listed package is what go list says of one.
type listed struct {
	ImportPath string
	Imports    []string // those of its tests not included
}

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	for _, p := range list(t) {
		dir := strings.TrimPrefix(p.ImportPath, module+"/")
		if within(dir, "cmd") {
			continue
		}
		allowed, known := mayImport[dir]
		if !known {
			t.Errorf("%s: no line in mayImport says what it may import", dir)
		}
		for _, imported := range p.Imports {
			own, ours := strings.CutPrefix(imported, module+"/")
			if ours && !slices.Contains(allowed, own) {
				t.Errorf("%s imports %s; it may import %q of ours", dir, own, allowed)
			}
			if isAny(imported, onlyInCommands) {
				t.Errorf("%s imports %s, which belongs in cmd", dir, imported)
			}
			if slices.Contains(silent, dir) && isAny(imported, loggers) {
				t.Errorf("%s imports %s; it returns errors and never logs", dir, imported)
			}
		}
	}
}

// redisFiles are those that may know go-redis, but for tests.
var redisFiles = []string{
	"tokens/redis*.go", "limiter/redis*.go", "internal/turns/redis.go", "internal/outcomes/redis*.go", "cmd/freeagent-proxy/redis*.go",
	"cmd/freeagent-proxy/serve.go", "internal/bench/redis*.go", "internal/redistest/*.go",
}

// tracingFiles are those that may know OpenTelemetry's SDK and its protocol, but for tests; others know its API alone.
const tracingFiles = "internal/tracing/*.go"

func TestTracingSDKIsKnownToItsPackageOnly(t *testing.T) {
	for _, s := range sources(t, false) {
		matched, _ := path.Match(tracingFiles, s.path)
		for _, library := range []string{"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters", "go.opentelemetry.io/proto"} {
			if s.imports(library) && !matched {
				t.Errorf("%s imports %s; only %s may", s.path, library, tracingFiles)
			}
		}
	}
}

func TestRedisIsKnownToItsFilesOnly(t *testing.T) {
	for _, s := range sources(t, false) {
		known := slices.ContainsFunc(redisFiles, func(pattern string) bool {
			matched, _ := path.Match(pattern, s.path)
			return matched
		})
		if s.imports("github.com/redis/go-redis/v9") && !known {
			t.Errorf("%s imports go-redis; only %q may", s.path, redisFiles)
		}
	}
}

// list returns all our packages.
func list(t *testing.T) []listed {
	t.Helper()
	var packages []listed
	dec := json.NewDecoder(strings.NewReader(run(t, "go", "list", "-json=ImportPath,Imports", "./...")))
	for {
		var p listed
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages
		case err != nil:
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func isAny(importPath string, packages []string) bool {
	return slices.ContainsFunc(packages, func(p string) bool { return within(importPath, p) })
}
