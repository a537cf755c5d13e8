package main

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// promise is what docs/writes.md says of one request: the test of it reads the tables there, so that nobody needs to
// believe them.
type promise struct {
	again  int    // how often it is sent again at most
	status int    // what the program gets when that does not help; 0: FreeAgent's own answer
	cut    bool   // it gets the answer as far as it came
	says   string // in Proxy-Status
}

// docTable returns the rows of the table that begins with these headings, by their first cell.
func docTable(t *testing.T, headings ...string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/writes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n| "+strings.Join(headings, " | ")+" |\n")
	if !found {
		t.Fatalf("docs/writes.md has no table %q", headings)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if !strings.HasPrefix(cells[0], "---") {
			rows[cells[0]] = cells[1:]
		}
	}
	return rows
}

var promised = regexp.MustCompile(`^(?:sent again(?:, (at most twice))?[^;]*(?:; (?:then|else) )?)?(?:(\d{3})|(that answer)|(cut off)[^;]*)?(?:, (it may have acted|nothing was sent))?$`)

// parsePromise reads a cell.
func parsePromise(t *testing.T, cell string) promise {
	t.Helper()
	found := promised.FindStringSubmatch(cell)
	if found == nil || cell == "" {
		t.Fatalf("docs/writes.md: %q is no promise that can be tested", cell)
	}
	p := promise{cut: found[4] != "", says: found[5]}
	switch {
	case found[1] != "":
		p.again = 2
	case strings.HasPrefix(cell, "sent again"):
		p.again = 1
	}
	p.status, _ = strconv.Atoi(found[2])
	return p
}

// kept is what docs/writes.md says of a request whose key was used before.
type kept string

const (
	replayed kept = "that answer"
	conflict kept = "409"
	resent   kept = "is sent"
)

func parseKept(t *testing.T, cell string) kept {
	t.Helper()
	for _, k := range []kept{replayed, conflict, resent} {
		if strings.HasPrefix(cell, string(k)) {
			return k
		}
	}
	t.Fatalf("docs/writes.md: %q is nothing that can be tested", cell)
	return ""
}

// What would make the test of the tables test nothing.
func TestPromises(t *testing.T) {
	for cell, want := range map[string]promise{
		"sent again, with a renewed token: FreeAgent did not act":                                      {again: 1},
		"sent again after its `Retry-After`, if the request may wait so long; else 429":                {again: 1, status: 429},
		"sent again, at most twice; then 502, nothing was sent":                                        {again: 2, status: 502, says: "nothing was sent"},
		"sent again, at most twice, after its `Retry-After`, if it may wait so long; then that answer": {again: 2},
		"504, it may have acted":         {status: 504, says: "it may have acted"},
		"that answer, it may have acted": {says: "it may have acted"},
		"cut off for the program, too":   {cut: true},
		"that answer":                    {},
	} {
		if got := parsePromise(t, cell); got != want {
			t.Errorf("%q: %+v, want %+v", cell, got, want)
		}
	}
}
