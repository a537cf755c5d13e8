package build_test

import (
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	maxFileLines     = 400
	maxFunctionLines = 60
)

// topLevel is all that may lie in the top folder.
var topLevel = []string{
	"README.md", "CHANGELOG.md", "LICENSE", "docs",
	"go.mod", "go.sum", "cmd", "proxy", "tokens", "limiter", "internal",
	"config.example.yaml", "deploy", "Dockerfile", ".dockerignore",
	"Makefile", ".ci", ".gitignore",
}

// onlyInMain is what ties code to the process it runs in. main hands it on as arguments, so that all else can be tested.
var onlyInMain = []string{"os.Getenv", "os.LookupEnv", "os.Exit", "log.Fatal", "log.Fatalf", "log.Fatalln"}

// leftToDo matches a note that work is unfinished, spelt so that this file has none; skips matches testscript's skip command.
var (
	leftToDo = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME)\b`)
	skips    = regexp.MustCompile(`(?m)^\s*(\[[^]]*\]\s*)*skip\b`)
)

func TestTopFolderHoldsWhatItShould(t *testing.T) {
	for _, p := range files(t) {
		if top, _, _ := strings.Cut(p, "/"); !slices.Contains(topLevel, top) {
			t.Errorf("%s: %s has no place in the top folder", p, top)
		}
	}
}

func TestNothingIsLeftToDo(t *testing.T) {
	for _, p := range files(t) {
		for i, line := range strings.Split(read(t, p), "\n") {
			if leftToDo.MatchString(line) {
				t.Errorf("%s:%d: %s", p, i+1, strings.TrimSpace(line))
			}
		}
	}
}

func TestFilesStayShort(t *testing.T) {
	for _, p := range files(t) {
		if lines := strings.Count(read(t, p), "\n"); path.Ext(p) == ".go" && lines > maxFileLines {
			t.Errorf("%s has %d lines, more than %d", p, lines, maxFileLines)
		}
	}
}

// Tests are left out: a table may be as long as there are cases.
func TestFunctionsFitOnAScreen(t *testing.T) {
	for _, s := range sources(t, false) {
		for _, d := range s.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			first, last := s.at(f), s.fset.Position(f.End())
			if lines := last.Line - first.Line + 1; lines > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, more than %d", first, f.Name, lines, maxFunctionLines)
			}
		}
	}
}

func TestOnlyMainKnowsTheProcess(t *testing.T) {
	for _, s := range sources(t, false) {
		if path.Base(s.path) == "main.go" {
			continue
		}
		for n := range ast.Preorder(s.File) {
			if name := selected(n); slices.Contains(onlyInMain, name) {
				t.Errorf("%s: %s belongs in main.go", s.at(n), name)
			}
		}
	}
}

func TestNoPackageRunsCodeAtStart(t *testing.T) {
	for _, s := range sources(t, false) {
		for _, d := range s.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: init", s.at(f))
			}
		}
	}
}

func TestNoTestIsSkipped(t *testing.T) {
	for _, s := range sources(t, true) {
		for n := range ast.Preorder(s.File) {
			if matched, _ := path.Match("[bft].Skip*", selected(n)); matched {
				t.Errorf("%s: %s", s.at(n), selected(n))
			}
		}
	}
	for _, p := range files(t) {
		if path.Ext(p) == ".txtar" && skips.MatchString(read(t, p)) {
			t.Errorf("%s skips", p)
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, s := range sources(t, false) {
		for _, d := range s.Decls {
			for _, name := range undocumented(d) {
				t.Errorf("%s: %s has no comment", s.at(name), name)
			}
		}
	}
}

// wellKnown are methods whose name alone says what they do: they satisfy an interface of the standard library.
var wellKnown = []string{"Error", "Unwrap", "Is", "String", "GoString", "Format", "MarshalText", "LogValue"}

// undocumented returns the exported names of a declaration that no comment explains.
func undocumented(d ast.Decl) []*ast.Ident {
	switch d := d.(type) {
	case *ast.FuncDecl:
		hidden := d.Recv != nil && (!exportedReceiver(d) || slices.Contains(wellKnown, d.Name.Name))
		if d.Name.IsExported() && d.Doc == nil && !hidden {
			return []*ast.Ident{d.Name}
		}
	case *ast.GenDecl:
		var names []*ast.Ident
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Doc == nil && d.Doc == nil {
					names = append(names, s.Name)
				}
			case *ast.ValueSpec:
				if s.Doc == nil && s.Comment == nil && d.Doc == nil {
					names = append(names, s.Names...)
				}
			}
		}
		return slices.DeleteFunc(names, func(n *ast.Ident) bool { return !n.IsExported() })
	}
	return nil
}

func exportedReceiver(method *ast.FuncDecl) bool {
	exported := false
	for n := range ast.Preorder(method.Recv.List[0].Type) {
		name, ok := n.(*ast.Ident)
		exported = exported || ok && name.IsExported()
	}
	return exported
}

// selected is the text of a package's or variable's member, such as "os.Exit", and empty for any other node.
func selected(n ast.Node) string {
	s, ok := n.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := s.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return x.Name + "." + s.Sel.Name
}
