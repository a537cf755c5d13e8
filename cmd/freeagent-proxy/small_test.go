package main

import (
	"runtime/debug"
	"testing"
)

// The commit is told also by a binary that no Makefile has built.
func TestCommitOf(t *testing.T) {
	clone := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: "abc123"}}}
	for _, c := range []struct {
		linked string
		info   *debug.BuildInfo
		want   string
	}{
		{"def456", clone, "def456"}, {"unknown", clone, "abc123"}, {"unknown", new(debug.BuildInfo), "unknown"}, {"unknown", nil, "unknown"},
	} {
		if got := commitOf(c.linked, c.info); got != c.want {
			t.Errorf("%s with %+v: %s, want %s", c.linked, c.info, got, c.want)
		}
	}
}
