package flags

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/holdfast-dev/holdfast/internal/btree"
	"github.com/holdfast-dev/holdfast/internal/document"
)

// Level is the level at which a mode is for an instance.
type Level struct {
	Mode string
	// Name and Rank are those of the level; rank 1 is the mildest.
	Name string
	Rank int
	// Override is the name of the override that decides, Revision its revision and
	// End its end, state time in milliseconds since 1970.
	Override string
	Revision uint64
	End      int64
}

// String returns "mode/NAME=LEVEL".
func (l *Level) String() string { return "mode/" + l.Mode + "=" + l.Name }

// Decider names what sets the level, such as "override/x".
func (l *Level) Decider() string { return decider(l.Override) }

// decider names an override as what decides.
func decider(name string) string {
	if name == byLocal {
		return name
	}
	return "override/" + name
}

// Hold is a breaker that is held open or closed by an override.
type Hold struct {
	Dependency string
	Method     string // empty for all methods
	Open       bool
	Override   string
	Revision   uint64
	End        int64
}

// Decider names what holds the breaker, such as "override/x".
func (h *Hold) Decider() string { return decider(h.Override) }

// Problem is something that cannot be obeyed.
type Problem struct {
	Key     document.Key
	Message string
}

// String returns "kind/name: message".
func (p Problem) String() string { return p.Key.String() + ": " + p.Message }

// effects is what overrides and the levels of modes decide for an instance.
type effects struct {
	levels []Level // degraded ones, in the order of the modes' names
	// forces are those of each flag, the strongest last.
	forces  map[string][]force
	patches map[string][]patchBy // in the order in which they apply
	methods []MethodEffect       // the strongest last
	holds   []Hold
	// next is when the first of the overrides ends; 0 if none does.
	next int64
	// problems are of overrides that cannot be obeyed.
	problems []Problem
}

// force gives a flag a variant.
type force struct {
	variant  string
	by       string
	revision uint64
	end      int64
}

type patchBy struct {
	patch    []byte
	by       string
	revision uint64
}

// resolve computes the effects of all overrides that apply.
//
// Of one mode the most degraded level wins, and has the effects of those before it
// too, the later ones over the earlier ones. Where modes contradict each other, the
// one wins whose level was set last. An override of a flag beats them all; of
// several the newest wins. To extend an override is to set it. A breaker that is
// held open beats one that is held closed. What is said locally beats all that.
func resolve(modes *btree.Map[btree.Text, *mode], overrides *btree.Map[btree.Text, *override], here *local) *effects {
	e := &effects{forces: map[string][]force{}, patches: map[string][]patchBy{}}
	levels := map[string]Level{}
	var variants []*override
	for _, o := range overrides.All() {
		if o.end > 0 && (e.next == 0 || o.end < e.next) {
			e.next = o.end
		}
		switch {
		case !o.applies:
		case o.spec.Mode != "":
			e.level(levels, modes, o)
		case o.spec.Flag != "":
			variants = append(variants, o)
		case o.spec.Breaker != "":
			e.holds = append(e.holds, Hold{
				Dependency: o.spec.Breaker, Method: o.spec.Method, Open: o.spec.Hold == "open",
				Override: o.name, Revision: o.revision, End: o.end,
			})
		}
	}
	if here != nil {
		e.obey(here, levels, modes)
	}
	for _, l := range levels {
		e.levels = append(e.levels, l)
	}
	slices.SortFunc(e.levels, func(a, b Level) int {
		switch { // a level that is set locally has no revision
		case a.Override == byLocal && b.Override != byLocal:
			return 1
		case a.Override != byLocal && b.Override == byLocal:
			return -1
		}
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Mode, b.Mode))
	})
	for i := range e.levels {
		m, _ := modes.Get(btree.Text(e.levels[i].Mode))
		e.enter(m, &e.levels[i])
	}
	slices.SortFunc(e.levels, func(a, b Level) int { return cmp.Compare(a.Mode, b.Mode) })
	slices.SortStableFunc(variants, func(a, b *override) int { return cmp.Compare(a.revision, b.revision) })
	for _, o := range variants {
		f := force{variant: o.spec.Variant, by: "override/" + o.name, revision: o.revision, end: o.end}
		e.forces[o.spec.Flag] = append(e.forces[o.spec.Flag], f)
	}
	return e
}

// level notes the level that an override sets, if it wins.
func (e *effects) level(levels map[string]Level, modes *btree.Map[btree.Text, *mode], o *override) {
	key := document.Key{Kind: document.Override, Name: o.name}
	m, ok := modes.Get(btree.Text(o.spec.Mode))
	if !ok {
		e.problems = append(e.problems, Problem{key, fmt.Sprintf("there is no mode %q", o.spec.Mode)})
		return
	}
	l := Level{Mode: m.name, Name: o.spec.Level, Rank: m.rank(o.spec.Level), Override: o.name, Revision: o.revision, End: o.end}
	if l.Rank == 0 {
		e.problems = append(e.problems, Problem{key, fmt.Sprintf("mode %q has no level %q", m.name, l.Name)})
		return
	}
	if was := levels[m.name]; l.Rank > was.Rank || l.Rank == was.Rank && l.Revision > was.Revision {
		levels[m.name] = l
	}
}

// enter adds the effects of a level and of those before it.
func (e *effects) enter(m *mode, l *Level) {
	revision := max(l.Revision, m.revision)
	for i := range m.levels[:l.Rank] {
		by := "mode/" + m.name + "=" + m.levels[i].name
		for _, f := range m.levels[i].forces {
			e.forces[f.flag] = append(e.forces[f.flag], force{variant: f.variant, by: by, revision: revision, end: l.End})
		}
		for _, p := range m.levels[i].patches {
			e.patches[p.policy] = append(e.patches[p.policy], patchBy{p.patch, by, revision})
		}
		for _, method := range m.levels[i].methods {
			method.By, method.Revision = by, revision
			e.methods = append(e.methods, method)
		}
	}
}

// Plan is what the levels of modes do with the calls of one method or operation:
// at most one effect of each action. They are tried in the order of the fields;
// where none of them ends the call, it is made.
type Plan struct {
	Shed, Cache, Fallback, Reject *MethodEffect
}

// Empty tells whether calls are made as always.
func (p Plan) Empty() bool { return p == Plan{} }

// plan chooses the strongest effect of each action.
func (e *effects) plan(matches func(*MethodEffect) bool) Plan {
	var p Plan
	for i := range e.methods {
		m := &e.methods[i]
		if !matches(m) {
			continue
		}
		switch m.Action {
		case Shed:
			p.Shed = m
		case Cache:
			p.Cache = m
		case Fallback:
			p.Fallback = m
		case Reject:
			p.Reject = m
		}
	}
	return p
}
