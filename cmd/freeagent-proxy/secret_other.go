//go:build !unix

package main

import "io/fs"

// isOurs reports whether a file belongs to the user that we run as, which is not told here by its mode.
func isOurs(fs.FileInfo) bool { return false }
