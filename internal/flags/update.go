package flags

import (
	"bytes"
	"slices"

	"github.com/holdfast-dev/holdfast/internal/btree"
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/hamt"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/schema"
)

// update is a view that is being made.
type update struct {
	View
	edit      *btree.Edit
	byKeyEdit *hamt.Edit
	// flags and policies have to be resolved again.
	flags, policies map[string]bool
	// effects tells that those have to be resolved again.
	stale bool
}

// put takes in a resource.
func (u *update) put(r *document.Resource) {
	name := btree.Text(r.Name)
	var err error
	switch r.Kind {
	case document.Flag:
		u.putFlag(r)
		return
	case document.Policy:
		u.putPolicy(r)
		return
	case document.Mode:
		var m *mode
		if m, err = compileMode(r); err == nil {
			u.modes.Put(u.edit, name, m)
		}
		u.stale = true
	case document.Override:
		var o *override
		if o, err = compileOverride(r, u.instance); err == nil {
			u.overrides.Put(u.edit, name, o)
		} else {
			// Of an override that cannot be read, what it was before is over.
			u.overrides.Delete(u.edit, name)
		}
		u.stale = true
	default:
		return // of a newer version
	}
	if err != nil {
		u.problem(r.Key, err.Error())
	} else {
		u.problem(r.Key, "")
	}
}

func (u *update) putFlag(r *document.Resource) {
	f, violations := compile(r.Name, r.Spec, u.pool)
	was := u.stored(r.Name)
	switch {
	case !f.broken:
		u.problem(r.Key, "")
	case len(violations) > 0:
		u.problem(r.Key, violations[0].String())
	default:
		u.problem(r.Key, "has no meaning")
	}
	if f.broken && !f.disabled && was != nil && !was.broken {
		return
	}
	u.setFlag(&Resolved{Flag: f, revision: r.ModRevision})
	u.flags[r.Name] = true
}

func (u *update) setFlag(r *Resolved) {
	u.View.flags.Put(u.edit, btree.Text(r.key), r)
	u.byKey.Put(u.byKeyEdit, r.key, r)
}

func (u *update) putPolicy(r *document.Resource) {
	next := &resolvedPolicy{spec: r.Spec, revision: r.ModRevision}
	if _, violations := policy.Parse(r.Spec); len(violations) > 0 {
		next.wrong = violations[0].String()
		if was, _ := u.View.policies.Get(btree.Text(r.Name)); was != nil && was.spec != nil {
			next.spec, next.revision = was.spec, was.revision
		}
	}
	u.View.policies.Put(u.edit, btree.Text(r.Name), next)
	u.policies[r.Name] = true
}

// problem notes what is wrong with a resource; nothing if the message is empty.
func (u *update) problem(k document.Key, message string) {
	if message != "" {
		u.problems.Put(u.edit, k, message)
	} else if u.problems.Len() > 0 {
		u.problems.Delete(u.edit, k)
	}
}

// remove forgets a resource.
func (u *update) remove(k document.Key) {
	name := btree.Text(k.Name)
	u.problem(k, "")
	switch k.Kind {
	case document.Flag:
		u.View.flags.Delete(u.edit, name)
		u.byKey.Delete(u.byKeyEdit, k.Name)
	case document.Policy:
		u.View.policies.Delete(u.edit, name)
		u.policies[k.Name] = true
	case document.Mode:
		u.modes.Delete(u.edit, name)
		u.stale = true
	case document.Override:
		u.overrides.Delete(u.edit, name)
		u.stale = true
	}
}

// resolve brings flags and policies in line with the effects, which were those of
// the view before.
func (u *update) resolve(was *effects) {
	if u.stale {
		u.effects = resolve(&u.modes, &u.overrides, u.local)
		differing(u.flags, was.forces, u.effects.forces, slices.Equal)
		differing(u.policies, was.patches, u.effects.patches, samePatches)
	}
	for name := range u.flags {
		if r := u.stored(name); r != nil {
			u.setFlag(r.with(u.effects.forces[name]))
		}
	}
	for name := range u.policies {
		u.resolvePolicy(name)
	}
}

func (u *update) resolvePolicy(name string) {
	p := resolvedPolicy{}
	if declared, ok := u.View.policies.Get(btree.Text(name)); ok {
		p = *declared
	}
	patches := u.effects.patches[name]
	if p.spec == nil && len(patches) == 0 {
		u.problem(document.Key{Kind: document.Policy, Name: name}, "")
		u.View.policies.Delete(u.edit, btree.Text(name))
		return
	}
	spec := p.spec
	for _, patch := range patches {
		// What cannot be patched in is left out; validation has refused it.
		if patched, err := policy.Patch(spec, patch.patch); err == nil {
			spec = patched
		}
	}
	var violations []schema.Violation
	p.policy, violations = policy.Parse(spec)
	p.merged = spec
	message := p.wrong
	if message == "" && len(violations) > 0 {
		message = "with the patches of " + patches[len(patches)-1].by + ": " + violations[0].String()
	}
	u.problem(document.Key{Kind: document.Policy, Name: name}, message)
	u.View.policies.Put(u.edit, btree.Text(name), &p)
}

func samePatches(a, b []patchBy) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].by != b[i].by || a[i].revision != b[i].revision || !bytes.Equal(a[i].patch, b[i].patch) {
			return false
		}
	}
	return true
}

// differing adds the keys of which two maps have different values.
func differing[V any](keys map[string]bool, was, is map[string]V, same func(a, b V) bool) {
	for k, v := range is {
		if old, ok := was[k]; !ok || !same(old, v) {
			keys[k] = true
		}
	}
	for k := range was {
		if _, ok := is[k]; !ok {
			keys[k] = true
		}
	}
}
