package build_test

import (
	"go/ast"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// documents are all Markdown files.
func documents(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(files(t), func(p string) bool { return path.Ext(p) != ".md" })
}

var (
	fenced = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	span   = regexp.MustCompile("`[^`\n]+`")
	link   = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	title  = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
)

// anchors are the names by which GitHub and its like let a document's headings be linked to.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, heading := range title.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		name := strings.ToLower(regexp.MustCompile(`[^\p{L}\p{N}\- _]`).ReplaceAllString(heading[1], ""))
		all[strings.ReplaceAll(name, " ", "-")] = true
	}
	return all
}

// TestLinksLeadSomewhere: within the repository, to files and headings that there are.
func TestLinksLeadSomewhere(t *testing.T) {
	known := files(t)
	for _, p := range documents(t) {
		text := span.ReplaceAllString(fenced.ReplaceAllString(read(t, p), ""), "")
		for _, found := range link.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(found[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			to := p
			if target != "" {
				to = path.Join(path.Dir(p), target)
			}
			if info, err := os.Stat(filepath.Join(root, to)); err != nil || !info.IsDir() && !slices.Contains(known, to) {
				t.Errorf("%s: %s leads nowhere", p, found[1])
			} else if anchor != "" && !anchors(read(t, to))[anchor] {
				t.Errorf("%s: %s has no heading %q", p, to, anchor)
			}
		}
	}
}

// TestEveryDocumentIsLinked: whoever reads on from README.md comes to each.
func TestEveryDocumentIsLinked(t *testing.T) {
	seen := map[string]bool{"README.md": true, "CHANGELOG.md": true}
	for todo := []string{"README.md"}; len(todo) > 0; todo = todo[1:] {
		if _, err := os.Stat(filepath.Join(root, todo[0])); err != nil {
			continue // which TestLinksLeadSomewhere says
		}
		for _, found := range link.FindAllStringSubmatch(read(t, todo[0]), -1) {
			target, _, _ := strings.Cut(found[1], "#")
			to := path.Join(path.Dir(todo[0]), target)
			if target != "" && path.Ext(to) == ".md" && !strings.Contains(target, "://") && !seen[to] {
				seen[to] = true
				todo = append(todo, to)
			}
		}
	}
	for _, p := range documents(t) {
		if !seen[p] {
			t.Errorf("nothing leads from README.md to %s", p)
		}
	}
}

// literals are all string constants that are written in the program's sources; what tests and measures it is no part of it.
func literals(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, s := range sources(t, false) {
		if strings.HasPrefix(s.path, "internal/simulator/") || strings.HasPrefix(s.path, "internal/bench/") {
			continue
		}
		for n := range ast.Preorder(s.File) {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				text, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				all.WriteString(text + "\x00")
			}
		}
	}
	return all.String()
}

// TestTroubleshootingQuotesTheProgram: what "you see" in docs/troubleshooting.md, and when the quick start does not work, is
// what the program says. … stands for what varies.
func TestTroubleshootingQuotesTheProgram(t *testing.T) {
	said := literals(t)
	quotes := 0
	for _, document := range []string{"docs/troubleshooting.md", "docs/quickstart.md"} {
		inTable := false
		for line := range strings.Lines(read(t, document)) {
			if !strings.HasPrefix(line, "| ") {
				inTable = inTable && strings.HasPrefix(line, "|")
				continue
			}
			first := strings.Split(line, " | ")[0]
			if strings.Contains(first, "you see") {
				inTable = true
				continue
			}
			for _, quote := range span.FindAllString(first, -1) {
				for _, part := range strings.Split(strings.Trim(quote, "`"), "…") {
					// Settings, headers and paths, which are not the program's words, have no space.
					if part = strings.TrimSpace(part); !inTable || !strings.Contains(part, " ") {
						continue
					}
					quotes++
					if !strings.Contains(said, part) && !slices.Contains(notOurs, part) {
						t.Errorf("%s: the program never says %q", document, part)
					}
				}
			}
		}
	}
	if quotes < 50 {
		t.Errorf("found %d quotes, want all of the tables", quotes)
	}
}

// notOurs are quotes of FreeAgent's and of the system's.
var notOurs = []string{"Access token not recognised", "address already in use"}

// TestSecurityNamesTests: those that docs/security.md says hold its answers.
func TestSecurityNamesTests(t *testing.T) {
	var all []string
	for _, s := range sources(t, true) {
		for _, d := range s.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				all = append(all, f.Name.Name)
			}
		}
	}
	for _, p := range files(t) {
		all = append(all, path.Base(p))
	}
	named := regexp.MustCompile("`(Test\\w+|[\\w-]+\\.txtar)`").FindAllStringSubmatch(read(t, "docs/security.md"), -1)
	if len(named) < 30 {
		t.Errorf("found %d names, want those of the whole table", len(named))
	}
	for _, name := range named {
		if !slices.Contains(all, name[1]) {
			t.Errorf("docs/security.md: there is no test %s", name[1])
		}
	}
}
