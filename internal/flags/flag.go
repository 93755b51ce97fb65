package flags

import (
	"github.com/holdfast-dev/holdfast/internal/schema"
)

// Flag is a compiled definition. It is immutable; any number of goroutines may
// use it.
type Flag struct {
	key string
}

// Compile compiles the definition of a flag, canonical JSON, and returns
// everything that is wrong with it. The flag is never nil: what cannot be
// compiled decides ParseError when it is evaluated, as flagd does it.
func Compile(key string, spec []byte) (*Flag, []schema.Violation) {
	panic("not yet")
}

// Key returns the name.
func (f *Flag) Key() string { return f.key }

// Enabled tells whether the definition's state is ENABLED.
func (f *Flag) Enabled() bool { panic("not yet") }

// Type returns the type of all variants; of numbers FloatType, also when all of
// them are integers.
func (f *Flag) Type() Type { panic("not yet") }

// Variants returns the variants in the order of their names; they must not be
// changed.
func (f *Flag) Variants() []Variant { panic("not yet") }

// Metadata returns the metadata in the order of the keys; it must not be changed.
func (f *Flag) Metadata() []Attribute { panic("not yet") }

// Set returns the flag set, which is the metadata "flagSetId"; empty without.
func (f *Flag) Set() string { panic("not yet") }

// Evaluate decides for one call. now is in seconds since 1970; of attributes with
// one key the last one counts. It allocates nothing.
func (f *Flag) Evaluate(now int64, attributes ...Attribute) Decision { panic("not yet") }
