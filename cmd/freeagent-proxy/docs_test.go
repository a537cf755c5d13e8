package main

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"freeagent-proxy/internal/admin"
)

const repository = "../.."

// documents are the files that tell people what to type: by path below the repository.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, file := range []string{"README.md", "config.example.yaml"} {
		all[file] = readText(t, filepath.Join(repository, file))
	}
	for _, folder := range []string{"docs", "deploy"} {
		err := fs.WalkDir(os.DirFS(repository), folder, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && p == "deploy/compose/secrets" {
				return fs.SkipDir
			}
			if err == nil && !d.IsDir() {
				all[p] = readText(t, filepath.Join(repository, p))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

var (
	codeBlock = regexp.MustCompile("(?ms)^ *```(\\w*)[^\n]*\n(.*?)^ *```$")
	codeSpan  = regexp.MustCompile("`([^`\n]+)`")
	indented  = regexp.MustCompile(`(?m)^(?:    |\t)(.*)$`)
	// called is the program's name where it is called, and the rest of the line.
	called = regexp.MustCompile(`(?:^|[\s"'(\[,/])freeagent-proxy"?,?[ \t]+"?(-*[a-z].*)`)
	// calledByPath is that in a file that is no document, whose own sentences may begin with the name.
	calledByPath = regexp.MustCompile(`/freeagent-proxy"?,?[ \t]+"?(-*[a-z].*)`)
)

// unnamed is a command with more words, without the program's name, as prose calls it: `check --online`.
var unnamed = regexp.MustCompile(`^(serve|authorize|accounts|clients|check|status|simulate|demo|keygen|healthcheck|version) (--)?[a-z]`)

// commandLines are what a document says behind the program's name: in code, and in files that are all code.
func commandLines(name, text string) (lines []string) {
	var code []string
	if filepath.Ext(name) == ".md" {
		for _, block := range codeBlock.FindAllStringSubmatch(text, -1) {
			code = append(code, block[2])
		}
		text = codeBlock.ReplaceAllString(text, "")
		for _, found := range indented.FindAllStringSubmatch(text, -1) {
			code = append(code, found[1])
		}
		for _, found := range codeSpan.FindAllStringSubmatch(text, -1) {
			code = append(code, found[1])
			if unnamed.MatchString(found[1]) {
				lines = append(lines, strings.Split(found[1], " · ")[0])
			}
		}
	} else {
		for _, found := range codeSpan.FindAllStringSubmatch(text, -1) {
			code = append(code, found[1])
		}
		text = regexp.MustCompile(`(?m)#.*$`).ReplaceAllString(text, "")
		for _, found := range calledByPath.FindAllStringSubmatch(text, -1) {
			lines = append(lines, found[1])
		}
	}
	for _, part := range code {
		for line := range strings.Lines(part) {
			for found := called.FindStringSubmatch(line); found != nil; found = called.FindStringSubmatch(found[1]) {
				lines = append(lines, found[1])
			}
		}
	}
	return lines
}

// notCalled begins what follows the name where it is another's: a user of Redis, a unit, a folder, a Deployment.
var notCalled = regexp.MustCompile(`^(-|on [>#]|\w+: |deployment/)`)

// lookUp goes from command to command along a line, and returns what it says that there is not.
func lookUp(root *cobra.Command, line string) (unknown string) {
	line, _, _ = strings.Cut(line, " #")
	command := root
	for i, word := range strings.Fields(line) {
		word = strings.Trim(word, "[]\"',.;`:")
		switch flag, isFlag := strings.CutPrefix(word, "--"); {
		case slices.Contains([]string{"", "·", "|", "&&", "<", ">", "-"}, word):
			return ""
		case isFlag && flag == "":
			return ""
		case isFlag:
			flag, _, _ = strings.Cut(flag, "=")
			if flag != "help" && command.Flags().Lookup(flag) == nil && command.InheritedFlags().Lookup(flag) == nil {
				return command.CommandPath() + " --" + flag
			}
		default:
			next := slices.IndexFunc(command.Commands(), func(c *cobra.Command) bool { return c.Name() == word })
			if next >= 0 {
				command = command.Commands()[next]
			} else if i == 0 || i == 1 && command.HasSubCommands() {
				return command.CommandPath() + " " + word
			}
		}
	}
	return ""
}

// TestDocumentedCommands: every command and flag that documents, and files to install by, name is the program's.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	root := new(command).root()
	checked := 0
	for name, text := range documents(t) {
		for _, line := range commandLines(name, text) {
			if notCalled.MatchString(line) {
				continue
			}
			checked++
			if unknown := lookUp(root, line); unknown != "" {
				t.Errorf("%s: there is no %q, in: freeagent-proxy %s", name, unknown, line)
			}
		}
	}
	if checked < 60 {
		t.Errorf("found %d command lines, want all of them", checked)
	}
	// And the other way round: README.md's table has every command, and the documents every flag.
	_, table, _ := strings.Cut(readText(t, repository+"/README.md"), "\n## Commands\n")
	table, _, _ = strings.Cut(table, "\n\nExit codes")
	everything := strings.Join(slices.Collect(maps.Values(documents(t))), "\n")
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c != root && !c.Hidden && !regexp.MustCompile("(`|· |"+c.Parent().Name()+" )"+c.Name()+"\\b").MatchString(table) {
			t.Errorf("README.md's table of commands lacks %s", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(root)
	for _, flag := range []string{"account", "config", "from", "listen", "online", "paste", "redirect-uri"} {
		if !strings.Contains(everything, "--"+flag) {
			t.Errorf("no document has the flag --%s", flag)
		}
	}
}

// TestDocumentedSettings: every setting that a document names is one, and what it shows of a configuration has no unknown key.
func TestDocumentedSettings(t *testing.T) {
	t.Parallel()
	settings := settingsOf("", reflect.TypeFor[Config]())
	sections := map[string]bool{}
	for _, key := range settings {
		top, _, _ := strings.Cut(key, ".")
		sections[top] = true
	}
	fields := jsonPaths("", reflect.TypeFor[admin.Status]())
	known := func(key string) bool {
		if slices.Contains(fields, key) {
			return true
		}
		key = regexp.MustCompile(`^(apps|accounts|clients)\.[^.]+`).ReplaceAllString(key, "$1.NAME")
		return slices.ContainsFunc(settings, func(s string) bool {
			return s == key || strings.HasPrefix(s, key+".") || strings.HasPrefix(s, key+"[")
		})
	}
	path := regexp.MustCompile(`^([a-z_]+)(\.[a-zA-Z_]+(\[\])?)+$`)
	checked := 0
	for name, text := range documents(t) {
		if filepath.Ext(name) != ".md" {
			continue
		}
		for _, found := range codeSpan.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
			key, _, _ := strings.Cut(found[1], ":")
			if top := path.FindStringSubmatch(key); top == nil || !sections[top[1]] || slices.Contains(fileEndings, filepath.Ext(key)) {
				continue
			}
			checked++
			if !known(key) {
				t.Errorf("%s: there is no setting %s", name, key)
			}
		}
		for _, block := range codeBlock.FindAllStringSubmatch(text, -1) {
			first := regexp.MustCompile(`(?m)^ *(\w+):`).FindStringSubmatch(block[2])
			if block[1] != "yaml" || first == nil || !sections[first[1]] {
				continue // Prometheus's, or another's
			}
			checked++
			for _, complaint := range unknownKeys(block[2]) {
				t.Errorf("%s: %s, in\n%s", name, complaint, block[2])
			}
		}
	}
	if checked < 100 {
		t.Errorf("found %d settings, want all of them", checked)
	}
}

// jsonPaths are the fields of what /api/status answers, written as settings are, since documents name them too.
func jsonPaths(section string, typ reflect.Type) (paths []string) {
	for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return nil
	}
	for i := range typ.NumField() {
		field := typ.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		path := strings.Trim(section+"."+name, ".") // an embedded struct has no name
		paths = append(append(paths, path), jsonPaths(path, field.Type)...)
	}
	return paths
}

// fileEndings are of what looks like a setting and is a file, such as limits.md.
var fileEndings = []string{".md", ".yaml", ".go", ".lua", ".txt"}

// unknownKeys are the complaints about keys of a part of a configuration, which may be indented.
func unknownKeys(part string) (complaints []string) {
	if indent := regexp.MustCompile(`^ +`).FindString(part); indent != "" {
		part = strings.ReplaceAll("\n"+part, "\n"+indent, "\n")
	}
	d := &decoder{problems: &problems{lines: map[string]int{}}, getenv: fakeEnv()}
	var c Config
	d.decodeFile([]byte(part), &c)
	for _, p := range d.found {
		if strings.Contains(p.text, "unknown key") || strings.Contains(p.text, "YAML") {
			complaints = append(complaints, p.String())
		}
	}
	return complaints
}

// TestDocumentedVariables: every environment variable of ours that a document names is read by the program, is named in the
// example configuration, or is the document's own.
func TestDocumentedVariables(t *testing.T) {
	t.Parallel()
	var sources strings.Builder
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); filepath.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go") {
			sources.WriteString(readText(t, name))
		}
	}
	known := sources.String() + readText(t, examplePath)
	own := []string{
		"FREEAGENT_URL", "FREEAGENT_KEY", // of the programs in docs/clients.md
		"FREEAGENT_PROXY_VERSION", // of deploy/compose
	}
	for name, text := range documents(t) {
		for _, variable := range regexp.MustCompile(`\bFREEAGENT_[A-Z_]+`).FindAllString(text, -1) {
			if !slices.Contains(own, variable) && !regexp.MustCompile(variable+`\b`).MatchString(known) {
				t.Errorf("%s: nothing reads %s", name, variable)
			}
		}
	}
}

// TestDocumentedMetrics: every metric that is named elsewhere is in the table of docs/metrics.md.
func TestDocumentedMetrics(t *testing.T) {
	t.Parallel()
	table := readText(t, repository+"/docs/metrics.md")
	for name, text := range documents(t) {
		for _, metric := range regexp.MustCompile(`\bfreeagent_proxy_[a-z_]*[a-z]`).FindAllString(text, -1) {
			base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(metric, "")
			if !strings.Contains(table, "| `"+metric+"` |") && !strings.Contains(table, "| `"+base+"` |") {
				t.Errorf("%s: docs/metrics.md does not have %s", name, metric)
			}
		}
	}
}
