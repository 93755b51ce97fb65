package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// Fields reads the members of one object of a definition and reports those that
// are not as they should be. Its readers return ok only for what is there and
// right, so that a mistake is reported once.
type Fields struct {
	*Report
	Path    document.Path
	Members map[string]any
}

// Object returns the fields of a value that must be an object.
func (r *Report) Object(path document.Path, value any) (Fields, bool) {
	members, ok := value.(map[string]any)
	if !ok {
		r.Add(path, "is %s, but must be an object", TypeName(value))
	}
	return Fields{Report: r, Path: path, Members: members}, ok
}

// Has tells whether a member is there, whatever it is.
func (f Fields) Has(name string) bool {
	_, ok := f.Members[name]
	return ok
}

// At returns the path of a member.
func (f Fields) At(name string) document.Path { return f.Path.Key(name) }

// Names returns the names of all members, sorted.
func (f Fields) Names() []string { return slices.Sorted(maps.Keys(f.Members)) }

// Only reports every member that is not known.
func (f Fields) Only(known ...string) {
	for _, name := range f.Names() {
		if slices.Contains(known, name) {
			continue
		}
		hint := DidYouMean(name, known)
		if hint == "" {
			hint = "; known here: " + strings.Join(known, ", ")
		}
		f.Add(f.At(name), "unknown key%s", hint)
	}
}

// Require reports every member that is missing.
func (f Fields) Require(names ...string) {
	for _, name := range names {
		if !f.Has(name) {
			f.Add(f.At(name), "is missing")
		}
	}
}

// OneOf returns the one name of several that is present, and reports when none
// or more than one is.
func (f Fields) OneOf(what string, names ...string) (string, bool) {
	var present []string
	for _, name := range names {
		if f.Has(name) {
			present = append(present, name)
		}
	}
	switch len(present) {
	case 1:
		return present[0], true
	case 0:
		hint := ""
		for _, name := range f.Names() {
			if hint == "" {
				hint = DidYouMean(name, names)
			}
		}
		f.Add(f.Path, "needs one of the keys %s%s", strings.Join(names, ", "), hint)
	default:
		f.Add(f.Path, "has the keys %s, but %s is about one of them", strings.Join(present, " and "), what)
	}
	return "", false
}

// Text returns a string that is not empty.
func (f Fields) Text(name string) (string, bool) {
	value, present := f.Members[name]
	if !present {
		return "", false
	}
	s, ok := value.(string)
	switch {
	case !ok:
		f.Add(f.At(name), "is %s, but must be a string", TypeName(value))
	case s == "":
		f.Add(f.At(name), "is empty")
	}
	return s, ok && s != ""
}

// Description checks text that may be empty.
func (f Fields) Description(name string) {
	if value, present := f.Members[name]; present {
		if _, ok := value.(string); !ok {
			f.Add(f.At(name), "is %s, but must be a string", TypeName(value))
		}
	}
}

// Name returns a string that can be the name of a resource.
func (f Fields) Name(name string) (string, bool) {
	s, ok := f.Text(name)
	if !ok {
		return "", false
	}
	if err := document.CheckName(s); err != nil {
		f.Add(f.At(name), "%v", err)
		return "", false
	}
	return s, true
}

// Choice returns a string that is one of several words.
func (f Fields) Choice(name string, of ...string) (string, bool) {
	s, ok := f.Text(name)
	if !ok {
		return "", false
	}
	if err := CheckChoice(s, of); err != nil {
		f.Add(f.At(name), "%v", err)
		return "", false
	}
	return s, true
}

// CheckChoice returns an error that says what a word must be if it is none of
// several.
func CheckChoice(word string, of []string) error {
	if slices.Contains(of, word) {
		return nil
	}
	hint := DidYouMean(word, of)
	if hint == "" {
		hint = "; it must be one of " + strings.Join(of, ", ")
	}
	return fmt.Errorf("%q is not known%s", word, hint)
}

// Duration checks a text such as "1m30s" that is more than nothing.
func (f Fields) Duration(name string) {
	s, ok := f.Text(name)
	if !ok {
		return
	}
	switch d, err := time.ParseDuration(s); {
	case err != nil:
		f.Add(f.At(name), `%q is not a duration, such as "500ms" or "1m30s"`, s)
	case d <= 0:
		f.Add(f.At(name), "%q must be more than 0", s)
	}
}

// Number returns a number.
func (f Fields) Number(name string) (float64, bool) {
	value, present := f.Members[name]
	if !present {
		return 0, false
	}
	n, ok := value.(json.Number)
	if !ok {
		f.Add(f.At(name), "is %s, but must be a number", TypeName(value))
		return 0, false
	}
	x, err := n.Float64()
	return x, err == nil
}

// Child returns the fields of a member that must be an object.
func (f Fields) Child(name string) (Fields, bool) {
	value, present := f.Members[name]
	if !present {
		return Fields{}, false
	}
	return f.Object(f.At(name), value)
}

// Array returns the elements of a member that must be an array.
func (f Fields) Array(name string) ([]any, bool) {
	value, present := f.Members[name]
	if !present {
		return nil, false
	}
	list, ok := value.([]any)
	if !ok {
		f.Add(f.At(name), "is %s, but must be an array", TypeName(value))
	}
	return list, ok
}

// Texts checks an array of strings, each of which is not empty and passes check,
// and which is not empty itself.
func (f Fields) Texts(name string, check func(string) error) {
	if list, ok := f.Strings(name, check); ok && len(list) == 0 {
		f.Add(f.At(name), "is empty; leave it out")
	}
}

// TypeName names the JSON type of a value, with its article.
func TypeName(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "an array"
	default:
		return "an object"
	}
}
