package policy

import (
	"fmt"
	"maps"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/schema"
)

// setting declares a key of a policy.
type setting struct {
	// name is the key; "" stands for every name that is no other key of the object.
	name string
	// What the documentation says of the value: type, unit and range.
	kind, unit, span string
	// read puts the member called name in the setting's place if it is right, and
	// reports what is wrong with it otherwise. path is the setting's own in a policy.
	read func(r *reader, f schema.Fields, name, path string) bool
	// value returns what is in the place as a JSON encoder takes it; nil where there is
	// no place.
	value func() any
	// parts returns the keys of an object.
	parts func() []setting
}

// reader reads the members of objects into the places of settings.
type reader struct {
	// patch takes null for the removal of a key.
	patch bool
	// right holds the paths of the settings that were there and right.
	right map[string]bool
}

// members reads the members of the object at path.
func (r *reader) members(f schema.Fields, path string, settings []setting) {
	keys := names(settings)
	if len(keys) == len(settings) {
		f.Only(keys...)
	}
	for _, s := range settings {
		switch value, present := f.Members[s.name]; {
		case s.name == "":
			rest := f
			rest.Members = without(f.Members, keys)
			s.read(r, rest, "", path)
		case present && (value != nil || !r.patch):
			r.right[join(path, s.name)] = s.read(r, f, s.name, join(path, s.name))
		}
	}
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

// names returns the keys among settings.
func names(settings []setting) []string {
	var keys []string
	for _, s := range settings {
		if s.name != "" {
			keys = append(keys, s.name)
		}
	}
	return keys
}

func without(members map[string]any, names []string) map[string]any {
	rest := maps.Clone(members)
	for _, name := range names {
		delete(rest, name)
	}
	return rest
}

// object is a key with keys of its own.
func object(name string, parts func() []setting) setting {
	return setting{
		name: name, kind: "object", parts: parts,
		read: func(r *reader, f schema.Fields, name, path string) bool {
			child, ok := f.Child(name)
			if ok {
				r.members(child, path, parts())
			}
			return ok
		},
		value: func() any { return values(parts()) },
	}
}

// short lets a text stand for an object that has only its first key.
func short(s setting) setting {
	object, parts := s.read, s.parts
	s.read = func(r *reader, f schema.Fields, name, path string) bool {
		first := parts()[0]
		switch value := f.Members[name].(type) {
		case map[string]any:
			return object(r, f, name, path)
		case string:
			return first.read(r, f, name, join(path, first.name))
		default:
			f.Add(f.At(name), "is %s, but must be an object or one of %s", schema.TypeName(value), first.span)
			return false
		}
	}
	return s
}

// reserved is a key for an object that nothing looks into yet.
func reserved(name string) setting {
	return setting{
		name: name, kind: "object", span: "reserved",
		read: func(_ *reader, f schema.Fields, name, _ string) bool {
			_, ok := f.Child(name)
			return ok
		},
	}
}

// text is a key that means nothing to programs.
func text(name string) setting {
	return setting{
		name: name, kind: "text",
		read: func(_ *reader, f schema.Fields, name, _ string) bool {
			f.Description(name)
			return true
		},
	}
}

// values returns what is in the places of settings, as one JSON object.
func values(settings []setting) map[string]any {
	object := make(map[string]any, len(settings))
	for _, s := range settings {
		switch {
		case s.value == nil:
		case s.name == "":
			members, _ := s.value().(map[string]any)
			maps.Copy(object, members)
		default:
			object[s.name] = s.value()
		}
	}
	return object
}

// one is a key with a value of type T in place.
func one[T any](name string, v value[T], place *T) setting {
	return setting{
		name: name, kind: v.kind, unit: v.unit, span: v.span,
		read: func(_ *reader, f schema.Fields, name, _ string) bool {
			x, ok := v.read(f, name)
			if ok {
				*place = x
			}
			return ok
		},
		value: func() any { return v.json(*place) },
	}
}

// others are the names that pass check and are no other key of their object, each
// with a value of type T. The map in place is replaced, never changed.
func others[T any](check func(string) error, v value[T], place *map[string]T) setting {
	return setting{
		kind: v.kind, unit: v.unit, span: v.span,
		read: func(r *reader, f schema.Fields, _, _ string) bool {
			all := make(map[string]T, len(*place)+len(f.Members))
			maps.Copy(all, *place)
			for _, name := range f.Names() {
				if err := check(name); err != nil {
					f.Add(f.At(name), "%v", err)
					continue
				}
				if r.patch && f.Members[name] == nil {
					continue
				}
				if x, ok := v.read(f, name); ok {
					all[name] = x
				}
			}
			*place = all
			return true
		},
		value: func() any {
			object := make(map[string]any, len(*place))
			for name, x := range *place {
				object[name] = v.json(x)
			}
			return object
		},
	}
}

// named is a key for an object whose keys are names of calls.
func named[T any](name string, v value[T], place *map[string]T) setting {
	return object(name, func() []setting { return []setting{others(checkCall, v, place)} })
}

// checkCall accepts what a call can be named by: a method, all methods of a
// service, or an operation.
func checkCall(name string) error {
	switch {
	case strings.HasPrefix(name, "/"):
		return schema.CheckMethodPattern(name)
	case strings.Contains(name, "*"):
		return fmt.Errorf(`%q is no operation: the only patterns are those of methods, "/package.Service/*"`, name)
	default:
		return document.CheckName(name)
	}
}

// lookup returns what is said of a call: of its name, else of its service.
func lookup[T any](named map[string]T, call string, otherwise T) T {
	if v, ok := named[call]; ok {
		return v
	}
	if slash := strings.LastIndexByte(call, '/'); slash >= 0 {
		if v, ok := named[call[:slash+1]+"*"]; ok {
			return v
		}
	}
	return otherwise
}
