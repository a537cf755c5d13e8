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
	"slices"
	"strings"
)

// sourceFiles returns what is built and packed, as slash-separated paths: what git keeps or would keep of it, or all of it in a copy
// without git. A part that is not there, such as deploy/, is left out; what the build misses shows.
func sourceFiles(ctx context.Context, top string) ([]string, error) {
	parts := slices.Concat(built, packed)
	if _, err := os.Stat(filepath.Join(top, ".git")); err == nil {
		out, err := git(ctx, top, append([]string{"ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"}, parts...)...)
		return strings.Split(strings.TrimRight(out, "\x00"), "\x00"), err
	}
	var paths []string
	for _, part := range parts {
		err := fs.WalkDir(os.DirFS(top), part, func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				paths = append(paths, p)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("find the source: %w", err)
		}
	}
	return paths, nil
}

// clean makes sure that a git checkout is what was committed, or nobody could build the release again.
func clean(ctx context.Context, top string) error {
	if _, err := os.Stat(filepath.Join(top, ".git")); err != nil {
		return nil
	}
	changed, err := git(ctx, top, "status", "--porcelain")
	if err == nil && changed != "" {
		err = fmt.Errorf("commit or remove these first, or nobody can build the release again:\n%s", changed)
	}
	return err
}

// git runs it, also in a checkout of another user's, of which nothing is run.
func git(ctx context.Context, top string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=*", "-C", top}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, &stderr)
	}
	return string(out), nil
}
