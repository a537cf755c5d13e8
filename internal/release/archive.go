package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// entry is a file in an archive.
type entry struct {
	path    string // slashes, below the archive's one top folder
	mode    fs.FileMode
	content []byte
}

// ordered sorts entries by path, so that an archive says nothing of the order in which they were found.
func ordered(entries []entry) []entry {
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	return sorted
}

// tarred is a .tar.gz of files that are root's, and all of one age.
func tarred(top string, entries []entry, made time.Time, compression int) ([]byte, error) {
	var out bytes.Buffer
	compressed, err := gzip.NewWriterLevel(&out, compression)
	if err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	archive := tar.NewWriter(compressed)
	for _, e := range ordered(entries) {
		err := archive.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: top + "/" + e.path, Mode: int64(e.mode), Size: int64(len(e.content)), ModTime: made, Format: tar.FormatUSTAR,
		})
		if err == nil {
			_, err = archive.Write(e.content)
		}
		if err != nil {
			return nil, fmt.Errorf("pack %s: %w", e.path, err)
		}
	}
	if err := errors.Join(archive.Close(), compressed.Close()); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return out.Bytes(), nil
}

// zipped is the same as a .zip.
func zipped(top string, entries []entry, made time.Time) ([]byte, error) {
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	for _, e := range ordered(entries) {
		header := &zip.FileHeader{Name: top + "/" + e.path, Method: zip.Deflate, Modified: made}
		header.SetMode(e.mode)
		w, err := archive.CreateHeader(header)
		if err == nil {
			_, err = io.Copy(w, bytes.NewReader(e.content))
		}
		if err != nil {
			return nil, fmt.Errorf("pack %s: %w", e.path, err)
		}
	}
	if err := archive.Close(); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return out.Bytes(), nil
}
