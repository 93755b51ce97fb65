package flags

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// fields reads the members of one object of a definition and reports those that
// are not as they should be. Its readers return ok only for what is there and
// right, so that a mistake is reported once.
type fields struct {
	*report
	path    document.Path
	members map[string]any
}

// object returns the fields of a value that must be an object.
func (r *report) object(path document.Path, value any) (fields, bool) {
	members, ok := value.(map[string]any)
	if !ok {
		r.add(path, "is %s, but must be an object", typeName(value))
	}
	return fields{report: r, path: path, members: members}, ok
}

func (f fields) has(name string) bool {
	_, ok := f.members[name]
	return ok
}

// at returns the path of a member.
func (f fields) at(name string) document.Path { return f.path.Key(name) }

// names returns the names of all members, sorted.
func (f fields) names() []string { return slices.Sorted(maps.Keys(f.members)) }

// only reports every member that is not known.
func (f fields) only(known ...string) {
	for _, name := range f.names() {
		if slices.Contains(known, name) {
			continue
		}
		hint := didYouMean(name, known)
		if hint == "" {
			hint = "; known here: " + strings.Join(known, ", ")
		}
		f.add(f.at(name), "unknown key%s", hint)
	}
}

// require reports every member that is missing.
func (f fields) require(names ...string) {
	for _, name := range names {
		if !f.has(name) {
			f.add(f.at(name), "is missing")
		}
	}
}

// oneOf returns the one name of several that is present, and reports when none
// or more than one is.
func (f fields) oneOf(what string, names ...string) (string, bool) {
	var present []string
	for _, name := range names {
		if f.has(name) {
			present = append(present, name)
		}
	}
	switch len(present) {
	case 1:
		return present[0], true
	case 0:
		hint := ""
		for _, name := range f.names() {
			if hint == "" {
				hint = didYouMean(name, names)
			}
		}
		f.add(f.path, "needs one of the keys %s%s", strings.Join(names, ", "), hint)
	default:
		f.add(f.path, "has the keys %s, but %s is about one of them", strings.Join(present, " and "), what)
	}
	return "", false
}

// text returns a string that is not empty.
func (f fields) text(name string) (string, bool) {
	value, present := f.members[name]
	if !present {
		return "", false
	}
	s, ok := value.(string)
	switch {
	case !ok:
		f.add(f.at(name), "is %s, but must be a string", typeName(value))
	case s == "":
		f.add(f.at(name), "is empty")
	}
	return s, ok && s != ""
}

// description checks text that may be empty.
func (f fields) description(name string) {
	if value, present := f.members[name]; present {
		if _, ok := value.(string); !ok {
			f.add(f.at(name), "is %s, but must be a string", typeName(value))
		}
	}
}

// name returns a string that can be the name of a resource.
func (f fields) name(name string) (string, bool) {
	s, ok := f.text(name)
	if !ok {
		return "", false
	}
	if err := document.CheckName(s); err != nil {
		f.add(f.at(name), "%v", err)
		return "", false
	}
	return s, true
}

// choice returns a string that is one of several.
func (f fields) choice(name string, of ...string) (string, bool) {
	s, ok := f.text(name)
	if !ok || slices.Contains(of, s) {
		return s, ok
	}
	hint := didYouMean(s, of)
	if hint == "" {
		hint = "; it must be one of " + strings.Join(of, ", ")
	}
	f.add(f.at(name), "%q is not known%s", s, hint)
	return "", false
}

// duration checks a text such as "1m30s" that is more than nothing.
func (f fields) duration(name string) {
	s, ok := f.text(name)
	if !ok {
		return
	}
	switch d, err := time.ParseDuration(s); {
	case err != nil:
		f.add(f.at(name), `%q is not a duration, such as "500ms" or "1m30s"`, s)
	case d <= 0:
		f.add(f.at(name), "%q must be more than 0", s)
	}
}

// number returns a number.
func (f fields) number(name string) (float64, bool) {
	value, present := f.members[name]
	if !present {
		return 0, false
	}
	n, ok := value.(json.Number)
	if !ok {
		f.add(f.at(name), "is %s, but must be a number", typeName(value))
		return 0, false
	}
	x, err := n.Float64()
	return x, err == nil
}

// child returns the fields of a member that must be an object.
func (f fields) child(name string) (fields, bool) {
	value, present := f.members[name]
	if !present {
		return fields{}, false
	}
	return f.object(f.at(name), value)
}

// array returns the elements of a member that must be an array.
func (f fields) array(name string) ([]any, bool) {
	value, present := f.members[name]
	if !present {
		return nil, false
	}
	list, ok := value.([]any)
	if !ok {
		f.add(f.at(name), "is %s, but must be an array", typeName(value))
	}
	return list, ok
}

// texts checks an array of strings, each of which is not empty and passes check,
// and which is not empty itself.
func (f fields) texts(name string, check func(string) error) {
	list, ok := f.array(name)
	if ok && len(list) == 0 {
		f.add(f.at(name), "is empty; leave it out")
	}
	for i, value := range list {
		path := f.at(name).Index(i)
		s, ok := value.(string)
		if !ok {
			f.add(path, "is %s, but must be a string", typeName(value))
			continue
		}
		if err := check(s); err != nil {
			f.add(path, "%v", err)
		}
	}
}

// typeName names the JSON type of a value, with its article.
func typeName(value any) string {
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
