package flags

import (
	"slices"
	"sync"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/schema"
)

// Flag is a compiled definition. It is immutable; any number of goroutines may
// use it.
type Flag struct {
	key      string
	spec     []byte
	disabled bool
	// broken tells that targeting has no meaning.
	broken   bool
	variants []Variant // in the order of their names
	standard int32     // index of the default variant, or noVariant
	rule     *node     // nil without targeting
	timed    bool
	metadata []Attribute
	pool     *sync.Pool
}

// Compile compiles the definition of a flag, a JSON document, and returns
// everything that is wrong with it. The flag is never nil: what cannot be compiled
// decides ParseError when it is evaluated, as flagd does it. The flag keeps spec.
func Compile(key string, spec []byte) (*Flag, []schema.Violation) {
	return compile(key, spec, newScratchPool())
}

func compile(key string, spec []byte, pool *sync.Pool) (*Flag, []schema.Violation) {
	f := &Flag{key: key, spec: spec, standard: noVariant, pool: pool, broken: true}
	var r schema.Report
	definition, ok := r.Read(spec)
	if !ok {
		return f, r.List()
	}
	checkFlag(definition)
	f.disabled = definition.Members["state"] == "DISABLED"
	f.broken = !f.readVariants(definition.Members["variants"])
	if name, _ := definition.Members["defaultVariant"].(string); name != "" {
		f.standard = variantNamed(f.variants, name)
		f.broken = f.broken || f.standard == noVariant
	}
	if metadata, err := valueOf(definition.Members["metadata"]); err == nil {
		f.metadata, _ = metadata.Members()
		f.metadata = slices.DeleteFunc(f.metadata, func(a Attribute) bool { return a.Value.typ == NullType })
	}
	f.readTargeting(&r, definition.Members["targeting"])
	return f, r.List()
}

// readVariants returns false when there is nothing to choose from.
func (f *Flag) readVariants(src any) bool {
	v, err := valueOf(src)
	members, ok := v.Members()
	if err != nil || !ok {
		return false
	}
	for _, m := range members {
		f.variants = append(f.variants, Variant{Name: m.Key, Value: m.Value, JSON: m.Value.AppendJSON(nil)})
	}
	return true
}

func (f *Flag) readTargeting(r *schema.Report, src any) {
	if src == nil {
		return
	}
	rule, ok := src.(map[string]any)
	if !ok {
		f.broken = true
		return
	}
	if len(rule) == 0 {
		return
	}
	version, _ := f.Meta(fractionalKey).AsString()
	c := compiler{Report: r, key: f.key, v3: version == "v3", variants: f.variants}
	n := c.rule(document.Path("targeting"), src, true)
	f.rule, f.timed, f.broken = &n, n.timed(), f.broken || c.broken
}

// timed tells whether the result may depend on the time.
func (n *node) timed() bool {
	if n.op == opTimestamp || n.op == opVar && (n.path == nil || n.path[0] == flagdKey) {
		return true
	}
	return slices.ContainsFunc(n.args, func(arg node) bool { return arg.timed() })
}

// Key returns the name.
func (f *Flag) Key() string { return f.key }

// Enabled tells whether the definition's state is not DISABLED.
func (f *Flag) Enabled() bool { return !f.disabled }

// Type returns the type of the variants: BoolType, FloatType for all numbers,
// StringType or ObjectType; NullType where there are none.
func (f *Flag) Type() Type {
	switch {
	case len(f.variants) == 0:
		return NullType
	case f.variants[0].Value.typ == IntType:
		return FloatType
	default:
		return f.variants[0].Value.typ
	}
}

// Variants returns the variants in the order of their names; they must not be
// changed.
func (f *Flag) Variants() []Variant { return f.variants }

// Variant returns a variant; nil if there is none of that name.
func (f *Flag) Variant(name string) *Variant { return f.variantAt(variantNamed(f.variants, name)) }

func (f *Flag) variantAt(i int32) *Variant {
	if i < 0 {
		return nil
	}
	return &f.variants[i]
}

// Metadata returns the metadata in the order of the keys; it must not be changed.
func (f *Flag) Metadata() []Attribute { return f.metadata }

// Meta returns one value of the metadata; null if there is none.
func (f *Flag) Meta(key string) Value {
	for i := range f.metadata {
		if f.metadata[i].Key == key {
			return f.metadata[i].Value
		}
	}
	return Value{}
}

const (
	setKey        = "flagSetId"
	fractionalKey = "fractional"
)

// Set returns the flag set, which is the metadata "flagSetId"; empty without.
func (f *Flag) Set() string {
	s, _ := f.Meta(setKey).AsString()
	return s
}

// Timed tells whether decisions may depend on the time. Where it is false,
// Evaluate does not look at it.
func (f *Flag) Timed() bool { return f.timed }

// Evaluate decides for one call. now is in seconds since 1970; of attributes with
// one key the last one counts. It allocates nothing, but for rules that join long
// lists or strings, and keeps nothing of the attributes.
func (f *Flag) Evaluate(now int64, attributes ...Attribute) Decision {
	switch {
	case f.disabled:
		return Decision{Reason: Disabled}
	case f.broken:
		return Decision{Code: ParseError}
	case f.rule == nil && f.standard >= 0:
		return Decision{Variant: &f.variants[f.standard], Reason: Static}
	case f.rule == nil:
		return Decision{Reason: Default}
	}
	m := machine{key: f.key, now: now, steps: maxSteps, pool: f.pool}
	i := m.decide(f, f.rule, &subject{attributes})
	if m.scratch != nil {
		m.release()
	}
	switch {
	case i == noVariant || m.spent():
		return Decision{Code: General}
	case i == nullVariant:
		return Decision{Variant: f.variantAt(f.standard), Reason: Default}
	default:
		return Decision{Variant: &f.variants[i], Reason: TargetingMatch}
	}
}

// named returns the index of the variant that a result names.
func (f *Flag) named(m *machine, v Value) int32 {
	switch v.typ {
	case NullType:
		return nullVariant
	case StringType:
		return f.indexOf(v.str())
	case BoolType:
		if v.num != 0 {
			return f.indexOf("true")
		}
		return f.indexOf("false")
	default:
		return f.indexOf(m.text(v).str())
	}
}

func (f *Flag) indexOf(name string) int32 {
	const few = 8
	if len(f.variants) > few {
		return variantNamed(f.variants, name)
	}
	for i := range f.variants {
		if f.variants[i].Name == name {
			return int32(i)
		}
	}
	return noVariant
}
