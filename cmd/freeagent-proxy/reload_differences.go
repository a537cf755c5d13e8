package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// difference is a setting that two configurations do not have in common, or a section under a name of the operator's choice that
// only one of them has.
type difference struct {
	section string // apps, accounts or clients; "" for a setting elsewhere
	name    string // within the section
	what    string // added, removed, or the setting's key
}

// differences lists where b differs from a, in the order of the fields.
func differences(a, b Config) []difference {
	return compare(nil, "", "", reflect.ValueOf(&a).Elem(), reflect.ValueOf(&b).Elem())
}

// compare appends the differences of two sections. key is where they stand, within name's part of section if there is one.
func compare(found []difference, section, name string, a, b reflect.Value, key ...string) []difference {
	ours, theirs := fieldsOf(a), fieldsOf(b)
	for i, f := range ours {
		x, y := reflect.ValueOf(f.target).Elem(), reflect.ValueOf(theirs[i].target).Elem()
		at := append(slices.Clip(key), f.name)
		switch {
		case x.Kind() == reflect.Struct && x.Type() != reflect.TypeFor[Secret]():
			found = compare(found, section, name, x, y, at...)
		case x.Kind() == reflect.Map:
			found = compareNamed(found, f.name, x, y)
		case !reflect.DeepEqual(x.Interface(), y.Interface()):
			found = append(found, difference{section, name, strings.Join(at, ".")})
		}
	}
	return found
}

// compareNamed is compare for sections by name.
func compareNamed(found []difference, section string, a, b reflect.Value) []difference {
	names := map[string]bool{}
	for _, m := range []reflect.Value{a, b} {
		for _, name := range m.MapKeys() {
			names[name.String()] = true
		}
	}
	addressable := func(v reflect.Value) reflect.Value {
		copied := reflect.New(v.Type()).Elem()
		copied.Set(v)
		return copied
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		x, y := a.MapIndex(reflect.ValueOf(name)), b.MapIndex(reflect.ValueOf(name))
		switch {
		case !x.IsValid():
			found = append(found, difference{section, name, "added"})
		case !y.IsValid():
			found = append(found, difference{section, name, "removed"})
		default:
			found = compare(found, section, name, addressable(x), addressable(y))
		}
	}
	return found
}

// words says each difference for a person, what changed under one name together: "client nightly: share, max_wait". Values
// are left out.
func words(all []difference) []string {
	var said []string
	for i := 0; i < len(all); i++ {
		d := all[i]
		if d.section == "" {
			said = append(said, d.what)
			continue
		}
		who := strings.TrimSuffix(d.section, "s") + " " + d.name
		if d.what == "added" || d.what == "removed" {
			said = append(said, who+" "+d.what)
			continue
		}
		settings := []string{d.what}
		for ; i+1 < len(all) && all[i+1].section == d.section && all[i+1].name == d.name; i++ {
			settings = append(settings, all[i+1].what)
		}
		said = append(said, fmt.Sprintf("%s: %s", who, strings.Join(settings, ", ")))
	}
	return said
}
