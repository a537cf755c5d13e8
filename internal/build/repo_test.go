// Package build_test holds the repository to its own rules: who may import whom, where the environment is read, how long
// code may grow, what lies at the top. With -tags image it also holds the container image to its promises; that part needs
// root and a built image, so that it stays out of the plain test run.
//
// The rules are tests, not linter settings, because each is a decision of this project that a reader should find stated
// once, in words, with the list of its exceptions.
package build_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const (
	// root is the repository's top folder, seen from this package's.
	root   = "../.."
	module = "freeagent-proxy"
)

// files returns the repository's files as slash-separated paths below root: those that git keeps or would keep, or all
// of them in a copy without git.
func files(t *testing.T) []string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		return walk(t)
	}
	// A checkout of another user's, as in some CI systems, is as good as our own: nothing in it is run.
	out := run(t, "git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	var paths []string
	for _, p := range strings.Split(strings.TrimRight(out, "\x00"), "\x00") {
		if _, err := os.Lstat(filepath.Join(root, p)); errors.Is(err, fs.ErrNotExist) {
			continue // removed, not yet committed
		}
		paths = append(paths, p)
	}
	return paths
}

func walk(t *testing.T) []string {
	t.Helper()
	var paths []string
	err := fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p == "bin", p == "dist":
			return fs.SkipDir
		case !d.IsDir():
			paths = append(paths, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// read returns the content of one of files.
func read(t *testing.T, p string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, p))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// run returns what a command prints when run in root.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = root
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	return string(out)
}

// A source is one parsed Go file.
type source struct {
	*ast.File
	path string
	fset *token.FileSet
}

// sources returns the parsed Go files: those of tests, or all the others.
func sources(t *testing.T, tests bool) []source {
	t.Helper()
	var parsed []source
	for _, p := range files(t) {
		if path.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") != tests {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, read(t, p), parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, source{File: f, path: p, fset: fset})
	}
	return parsed
}

// at is the place of a node, for messages.
func (s source) at(n ast.Node) token.Position {
	return s.fset.Position(n.Pos())
}

// imports reports whether the file imports the package or one below it.
func (s source) imports(pkg string) bool {
	for _, i := range s.Imports {
		if within(strings.Trim(i.Path.Value, `"`), pkg) {
			return true
		}
	}
	return false
}

// within reports whether an import path is pkg or lies below it.
func within(importPath, pkg string) bool {
	return importPath == pkg || strings.HasPrefix(importPath, pkg+"/")
}
