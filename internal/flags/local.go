package flags

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast-dev/holdfast/internal/btree"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/hamt"
)

// Local is what somebody at the instance itself decided: it beats everything that
// the namespace says. Read by ParseLocal.
type Local struct {
	// Flags are the values that flags have, as JSON, whether they exist or not.
	Flags map[string]json.RawMessage `json:"flags"`
	// Modes are the levels of modes, Normal for none.
	Modes map[string]string `json:"modes"`
	// Breakers hold those of dependencies "open" or "closed".
	Breakers map[string]string `json:"breakers"`
	// Disable lets the instance behave as if there were nothing but its own code.
	Disable bool `json:"disable"`
}

// byLocal is what decided where Local did.
const byLocal = "local override"

// ParseLocal reads a JSON object with the members of Local. The error says what is
// wrong and where; nothing of a text that is wrong in part is returned.
func ParseLocal(src []byte) (*Local, error) {
	canonical, err := document.Canonical(src)
	if err != nil {
		return nil, fmt.Errorf("read local overrides: %w", err)
	}
	l := new(Local)
	decoder := json.NewDecoder(bytes.NewReader(canonical))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(l); err != nil {
		return nil, fmt.Errorf("read local overrides: %w", err)
	}
	for _, dependency := range slices.Sorted(maps.Keys(l.Breakers)) {
		if hold := l.Breakers[dependency]; hold != "open" && hold != "closed" {
			return nil, fmt.Errorf("read local overrides: breakers.%s: is %q; \"open\" and \"closed\" are known", dependency, hold)
		}
	}
	if _, err := l.compile(); err != nil {
		return nil, err
	}
	return l, nil
}

// local is Local compiled.
type local struct {
	*Local
	flags map[string]*Resolved
}

func (l *Local) compile() (*local, error) {
	compiled := &local{Local: l, flags: make(map[string]*Resolved, len(l.Flags))}
	for _, key := range slices.Sorted(maps.Keys(l.Flags)) {
		spec := slices.Concat([]byte(`{"defaultVariant":"local","state":"ENABLED","variants":{"local":`), l.Flags[key], []byte(`}}`))
		f, violations := Compile(key, spec)
		if len(violations) > 0 {
			return nil, fmt.Errorf("read local overrides: flags.%s: is %s; a boolean, string, number or object is needed", key, l.Flags[key])
		}
		compiled.flags[key] = &Resolved{Flag: f, forced: f.Variant("local"), by: force{variant: "local", by: byLocal}}
	}
	return compiled, nil
}

// WithLocal returns the view in which something is decided locally; nil takes that
// back. Views that are derived from it keep it. What ParseLocal would refuse is
// left out.
func (v *View) WithLocal(l *Local) *View {
	u := &update{View: *v, edit: new(btree.Edit), byKeyEdit: new(hamt.Edit), policies: map[string]bool{}, flags: map[string]bool{}, stale: true}
	u.local = nil
	if l != nil {
		if compiled, err := l.compile(); err == nil {
			u.local = compiled
		}
	}
	u.resolve(v.effects)
	next := u.View
	return &next
}

// obey lets what is said locally win over the levels and holds of overrides.
func (e *effects) obey(here *local, levels map[string]Level, modes *btree.Map[btree.Text, *mode]) {
	for _, name := range slices.Sorted(maps.Keys(here.Modes)) {
		level := here.Modes[name]
		m, ok := modes.Get(btree.Text(name))
		key := document.Key{Kind: document.Mode, Name: name}
		switch {
		case !ok:
			e.problems = append(e.problems, Problem{key, "does not exist, but a " + byLocal + " sets its level"})
		case level == Normal:
			delete(levels, name)
		case m.rank(level) == 0:
			e.problems = append(e.problems, Problem{key, fmt.Sprintf("has no level %q, which a %s sets", level, byLocal)})
		default:
			levels[name] = Level{Mode: name, Name: level, Rank: m.rank(level), Override: byLocal}
		}
	}
	for _, dependency := range slices.Sorted(maps.Keys(here.Breakers)) {
		e.holds = slices.DeleteFunc(e.holds, func(h Hold) bool { return h.Dependency == dependency })
		e.holds = append(e.holds, Hold{Dependency: dependency, Open: here.Breakers[dependency] == "open", Override: byLocal})
	}
}
