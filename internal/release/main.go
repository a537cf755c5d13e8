// Command release makes what a release consists of, in dist/: an archive for each platform, an SBOM beside it, and SHA256SUMS.
//
// Its vocabulary: a platform is GOOS/GOARCH, an SBOM (software bill of materials) the list of the modules in a binary.
//
// Everything is built twice, from copies of the source in two folders and with two build caches, and nothing is written unless
// both come out the same to the byte. So anybody can build a release again from its tag, and compare.
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// platforms are what a release is made for.
const platforms = "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64"

const name = "freeagent-proxy"

// options are what a release is made of.
type options struct {
	source      string // the repository's top folder
	dist        string
	version     string // a tag: v1.2.3
	commit      string
	made        time.Time // what everything in it is dated
	platforms   []string
	sharedCache bool // the second build may take from the first one's cache: quick, and less of a proof
	compression int  // gzip's level
	progress    io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o := options{source: ".", compression: gzip.BestCompression, progress: os.Stderr}
	flag.StringVar(&o.version, "version", "", "the release's tag, such as v1.2.3")
	flag.StringVar(&o.commit, "commit", "", "the commit that it is made from")
	flag.StringVar(&o.dist, "dist", "dist", "the folder that it goes to")
	flag.BoolVar(&o.sharedCache, "shared-cache", false, "let the second build use the first one's cache")
	only := flag.String("platforms", platforms, "what to build for")
	epoch := flag.Int64("epoch", 0, "the commit's time, in Unix seconds")
	flag.Parse()
	o.platforms, o.made = strings.Split(*only, ","), time.Unix(*epoch, 0).UTC()
	err := clean(ctx, o.source)
	if err == nil {
		err = release(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// tag is a version as git tags have it, or git describe makes of a later commit.
var tag = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

func (o options) check() error {
	switch {
	case !tag.MatchString(o.version):
		return fmt.Errorf("%q is no version; tag the commit (git tag v1.2.3), or say make release VERSION=v1.2.3", o.version)
	case o.made.Unix() <= 0:
		return errors.New("the commit's time is missing; outside of a git checkout say make release EPOCH=SECONDS")
	}
	for _, p := range o.platforms {
		if !slices.Contains(strings.Split(platforms, ","), p) {
			return fmt.Errorf("%q is none of %s", p, platforms)
		}
	}
	return nil
}

// release makes everything twice, compares, and writes it.
func release(ctx context.Context, o options) error {
	if err := o.check(); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", name+"-release-*")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(folder)
	first := builder{o, filepath.Join(folder, "a"), ""}
	second := builder{o, filepath.Join(folder, "b", "a-longer-path"), filepath.Join(folder, "cache")}
	if o.sharedCache {
		second.cache = ""
	}
	for _, b := range []builder{first, second} { // at once, so that nobody changes the source between the two
		if err := b.copySource(ctx); err != nil {
			return err
		}
	}
	made, err := first.all(ctx)
	if err != nil {
		return err
	}
	again, err := second.all(ctx)
	if err != nil {
		return err
	}
	if err := same(made, again); err != nil {
		return err
	}
	return write(o.dist, made)
}

// file is one of a release.
type file struct {
	name    string
	content []byte
}

func same(first, second []file) error {
	for i, f := range first {
		if !bytes.Equal(f.content, second[i].content) {
			return fmt.Errorf("%s came out differently when it was built again, in another folder: nobody could tell whether it is what the source says", f.name)
		}
	}
	return nil
}

// write puts the files where an earlier release's were, with their checksums as sha256sum has them. Whatever else is there stays.
func write(dist string, files []file) error {
	if err := os.MkdirAll(dist, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dist, err)
	}
	old, err := filepath.Glob(filepath.Join(dist, name+"_*"))
	if err != nil {
		return fmt.Errorf("look for an earlier release: %w", err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove an earlier release: %w", err)
		}
	}
	var sums bytes.Buffer
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	for _, f := range files {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(f.content), f.name)
	}
	for _, f := range append(files, file{"SHA256SUMS", sums.Bytes()}) {
		if err := os.WriteFile(filepath.Join(dist, f.name), f.content, 0o644); err != nil {
			return fmt.Errorf("write the release: %w", err)
		}
	}
	return nil
}
