package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// snippetCommands run what docs/clients.md marks with <!-- run: NAME -->, with the file that the text is saved in behind it.
var snippetCommands = map[string]struct{ command, file string }{
	"curl":   {"sh -eu", "snippet.sh"},
	"wget":   {"sh -eu", "snippet.sh"},
	"http10": {"sh -eu", "snippet.sh"},
	"go":     {"go run", "snippet.go"},
	"python": {"python3", "snippet.py"},
	"ruby":   {"ruby", "snippet.rb"},
	"php":    {"php", "snippet.php"},
	"java":   {"java -XX:TieredStopAtLevel=1", "Snippet.java"},
	"node":   {"node", "snippet.mjs"},
	"perl":   {"perl", "snippet.pl"},
}

// snippetsNotRun are marked with <!-- not run: NAME -->: Debian has no package that could run them.
var snippetsNotRun = []string{"csharp", "powershell"}

// snippetSteps are what FreeAgent sees of each.
var snippetSteps = []string{
	"GET /v2/contacts?per_page=100 200", "GET /v2/contacts?page=2&per_page=100 200", "GET /v2/contacts?page=3&per_page=100 200",
	"POST /v2/contacts 201",
}

const snippetContacts = 250

// marked is a block of code with its marker, or without one.
var marked = regexp.MustCompile("(?m)^(?:<!-- (run|not run): (\\w+) -->\n)?```(\\w+)\n((?s:.*?))^```$")

// The snippets of docs/clients.md do what it says, each by the whole way to FreeAgent, as they stand there.
func TestSnippets(t *testing.T) {
	t.Parallel()
	snippets := readSnippets(t)
	if got, want := slices.Sorted(maps.Keys(snippets)), slices.Sorted(maps.Keys(snippetCommands)); !slices.Equal(got, want) {
		t.Fatalf("docs/clients.md has snippets to run of %q, want %q", got, want)
	}
	goEnv := goEnvironment(t)
	var running sync.WaitGroup // not t.Parallel, which runs only as many at a time as there are processors
	for name, text := range snippets {
		running.Go(func() {
			t.Run(name, func(t *testing.T) {
				p := newProgram(t, snippetContacts)
				p.env = append(p.env, goEnv...)
				how := snippetCommands[name]
				file := filepath.Join(p.folder, how.file)
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := p.run(append(strings.Fields(how.command), file)...)
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				p.checkArrivals(p.arrivals(), snippetSteps)
				p.checkLog(snippetSteps)
				for _, want := range []string{`\bContact 1\b`, fmt.Sprintf(`\bContact %d\b`, snippetContacts), regexp.QuoteMeta(p.url) + `/v2/contacts/\d+`} {
					if !regexp.MustCompile(want).MatchString(out) {
						t.Errorf("it does not print %s: %.500s", want, out)
					}
				}
			})
		})
	}
	running.Wait()
}

// readSnippets returns the snippets to run by name, and sees to it that there are no others than it should be.
func readSnippets(t *testing.T) map[string]string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(doc), "\n## Pointing a program at the proxy\n")
	section, _, ended := strings.Cut(section, "\n## ")
	if !found || !ended {
		t.Fatal("docs/clients.md has no section about pointing a program at the proxy, or nothing behind it")
	}
	snippets := map[string]string{}
	var notRun []string
	for _, block := range marked.FindAllStringSubmatch(section, -1) {
		switch marker, name, language, text := block[1], block[2], block[3], block[4]; marker {
		case "run":
			snippets[name] = text
		case "not run":
			notRun = append(notRun, name)
		default:
			t.Errorf("a snippet in %s has no marker: %.100s", language, text)
		}
	}
	if !slices.Equal(notRun, snippetsNotRun) {
		t.Errorf("not run are %q, want %q", notRun, snippetsNotRun)
	}
	return snippets
}

// goEnvironment lets the go command find what it has built before.
func goEnvironment(t *testing.T) []string {
	t.Helper()
	cache, err := exec.CommandContext(t.Context(), "go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"GOCACHE=" + string(bytes.TrimSpace(cache))}
}
