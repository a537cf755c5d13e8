package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// builder builds a release once.
type builder struct {
	options
	folder string // of its copy of the source
	cache  string // of the go command; empty: the usual one
}

var (
	// built is what the binary is made of, packed what goes into an archive beside it.
	built  = []string{"go.mod", "go.sum", "cmd", "proxy", "tokens", "limiter", "internal"}
	packed = []string{"LICENSE", "README.md", "CHANGELOG.md", "config.example.yaml", "docs", "deploy"}
)

// all returns a release's files, but for their checksums.
func (b builder) all(ctx context.Context) ([]file, error) {
	common, err := b.common(ctx)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, platform := range b.platforms {
		goos, goarch, _ := strings.Cut(platform, "/")
		fmt.Fprintf(b.progress, "building %s in %s\n", platform, b.folder)
		binary, err := b.build(ctx, goos, goarch)
		if err != nil {
			return nil, err
		}
		title := strings.Join([]string{name, b.version, goos, goarch}, "_")
		bill, err := sbom(binary, b.options, goos, goarch)
		if err != nil {
			return nil, err
		}
		contents := append([]entry{{name, 0o755, binary}}, common...)
		archive := file{name: title + ".tar.gz"}
		if goos == "windows" {
			contents[0].path += ".exe"
			archive.name = title + ".zip"
			archive.content, err = zipped(title, contents, b.made)
		} else {
			archive.content, err = tarred(title, contents, b.made, b.compression)
		}
		if err != nil {
			return nil, err
		}
		files = append(files, archive, file{title + ".cdx.json", bill})
	}
	return files, nil
}

// copySource copies what is built and packed.
func (b builder) copySource(ctx context.Context) error {
	paths, err := sourceFiles(ctx, b.source)
	if err != nil {
		return err
	}
	for _, p := range paths {
		from, to := filepath.Join(b.source, filepath.FromSlash(p)), filepath.Join(b.folder, filepath.FromSlash(p))
		info, err := os.Stat(from)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed, not yet committed
		}
		var content []byte
		if err == nil {
			content, err = os.ReadFile(from)
		}
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, content, mode(info))
		}
		if err != nil {
			return fmt.Errorf("copy the source: %w", err)
		}
	}
	return nil
}

// out is where a platform's binary is built.
func (b builder) out(goos, goarch string) string {
	return filepath.Join(b.folder, "out", goos+"_"+goarch)
}

// build returns a platform's binary, and builds it if that is not done yet. Empty values keep out what the environment would add.
func (b builder) build(ctx context.Context, goos, goarch string) ([]byte, error) {
	out := b.out(goos, goarch)
	if binary, err := os.ReadFile(out); err == nil {
		return binary, nil
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-ldflags", "-s -w -X main.version="+b.version+" -X main.commit="+b.commit, "-o", out, "./cmd/"+name)
	cmd.Dir = b.folder
	cmd.Env = append(os.Environ(), "PWD="+b.folder, "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0",
		"GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0", "GOWORK=off")
	if b.cache != "" {
		cmd.Env = append(cmd.Env, "GOCACHE="+b.cache)
	}
	if message, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build for %s/%s: %w: %s", goos, goarch, err, message)
	}
	return os.ReadFile(out)
}

// mode is what git knows of a file's: whether it is a program.
func mode(info fs.FileInfo) fs.FileMode {
	if info.Mode()&0o100 != 0 {
		return 0o755
	}
	return 0o644
}

// documents is what is packed as it is.
func (b builder) documents() ([]entry, error) {
	var entries []entry
	for _, part := range packed {
		err := fs.WalkDir(os.DirFS(b.folder), part, func(p string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && p == part || err == nil && d.IsDir() {
				return nil
			}
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			content, err := os.ReadFile(filepath.Join(b.folder, filepath.FromSlash(p)))
			entries = append(entries, entry{p, mode(info), content})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read what is packed: %w", err)
		}
	}
	return entries, nil
}

// common is what goes into the archives of all platforms: documents, and what the binary says of itself.
func (b builder) common(ctx context.Context) ([]entry, error) {
	entries, err := b.documents()
	if err != nil {
		return nil, err
	}
	for p, args := range map[string][]string{
		"man/man1/" + name + ".1":                 {"man"},
		"completions/bash/" + name:                {"completion", "bash"},
		"completions/zsh/_" + name:                {"completion", "zsh"},
		"completions/fish/" + name + ".fish":      {"completion", "fish"},
		"completions/powershell/" + name + ".ps1": {"completion", "powershell"},
	} {
		content, err := b.ask(ctx, args...)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{p, 0o644, content})
	}
	return entries, nil
}

// ask returns what the program prints, which is built for the machine that we run on.
func (b builder) ask(ctx context.Context, args ...string) ([]byte, error) {
	if _, err := b.build(ctx, runtime.GOOS, runtime.GOARCH); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, b.out(runtime.GOOS, runtime.GOARCH), args...)
	cmd.Dir, cmd.Env = b.folder, []string{}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, &stderr)
	}
	return text, nil
}
