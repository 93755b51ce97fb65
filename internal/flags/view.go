package flags

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/holdfast-dev/holdfast/internal/btree"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/hamt"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// Instance is what scopes are resolved for.
type Instance struct {
	// ID is unique and stable as long as the instance lives. Without one, only
	// overrides for 100 percent apply.
	ID string
	// Labels are what selectors look at; "service" is one of them.
	Labels []document.Label
}

// View is a namespace at one revision as one instance obeys it: definitions
// compiled, scopes resolved. It is immutable; any number of goroutines may use it.
type View struct {
	instance *Instance
	pool     *sync.Pool // memory of evaluations
	revision uint64
	root     document.Root

	flags     btree.Map[btree.Text, *Resolved]
	byKey     hamt.Map[*Resolved] // the same, to look up fast
	modes     btree.Map[btree.Text, *mode]
	policies  btree.Map[btree.Text, *resolvedPolicy]
	overrides btree.Map[btree.Text, *override]
	problems  btree.Map[document.Key, string]
	// effects follow from modes, overrides and local.
	effects *effects
	local   *local // nil for none
}

// resolvedPolicy is a policy with what the levels of modes patch in it.
type resolvedPolicy struct {
	spec     []byte // as declared; nil where only patches are
	merged   []byte // with the patches
	revision uint64
	wrong    string // what is wrong with the declaration
	policy   policy.Policy
}

// NewView returns the view of an empty namespace at revision 0.
func NewView(instance Instance) *View {
	return &View{instance: &instance, pool: newScratchPool(), effects: &effects{}}
}

// Update returns the view after a change. It takes time in what changed; where
// modes or overrides did, also in the number of overrides. The delta may be a whole
// namespace, for a view that holds none.
//
// A definition that cannot be compiled, because it comes from a newer version,
// leaves what there was before it in force, and becomes one of Problems. A flag
// that it disables is disabled; an override that cannot be read is not obeyed.
func (v *View) Update(d document.Delta) *View {
	u := &update{View: *v, edit: new(btree.Edit), byKeyEdit: new(hamt.Edit), policies: map[string]bool{}, flags: map[string]bool{}}
	u.revision, u.root = d.To, d.Root
	for _, r := range d.Puts {
		u.put(r)
	}
	for _, t := range d.Deletes {
		u.remove(t.Key)
	}
	u.resolve(v.effects)
	next := u.View
	return &next
}

// Replace returns the view of a whole namespace, which the delta is. Of a definition
// in it that cannot be compiled, what this view has stays in force.
func (v *View) Replace(d document.Delta) *View {
	told := make(map[document.Key]bool, len(d.Puts))
	for _, r := range d.Puts {
		told[r.Key] = true
	}
	d.Deletes = nil
	for k := range v.keys() {
		if !told[k] {
			d.Deletes = append(d.Deletes, document.Tombstone{Key: k, Revision: d.To})
		}
	}
	return v.Update(d)
}

// keys iterates over what the view is made of; some come more than once.
func (v *View) keys() iter.Seq[document.Key] {
	return func(yield func(document.Key) bool) {
		if !each(&v.flags, document.Flag, yield) || !each(&v.modes, document.Mode, yield) ||
			!each(&v.policies, document.Policy, yield) || !each(&v.overrides, document.Override, yield) {
			return
		}
		for k := range v.problems.All() { // all that there is of an override that cannot be read
			if !yield(k) {
				return
			}
		}
	}
}

// each yields the names in a map until yield has enough: false.
func each[V any](of *btree.Map[btree.Text, V], kind document.Kind, yield func(document.Key) bool) bool {
	for name := range of.All() {
		if !yield(document.Key{Kind: kind, Name: string(name)}) {
			return false
		}
	}
	return true
}

// NextEnd returns when the first of the overrides ends, state time in milliseconds
// since 1970; 0 if none does.
func (v *View) NextEnd() int64 { return v.effects.next }

// Expire returns the view at a time: without the overrides that have ended by
// then, state time in milliseconds since 1970. Who is cut off from those who would
// tell, ends them so. It returns v itself while there is nothing to end.
func (v *View) Expire(now int64) *View {
	if v.effects.next == 0 || now < v.effects.next {
		return v
	}
	d := document.Delta{From: v.revision, To: v.revision, Root: v.root}
	for _, o := range v.overrides.All() {
		if o.end > 0 && o.end <= now {
			d.Deletes = append(d.Deletes, document.Tombstone{Key: document.Key{Kind: document.Override, Name: o.name}, Ended: true})
		}
	}
	return v.Update(d)
}

// Revision returns the revision up to which the view is.
func (v *View) Revision() uint64 { return v.revision }

// Root returns the Merkle root of the namespace.
func (v *View) Root() document.Root { return v.root }

// Flag returns a flag as it is for this instance; nil if there is none.
func (v *View) Flag(key string) *Resolved {
	if v.local != nil {
		if r, ok := v.local.flags[key]; ok {
			return r
		}
	}
	return v.stored(key)
}

// stored returns a flag as the namespace has it.
func (v *View) stored(key string) *Resolved {
	r, _ := v.byKey.Get(key)
	return r
}

// Len returns the number of flags.
func (v *View) Len() int { return v.flags.Len() }

// Flags iterates over all flags in the order of their keys.
func (v *View) Flags() iter.Seq[*Resolved] {
	return func(yield func(*Resolved) bool) {
		for _, r := range v.flags.All() {
			if !yield(r) {
				return
			}
		}
	}
}

// Changes iterates over the flags that are not the same in two views, in the order
// of their keys: was is nil of a new one, is of one that is gone. Of two views of
// which one was derived from the other it takes time in what changed.
func (v *View) Changes(since *View) iter.Seq2[*Resolved, *Resolved] {
	return func(yield func(was, is *Resolved) bool) {
		same := func(was, is *Resolved) bool { return was == is }
		for _, c := range v.flags.Diff(&since.flags, same) {
			if !yield(c.Was, c.Is) {
				return
			}
		}
	}
}

// Levels returns the modes that are degraded for this instance, in the order of
// their names. It must not be changed.
func (v *View) Levels() []Level { return v.effects.levels }

// Mode returns the level of a mode; the zero Level where it is normal or does not
// exist.
func (v *View) Mode(name string) Level {
	for _, l := range v.effects.levels {
		if l.Mode == name {
			return l
		}
	}
	return Level{}
}

// AtLevel tells whether a mode is at a level, Normal included, or at a more degraded
// one. It is false for a level that the mode does not have.
func (v *View) AtLevel(name, level string) bool {
	if level == Normal {
		return true
	}
	at := v.Mode(name).Rank
	if at == 0 {
		return false
	}
	m, ok := v.modes.Get(btree.Text(name))
	if !ok {
		return false
	}
	rank := m.rank(level)
	return rank > 0 && rank <= at
}

// Effects returns what the levels of modes do with calls, the strongest last. It
// must not be changed.
func (v *View) Effects() []MethodEffect { return v.effects.methods }

// Method returns what is done with the calls of a method, such as
// "/shop.Orders/Place", which is declared NO_SIDE_EFFECTS or not.
func (v *View) Method(side Side, method string, noSideEffects bool) Plan {
	return v.effects.plan(func(e *MethodEffect) bool { return e.Side == side && e.Matches(method, noSideEffects) })
}

// Operation returns what is done with an operation that is no gRPC method. Only
// clients have them.
func (v *View) Operation(name string) Plan {
	return v.effects.plan(func(e *MethodEffect) bool { return e.MatchesOperation(name) })
}

// RecordMethod returns what to record of the replies of a method: one Recording for
// each set of metadata by which any level of any mode would tell answers apart. It
// takes time in the number of modes.
func (v *View) RecordMethod(side Side, method string, noSideEffects bool) []Recording {
	return v.recordings(func(e *MethodEffect) bool { return e.Side == side && e.Matches(method, noSideEffects) })
}

// RecordOperation is RecordMethod for an operation that is no gRPC method.
func (v *View) RecordOperation(name string) []Recording {
	return v.recordings(func(e *MethodEffect) bool { return e.MatchesOperation(name) })
}

func (v *View) recordings(matches func(*MethodEffect) bool) []Recording {
	var all []Recording
	for _, m := range v.modes.All() {
		for i := range m.levels {
			for j := range m.levels[i].methods {
				e := &m.levels[i].methods[j]
				if e.Action == Cache && matches(e) {
					all = record(all, e)
				}
			}
		}
	}
	return all
}

// record adds what an effect needs to have recorded.
func record(all []Recording, e *MethodEffect) []Recording {
	vary := slices.Sorted(slices.Values(e.Vary))
	for i := range all {
		if slices.Equal(all[i].Vary, vary) {
			all[i].MaxAge = max(all[i].MaxAge, e.MaxAge)
			return all
		}
	}
	return append(all, Recording{Vary: vary, MaxAge: e.MaxAge})
}

// Hold returns the override that holds the breaker of a dependency and method; false
// if there is none. One that holds it open wins, and among those that do the same,
// the newest.
func (v *View) Hold(dependency, method string) (Hold, bool) {
	var held Hold
	found := false
	for _, h := range v.effects.holds {
		if h.Dependency != dependency || h.Method != "" && h.Method != method {
			continue
		}
		if !found || h.Open != held.Open && h.Open || h.Open == held.Open && h.Revision > held.Revision {
			held, found = h, true
		}
	}
	return held, found
}

// Policy returns the settings of a dependency with what the levels of modes change
// in them; false where nothing is said about it.
func (v *View) Policy(dependency string) (policy.Policy, bool) {
	p, ok := v.policies.Get(btree.Text(dependency))
	if !ok {
		return policy.Default(), false
	}
	return p.policy, true
}

// PolicyOver is Policy with other defaults than the built-in ones, such as settings
// given in code; nothing said about the dependency leaves them as they are.
func (v *View) PolicyOver(base policy.Policy, dependency string) policy.Policy {
	p, ok := v.policies.Get(btree.Text(dependency))
	if !ok {
		return base
	}
	resolved, _ := policy.Resolve(base, p.merged)
	return resolved
}

// Patched returns the policies that the levels of modes patch, in order.
func (v *View) Patched() []string { return slices.Sorted(maps.Keys(v.effects.patches)) }

// Problems returns what cannot be obeyed: definitions that do not compile, and
// overrides and effects of what does not exist.
func (v *View) Problems() []Problem {
	problems := slices.Clone(v.effects.problems)
	for k, message := range v.problems.All() {
		problems = append(problems, Problem{k, message})
	}
	for _, name := range slices.Sorted(maps.Keys(v.effects.forces)) {
		key, r := document.Key{Kind: document.Flag, Name: name}, v.stored(name)
		for _, f := range v.effects.forces[name] {
			switch {
			case r == nil:
				problems = append(problems, Problem{key, fmt.Sprintf("does not exist, but %s gives it the variant %q", f.by, f.variant)})
			case r.Variant(f.variant) == nil:
				problems = append(problems, Problem{key, fmt.Sprintf("has no variant %q, which %s gives it", f.variant, f.by)})
			}
		}
	}
	return problems
}
