package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// decoder lays a YAML file over a Config, guided by the fields' tags. goccy/go-yaml's own strict
// decoding stops at the first mistake; this goes on, so that one run finds them all. A setting
// with a mistake keeps its default, and so does a key with nothing or empty text behind it.
//
// Of YAML it takes what a configuration needs: sections, lists and scalars. Anchors, aliases and
// tags are refused: they hide what a file says.
type decoder struct {
	*problems
	getenv func(string) string
	folder string // of the file: its relative paths start here

	variables []string // the keys that name an environment variable
}

// decodeFile reads the file's text. false: it is not YAML, and nothing else can be said about it.
func (d *decoder) decodeFile(data []byte, into *Config) bool {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // some editors begin a file with a byte order mark
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, text := syntaxError(err)
		if indentedByTab(data, line) {
			text += "; indent with spaces, not with tabs"
		}
		d.addAt(line, "", "not YAML: %s", text)
		return false
	}
	documents := slices.DeleteFunc(file.Docs, func(doc *ast.DocumentNode) bool { return blank(doc.Body) })
	for i, doc := range documents {
		if i > 0 {
			d.addAt(lineOf(doc.Body), "", "a second YAML document begins here; a configuration is one")
			continue
		}
		d.section("", doc.Body, reflect.ValueOf(into).Elem())
	}
	return true
}

// syntaxError takes the place out of the parser's error, and leaves the excerpt that it adds.
func syntaxError(err error) (line int, text string) {
	line, text = 1, err.Error()
	if e := yaml.Error(nil); errors.As(err, &e) && e.GetToken() != nil {
		line, text = max(1, e.GetToken().Position.Line), e.GetMessage()
	}
	return line, strings.NewReplacer("\t", `\t`, "\r", `\r`, "\n", `\n`).Replace(text)
}

// indentedByTab says whether a line, counted from 1, begins with white space in which there is a tab. YAML has none there.
func indentedByTab(data []byte, line int) bool {
	lines := bytes.Split(data, []byte("\n"))
	if line > len(lines) {
		return false
	}
	text := lines[line-1]
	return bytes.ContainsRune(text[:len(text)-len(bytes.TrimLeft(text, " \t"))], '\t')
}

// value decodes one node that is not blank. target points to a setting, a section, or a map or
// list of sections.
func (d *decoder) value(key string, n ast.Node, target any) {
	switch t := target.(type) {
	case *string:
		scalar(d, key, n, t, parseText)
	case *bool:
		scalar(d, key, n, t, parseBool)
	case *int:
		scalar(d, key, n, t, parseNumber)
	case *time.Duration:
		scalar(d, key, n, t, parseDuration)
	case **time.Duration:
		*t = new(time.Duration)
		scalar(d, key, n, *t, parseDuration)
	case *float64:
		scalar(d, key, n, t, parseFraction)
	case **url.URL:
		scalar(d, key, n, t, parseAddress)
	case *Secret:
		scalar(d, key, n, t, parseSecret)
	case *replicas:
		scalar(d, key, n, t, parseReplicas)
	case *[]string:
		d.texts(key, n, t)
	default:
		switch v := reflect.ValueOf(target).Elem(); v.Kind() {
		case reflect.Struct:
			d.section(key, n, v)
		case reflect.Map:
			d.sectionsByName(key, n, v)
		case reflect.Slice:
			d.sections(key, n, v)
		default:
			panic(fmt.Sprintf("configuration: %s is a %T, which is not decoded", key, target))
		}
	}
}

func scalar[T any](d *decoder, key string, n ast.Node, target *T, parse func(ast.Node) (T, error)) {
	value, err := parse(n)
	if err != nil {
		d.add(key, "%s", err)
		return
	}
	*target = value
}

// texts decodes a list of texts, or a single one.
func (d *decoder) texts(key string, n ast.Node, target *[]string) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		*target = make([]string, 1)
		d.value(key, n, &(*target)[0])
		return
	}
	*target = make([]string, len(list.Values))
	for i, value := range list.Values {
		d.lines[itemKey(key, i)] = lineOf(value)
		d.value(itemKey(key, i), value, &(*target)[i])
	}
}

// sections decodes a list of sections into a slice of structs.
func (d *decoder) sections(key string, n ast.Node, target reflect.Value) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		d.add(key, "must be a list, not %s", nodeKind(n))
		return
	}
	target.Set(reflect.MakeSlice(target.Type(), len(list.Values), len(list.Values)))
	for i, value := range list.Values {
		d.lines[itemKey(key, i)] = lineOf(value)
		d.section(itemKey(key, i), value, target.Index(i))
	}
}

// sectionsByName decodes sections under names of the operator's choice into a map of structs.
func (d *decoder) sectionsByName(key string, n ast.Node, target reflect.Value) {
	target.Set(reflect.MakeMap(target.Type()))
	d.entries(key, n, func(name, key string, value ast.Node) {
		section := reflect.New(target.Type().Elem()).Elem()
		if s, ok := section.Addr().Interface().(interface{ setDefaults() }); ok {
			s.setDefaults()
		}
		d.section(key, value, section)
		target.SetMapIndex(reflect.ValueOf(name), section)
	})
}

// section decodes a mapping into a struct.
func (d *decoder) section(key string, n ast.Node, target reflect.Value) {
	fields := fieldsOf(target)
	givenBy := map[string]string{} // a field's name: the key that gave it
	ok := d.entries(key, n, func(name, key string, value ast.Node) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name || slices.Contains(f.from, name) })
		if i < 0 {
			d.unknown(key, name, fields)
			return
		}
		f := fields[i]
		switch earlier := givenBy[f.name]; {
		case blank(value):
			return
		case f.from == nil:
			d.value(key, value, f.target)
		case name == f.name:
			d.add(key, "a secret is not written here; keep it in the environment or a file, and name that with %s", strings.Join(f.from, " or "))
		case slices.Contains(f.from, earlier):
			d.add(key, "%s is given already; keep one of the two", earlier)
		default:
			d.secret(name, key, value, f.target.(*Secret))
		}
		givenBy[f.name] = name
	})
	for _, f := range fields {
		if ok && f.required != "" && givenBy[f.name] == "" {
			d.add(joinKey(key, f.keys()[0]), "missing: %s", f.required)
		}
	}
}

// secret reads the secret that the node names.
func (d *decoder) secret(name, key string, n ast.Node, target *Secret) {
	var readers string
	source, err := parseText(n)
	if err == nil && strings.HasSuffix(name, "env") {
		*target, err = secretFromVariable(source, d.getenv)
		d.variables = append(d.variables, key)
	} else if err == nil {
		if source, err = d.place(source); err == nil {
			*target, readers, err = secretFromFile(source)
		}
	}
	if err != nil {
		d.add(key, "%s", err)
	}
	if readers != "" {
		d.note(key, "%s may read the file; chmod 600 keeps them out", readers)
	}
}

// place is where a file lies that a setting names: the path, or systemd's credential.
func (d *decoder) place(path string) (string, error) {
	if name, ok := strings.CutPrefix(path, credentialPrefix); ok {
		return credentialPath(name, d.getenv)
	}
	return d.absolute(path), nil
}

// absolute resolves a path of the file: serve and authorize must find the same store, from
// wherever each is started.
func (d *decoder) absolute(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(d.folder, path)
}

// entries visits a mapping's keys, in order, each once. A blank mapping has none. false: it is
// no mapping.
func (d *decoder) entries(section string, n ast.Node, visit func(name, key string, value ast.Node)) bool {
	if blank(n) {
		return true
	}
	mapping, ok := n.(*ast.MappingNode)
	if !ok {
		d.add(section, "must be a section of \"key: value\" lines, not %s", nodeKind(n))
		return false
	}
	for _, entry := range mapping.Values {
		line := lineOf(entry.Key)
		name, err := parseText(entry.Key)
		if err != nil {
			d.addAt(line, section, "a key %s", err)
			continue
		}
		key := joinKey(section, name)
		if first, again := d.lines[key]; again {
			d.addAt(line, key, "given twice; it is on line %d already", first)
			continue
		}
		d.lines[key] = line
		visit(name, key, entry.Value)
	}
	return true
}

// unknown reports a key that is none of the section's.
func (d *decoder) unknown(key, name string, fields []field) {
	var known []string
	for _, f := range fields {
		known = append(known, f.keys()...)
	}
	if near := nearest(name, known); near != "" {
		d.add(key, "unknown key; did you mean %s?", near)
		return
	}
	d.add(key, "unknown key; known here: %s", strings.Join(known, ", "))
}

// field is what the decoder needs to know of a struct's field.
type field struct {
	name     string   // its key; of a secret, the key that is refused
	from     []string // a secret's keys
	required string   // what belongs there, if it must be given
	target   any      // points to the value
}

func fieldsOf(v reflect.Value) []field {
	var fields []field
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		if tag.Get("yaml") == "-" {
			continue
		}
		f := field{name: tag.Get("yaml"), required: tag.Get("required"), target: v.Field(i).Addr().Interface()}
		if from := tag.Get("from"); from != "" {
			f.from = strings.Split(from, ",")
		}
		fields = append(fields, f)
	}
	return fields
}

// keys are the ones to write in a file.
func (f field) keys() []string {
	if f.from != nil {
		return f.from
	}
	return []string{f.name}
}
