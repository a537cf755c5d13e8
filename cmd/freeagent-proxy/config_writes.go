package main

import (
	"regexp"
	"slices"
	"strings"
)

// oneWrite is a method and a path, as they must be written: the path without slash, format and query at its end.
var oneWrite = regexp.MustCompile(`^(POST|PUT|PATCH|DELETE) /v2(/[A-Za-z0-9_-]+)+$`)

// validateWrites reports what cannot be a write.
func (c Config) validateWrites(p *problems) {
	const key = "writes.one_at_a_time"
	for i, write := range c.Writes.OneAtATime {
		method, path, _ := strings.Cut(write, " ")
		switch {
		case method == "GET" || method == "HEAD":
			p.add(p.item(key, i), "%q only reads, and reads need not wait for one another", write)
		case !oneWrite.MatchString(write):
			p.add(p.item(key, i), "%q must be POST, PUT, PATCH or DELETE, one space, and a path below /v2/ without slash, format and query at its end, such as POST /v2/invoices", write)
		case path == "/v2/token_endpoint" || path == "/v2/approve_app":
			p.add(p.item(key, i), "%q is OAuth, which the proxy answers itself", write)
		case slices.Contains(c.Writes.OneAtATime[:i], write):
			p.add(p.item(key, i), "%q is in the list twice; keep one", write)
		}
	}
}
