package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const top = "../.."

var made = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// One platform, this machine's, for real: all of a release but for the other platforms and the second cache.
func TestRelease(t *testing.T) {
	t.Parallel()
	dist := t.TempDir()
	for name, text := range map[string]string{"freeagent-proxy_v0.0.1_linux_amd64.tar.gz": "an earlier release", "notes.txt": "mine"} {
		if err := os.WriteFile(filepath.Join(dist, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := options{
		source: top, dist: dist, version: "v1.2.3-test", commit: "c0ffee", made: made, sharedCache: true,
		platforms: []string{runtime.GOOS + "/" + runtime.GOARCH}, compression: gzip.BestSpeed, progress: io.Discard,
	}
	if err := release(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	title := fmt.Sprintf("freeagent-proxy_v1.2.3-test_%s_%s", runtime.GOOS, runtime.GOARCH)
	checkSums(t, dist, title+".cdx.json", title+".tar.gz")
	if text, err := os.ReadFile(filepath.Join(dist, "notes.txt")); err != nil || string(text) != "mine" {
		t.Errorf("a file that is not ours: %q, %v", text, err)
	}
	folder := unpack(t, filepath.Join(dist, title+".tar.gz"), title)
	var got []string
	_ = fs.WalkDir(os.DirFS(folder), ".", func(p string, d fs.DirEntry, _ error) error {
		if !d.IsDir() && !strings.HasPrefix(p, "docs/") && !strings.HasPrefix(p, "deploy/") {
			got = append(got, p)
		}
		return nil
	})
	want := []string{
		"CHANGELOG.md", "LICENSE", "README.md", "completions/bash/freeagent-proxy", "completions/fish/freeagent-proxy.fish",
		"completions/powershell/freeagent-proxy.ps1", "completions/zsh/_freeagent-proxy", "config.example.yaml", "freeagent-proxy", "man/man1/freeagent-proxy.1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the archive has\n%q\nwant\n%q", got, want)
	}
	text, err := exec.Command(filepath.Join(folder, "freeagent-proxy"), "version").Output()
	if err != nil || !strings.HasPrefix(string(text), "freeagent-proxy v1.2.3-test (commit c0ffee, ") {
		t.Errorf("version: %q, %v", text, err)
	}
	page, err := os.ReadFile(filepath.Join(folder, "man/man1/freeagent-proxy.1"))
	if err != nil || !strings.Contains(string(page), `freeagent\-proxy v1.2.3\-test`) {
		t.Errorf("manual page: %v, %.80q", err, page)
	}
	checkBill(t, filepath.Join(dist, title+".cdx.json"), filepath.Join(folder, "freeagent-proxy"))
}

// checkSums compares SHA256SUMS with the files, which are all of the release.
func checkSums(t *testing.T, dist string, files ...string) {
	t.Helper()
	var want strings.Builder
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(dist, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&want, "%x  %s\n", sha256.Sum256(content), name)
	}
	got, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
	if err != nil || string(got) != want.String() {
		t.Errorf("SHA256SUMS: %v, got\n%swant\n%s", err, got, &want)
	}
	there, _ := filepath.Glob(filepath.Join(dist, "freeagent-proxy_*"))
	if len(there) != len(files) {
		t.Errorf("dist has %q", there)
	}
}

// unpack unpacks an archive, of which everything is below one folder, root's, and of one age.
func unpack(t *testing.T, archive, title string) (folder string) {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	compressed, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	folder = t.TempDir()
	for r := tar.NewReader(compressed); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return folder
		}
		if err != nil {
			t.Fatal(err)
		}
		name, below := strings.CutPrefix(h.Name, title+"/")
		if !below || !filepath.IsLocal(name) || h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(made) {
			t.Errorf("the archive has %+v", h)
		}
		content, err := io.ReadAll(r)
		if err == nil {
			err = os.MkdirAll(filepath.Join(folder, filepath.Dir(name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), content, fs.FileMode(h.Mode))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// checkBill compares the SBOM with what the go command says is needed, and with go.mod.
func checkBill(t *testing.T, path, binary string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b bill
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&b); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	root := b.Metadata.Component
	if b.Format != "CycloneDX" || b.SpecVersion != "1.6" || b.Version != 1 || !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(b.Serial) ||
		b.Metadata.Timestamp != made.Format(time.RFC3339) || root.Version != "v1.2.3-test" || root.Hashes[0].Content != fmt.Sprintf("%x", sha256.Sum256(content)) {
		t.Errorf("the SBOM says %+v of %+v", b.Metadata, b.Serial)
	}
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./cmd/freeagent-proxy")
	cmd.Dir, cmd.Env = top, append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(want)
	want = slices.Compact(slices.DeleteFunc(want, func(s string) bool { return s == "" }))
	mod, err := os.ReadFile(filepath.Join(top, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	refs := map[string]bool{}
	for _, c := range b.Components {
		if c.Type != "library" || c.Purl == "" || refs[c.Ref] {
			t.Errorf("component %+v", c)
		}
		refs[c.Ref] = true
		if c.Name == "std" {
			continue
		}
		got = append(got, c.Name+" "+c.Version)
		if !strings.Contains(string(mod), "\t"+c.Name+" "+c.Version+"\n") && !strings.Contains(string(mod), "\t"+c.Name+" "+c.Version+" // indirect\n") {
			t.Errorf("%s %s is not in go.mod", c.Name, c.Version)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) || len(b.Components) != len(want)+1 {
		t.Errorf("the SBOM has\n%q\nwant\n%q", got, want)
	}
	if len(b.Dependencies) != 1 || b.Dependencies[0].Ref != root.Ref || len(b.Dependencies[0].DependsOn) != len(refs) {
		t.Errorf("dependencies: %+v", b.Dependencies)
	}
}

// A zip for Windows has the same, and comes out the same in whatever order its files are found.
func TestZip(t *testing.T) {
	entries := []entry{{"b.exe", 0o755, []byte("program")}, {"a/c", 0o644, []byte("text")}}
	first, err := zipped("top", entries, made)
	if err != nil {
		t.Fatal(err)
	}
	second, err := zipped("top", []entry{entries[1], entries[0]}, made)
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("not the same again: %v", err)
	}
	r, err := zip.NewReader(bytes.NewReader(first), int64(len(first)))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.File) != 2 || r.File[0].Name != "top/a/c" || r.File[1].Name != "top/b.exe" || r.File[1].Mode() != 0o755 || !r.File[1].Modified.Equal(made) {
		t.Errorf("got %+v", r.File)
	}
}

// Scripts stay programs, and what is not there is left out.
func TestDocuments(t *testing.T) {
	t.Parallel()
	source := t.TempDir()
	if err := os.Mkdir(filepath.Join(source, "deploy"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"LICENSE": 0o600, "deploy/install": 0o700, "notes": 0o600} {
		if err := os.WriteFile(filepath.Join(source, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	b := builder{options: options{source: source}, folder: t.TempDir()}
	if err := b.copySource(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := b.documents()
	want := []entry{{"LICENSE", 0o644, []byte("LICENSE")}, {"deploy/install", 0o755, []byte("deploy/install")}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

// What differs between two builds is not released, and neither is what has no proper version.
func TestNoRelease(t *testing.T) {
	if err := same([]file{{"a", []byte("x")}}, []file{{"a", []byte("y")}}); err == nil || !strings.HasPrefix(err.Error(), "a came out differently") {
		t.Errorf("two that differ: %v", err)
	}
	fine := options{version: "v1.2.3", made: made, platforms: strings.Split(platforms, ",")}
	if err := fine.check(); err != nil {
		t.Errorf("a proper one: %v", err)
	}
	for want, change := range map[string]func(*options){
		"tag the commit":        func(o *options) { o.version = "dev" },
		"is no version":         func(o *options) { o.version = "v1.2.3/../x" },
		"commit's time":         func(o *options) { o.made = time.Unix(0, 0) },
		`"plan9/amd64" is none`: func(o *options) { o.platforms = []string{"plan9/amd64"} },
	} {
		o := fine
		change(&o)
		if err := o.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want one with %q", err, want)
		}
	}
}

// A checkout with something that is not committed is not released; one without git is taken as it is.
func TestClean(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := clean(t.Context(), folder); err != nil {
		t.Errorf("without git: %v", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "go.mod"), []byte("module x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := sourceFiles(t.Context(), folder); err != nil || !slices.Equal(got, []string{"go.mod"}) {
		t.Errorf("without git: %q, %v", got, err)
	}
	if _, err := git(t.Context(), folder, "init", "-q"); err != nil {
		t.Fatal(err)
	}
	if err := clean(t.Context(), folder); err == nil || !strings.Contains(err.Error(), "?? go.mod") {
		t.Errorf("with a file that git does not know: %v", err)
	}
}
