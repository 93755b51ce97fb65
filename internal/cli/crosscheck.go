package cli

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// crossHints is for how many missing names a similar one is looked for: each look
// goes through all that the files declare.
const crossHints = 50

// crossChecker looks names that definitions use up among the definitions.
type crossChecker struct {
	declared map[place]*manifest
	// names lists what is declared, by kind and namespace.
	names map[place][]string
	hints int
	// missing says that a key, which follows, is nowhere.
	missing string
	// served finds what servers have; nil where only files count.
	served   *servedDefinitions
	problems []problem
}

// newCrossChecker returns a checker among definitions.
func newCrossChecker(all []*manifest) *crossChecker {
	c := &crossChecker{declared: map[place]*manifest{}, names: map[place][]string{}, missing: "the files do not declare"}
	for _, m := range all {
		c.declared[place{m.namespace, m.key}] = m
		kind := place{m.namespace, document.Key{Kind: m.key.Kind}}
		c.names[kind] = append(c.names[kind], m.key.Name)
	}
	return c
}

// crossCheck adds what is wrong between the definitions that a reader has read.
func crossCheck(r *manifestReader) {
	all := slices.Concat(r.faulty, r.manifests)
	c := newCrossChecker(all)
	c.definitions(all)
	r.problems = append(r.problems, c.problems...)
}

// definitions checks what definitions use.
func (c *crossChecker) definitions(all []*manifest) {
	for _, m := range all {
		switch m.key.Kind { //nolint:exhaustive // others name nothing
		case document.Mode:
			c.mode(m, math.MaxInt)
		case document.Override:
			c.override(m)
		}
	}
}

// mode checks the effects of the first levels of a mode.
func (c *crossChecker) mode(m *manifest, levels int) {
	var spec struct {
		Levels []struct {
			Effects []struct {
				Flag, Variant, Policy string
			}
		}
	}
	if json.Unmarshal(m.spec, &spec) != nil {
		return // the validator has told
	}
	for i, level := range spec.Levels[:min(levels, len(spec.Levels))] {
		for j, effect := range level.Effects {
			path := document.Path("levels").Index(i).Key("effects").Index(j)
			switch {
			case effect.Flag != "":
				c.variant(m, path, effect.Flag, effect.Variant)
			case effect.Policy != "":
				c.find(m, path.Key("policy"), document.Key{Kind: document.Policy, Name: effect.Policy})
			}
		}
	}
}

// override checks the target of an override. A breaker belongs to a dependency,
// which nobody declares.
func (c *crossChecker) override(m *manifest) {
	var spec overrideSpec
	if json.Unmarshal(m.spec, &spec) != nil {
		return
	}
	switch {
	case spec.Flag != "":
		c.variant(m, "", spec.Flag, spec.Variant)
	case spec.Mode != "":
		if mode := c.find(m, "mode", document.Key{Kind: document.Mode, Name: spec.Mode}); mode != nil {
			var levels modeSpec
			if json.Unmarshal(mode.spec, &levels) == nil {
				c.among(m, "level", mode, "level", spec.Level, levels.names())
			}
		}
	}
}

// variant checks the name of a flag and of one of its variants.
func (c *crossChecker) variant(m *manifest, path document.Path, flag, variant string) {
	if def := c.find(m, path.Key("flag"), document.Key{Kind: document.Flag, Name: flag}); def != nil {
		c.among(m, path.Key("variant"), def, "variant", variant, variantsOf(def.spec))
	}
}

// find returns a definition, or nil after a warning that there is none. One that
// has faults of its own is one as far as it can be read.
func (c *crossChecker) find(m *manifest, path document.Path, key document.Key) *manifest {
	at := place{m.namespace, key}
	if def := c.declared[at]; def != nil {
		return def
	}
	if c.served != nil {
		if def, known := c.served.find(at); def != nil || !known {
			return def
		}
	}
	text := c.missing + " " + key.String()
	if c.hints++; c.hints <= crossHints {
		kind := place{m.namespace, document.Key{Kind: key.Kind}}
		names := c.names[kind]
		if c.served != nil {
			names = slices.Concat(names, c.served.names(kind))
			slices.Sort(names)
			names = slices.Compact(names)
		}
		if hint := didYouMean(key.Name, names); hint != "" {
			text += "; " + hint
		}
	}
	c.add(m, path, text, true)
	return nil
}

// among checks that a definition has what is named.
func (c *crossChecker) among(m *manifest, path document.Path, def *manifest, what, name string, of []string) {
	if len(of) == 0 || slices.Contains(of, name) {
		return // where there is nothing to choose from, that has been told
	}
	text := fmt.Sprintf("%s has no %s %q; it has %s", def, what, name, strings.Join(of, ", "))
	if hint := didYouMean(name, of); hint != "" {
		text += "; " + hint
	}
	c.add(m, path, text, false)
}

func (c *crossChecker) add(m *manifest, path document.Path, text string, warning bool) {
	p := problem{file: m.file, key: m.String(), path: string(path), text: text, warning: warning}
	if at := m.specNode.Locate(p.path); at != nil {
		p.line = at.Line
	}
	c.problems = append(c.problems, p)
}
