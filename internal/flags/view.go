package flags

import (
	"iter"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// Instance is what scopes are resolved for.
type Instance struct {
	// ID is unique and stable as long as the instance lives. Without one, only
	// overrides for 100 percent apply.
	ID string
	// Labels are sorted by key; "service" is one of them.
	Labels []document.Label
}

// View is a namespace at one revision as one instance obeys it: definitions
// compiled, scopes resolved. It is immutable; any number of goroutines may use it.
type View struct{}

// NewView returns the view of an empty namespace at revision 0.
func NewView(instance Instance) *View { panic("not yet") }

// Update returns the view after a change, in time O(change). The delta may be a
// whole namespace, of a view that holds none.
func (v *View) Update(d document.Delta) *View { panic("not yet") }

// Revision returns the revision up to which the view is.
func (v *View) Revision() uint64 { panic("not yet") }

// Root returns the Merkle root of the namespace.
func (v *View) Root() document.Root { panic("not yet") }

// Flag returns a flag as it is for this instance; nil if there is none.
func (v *View) Flag(key string) *Resolved { panic("not yet") }

// Flags iterates over all flags in the order of their keys.
func (v *View) Flags() iter.Seq[*Resolved] { panic("not yet") }

// Changes iterates over the flags that are not the same in two views of one
// instance, in the order of their keys: was is nil of a new one, is of one that
// is gone. It takes time in what changed, not in what there is.
func (v *View) Changes(since *View) iter.Seq2[*Resolved, *Resolved] { panic("not yet") }

// Resolved is a flag as it is for one instance: its definition, or the variant
// that an override or a mode's level forces. It is immutable, and the same
// pointer in all views in which it is the same.
type Resolved struct {
	*Flag
}

// Evaluate decides for one call, as [Flag.Evaluate]. An override beats a mode's
// level, which beats the definition, also a disabled one.
func (r *Resolved) Evaluate(now int64, attributes ...Attribute) Decision { panic("not yet") }

// Forced returns the variant that is forced and what forces it, such as
// "override/flag-x" or "mode/storefront=basic"; nil where the definition decides.
func (r *Resolved) Forced() (*Variant, string) { panic("not yet") }

// Metadata returns the metadata of the definition, and, of a forced flag,
// "holdfast.forcedBy" with what forces it. It is sorted and must not be changed.
func (r *Resolved) Metadata() []Attribute { panic("not yet") }

// Definition returns the definition as canonical JSON, changed so that a flagd
// provider, which knows no overrides, comes to the same decisions: a forced
// variant is the default one of an enabled flag without targeting.
func (r *Resolved) Definition() []byte { panic("not yet") }

// Explain decides as Evaluate does and tells how it came to that.
func (r *Resolved) Explain(now int64, attributes ...Attribute) Explanation { panic("not yet") }

// Explanation tells how a decision was made.
type Explanation struct {
	Decision
	// DecidedBy is what decided: "override/NAME", "mode/NAME=LEVEL", or the part of
	// the definition, such as "targeting.if[3]", "defaultVariant" or "state".
	DecidedBy string
	// Detail says more in words; of an error what is wrong.
	Detail string
	// Revision is the one of what decided.
	Revision uint64
}
