package build_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// systems are those that releases are made for, beside the one that runs the tests. The 64-bit processors differ in nothing that
// our code can see.
var systems = []string{"windows", "darwin"}

// Everything but the tests is type-checked for other systems, which takes seconds: to compile it, with the standard
// library, takes minutes where the build cache is cold. Of packages that are not ours the functions' bodies are left out.
func TestCodeFitsOtherSystems(t *testing.T) {
	t.Parallel()
	for _, system := range systems {
		fset := token.NewFileSet()
		loaded, err := packages.Load(&packages.Config{
			Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedDeps |
				packages.NeedTypes | packages.NeedTypesSizes | packages.NeedSyntax | packages.NeedModule,
			Dir:       root,
			Env:       append(os.Environ(), "GOOS="+system, "GOARCH=amd64", "CGO_ENABLED=0"),
			Fset:      fset,
			ParseFile: parse(t),
		}, "./...")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range loaded {
			for _, problem := range p.Errors {
				t.Errorf("%s: %v", system, problem)
			}
		}
		if len(loaded) < 10 {
			t.Errorf("%s: %d packages", system, len(loaded))
		}
	}
}

// parse leaves out what functions do that are not ours.
func parse(t *testing.T) func(*token.FileSet, string, []byte) (*ast.File, error) {
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	return func(fset *token.FileSet, name string, text []byte) (*ast.File, error) {
		file, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
		if file == nil || strings.HasPrefix(name, top+string(filepath.Separator)) {
			return file, err
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				f.Body = nil
			}
		}
		return file, err
	}
}
