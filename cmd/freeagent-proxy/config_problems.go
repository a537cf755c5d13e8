package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// problem is one thing that is wrong with the configuration, and what to do about it.
type problem struct {
	file string // "" when the configuration came from the environment
	line int
	key  string // path such as accounts.acme.app or limits.api[0].per, or an environment variable
	text string
}

func (p problem) String() string {
	var where strings.Builder
	if p.file != "" {
		fmt.Fprintf(&where, "%s:%d: ", p.file, p.line)
	}
	if p.key != "" {
		where.WriteString(p.key + ": ")
	}
	return where.String() + p.text
}

// configError is everything that is wrong with a configuration, sorted by line.
type configError struct{ problems []problem }

// Error has one problem per line: "config.yaml:12: upstream.timeout: what to do".
func (e *configError) Error() string {
	lines := make([]string, len(e.problems))
	for i, p := range e.problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// concerns says whether something is wrong with a section of the configuration, or with the file as a whole.
func (e *configError) concerns(section string) bool {
	return slices.ContainsFunc(e.problems, func(p problem) bool {
		return p.key == "" || p.key == section || strings.HasPrefix(p.key, section+".")
	})
}

// problems collects what is wrong, and knows where in the file each key stands.
type problems struct {
	file  string
	lines map[string]int // of the keys that the file gives
	// variables are the environment variables that stand for a key, without a file.
	variables map[string]string
	notes     []string
	found     []problem
}

// add reports a problem with a key. Only the first one of a key counts: what follows from it
// would be noise.
func (p *problems) add(key, format string, args ...any) {
	if !p.has(key) {
		p.addAt(p.line(key), key, format, args...)
	}
}

func (p *problems) addAt(line int, key, format string, args ...any) {
	p.found = append(p.found, p.at(line, key, format, args...))
}

// note keeps a sentence for the log.
func (p *problems) note(key, format string, args ...any) {
	p.notes = append(p.notes, p.at(p.line(key), key, format, args...).String())
}

func (p *problems) at(line int, key, format string, args ...any) problem {
	if variable, ok := p.variables[key]; ok {
		key = variable
	}
	return problem{p.file, line, key, fmt.Sprintf(format, args...)}
}

// has says whether a problem with the key is known already.
func (p *problems) has(key string) bool {
	known := p.at(p.line(key), key, "")
	return slices.ContainsFunc(p.found, func(f problem) bool {
		return f.key == known.key && f.line == known.line
	})
}

// line is where the key stands; of a key that is missing, where the section stands that lacks it.
func (p *problems) line(key string) int {
	for key != "" {
		if line, ok := p.lines[key]; ok {
			return line
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return 1
}

// given is the first of the keys that the file has; if it has none, the first of all.
func (p *problems) given(keys ...string) string {
	for _, key := range keys {
		if p.lines[key] > 0 {
			return key
		}
	}
	return keys[0]
}

// err is a *configError, or nil.
func (p *problems) err() error {
	if len(p.found) == 0 {
		return nil
	}
	slices.SortStableFunc(p.found, func(a, b problem) int {
		return cmp.Or(a.line-b.line, strings.Compare(a.key, b.key))
	})
	return &configError{p.found}
}

// joinKey makes the path of a key. Names that would blur the path, or the line it is printed on, are
// quoted.
func joinKey(section, name string) string {
	plain := func(r rune) bool {
		return r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	}
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		name = strconv.Quote(name)
	}
	if section == "" {
		return name
	}
	return section + "." + name
}

// item is the path of a list's item; of a single value that stands for a list, the list's own.
func (p *problems) item(list string, i int) string {
	if key := itemKey(list, i); p.lines[key] > 0 {
		return key
	}
	return list
}

// itemKey makes the path of a list's item.
func itemKey(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

// nearest is the known key that name is probably a slip of, or "".
func nearest(name string, known []string) string {
	best, bound := "", 2+len(name)/4
	for _, candidate := range known {
		if d := distance(name, candidate); d < bound {
			best, bound = candidate, d
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace to get from a to b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1) // from a's first i letters to b's first j
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
