package flags

import (
	"encoding/json"
	"slices"
	"strconv"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// Resolved is a flag as it is for one instance: its definition, or the variant
// that an override or a mode's level forces. It is immutable, and the same
// pointer in all views between which nothing about it was decided again.
type Resolved struct {
	*Flag
	revision uint64 // of the definition
	forced   *Variant
	by       force
}

// forcedByKey is the metadata that tells what forces a flag.
const forcedByKey = "holdfast.forcedBy"

// with returns the flag under forces, the strongest last. One that names no variant
// does not count.
func (r *Resolved) with(forces []force) *Resolved {
	next := &Resolved{Flag: r.Flag, revision: r.revision}
	for _, f := range slices.Backward(forces) {
		if next.forced = r.Variant(f.variant); next.forced != nil {
			next.by = f
			break
		}
	}
	return next
}

// Revision returns the revision of the definition, or of what forces the flag if
// that is newer.
func (r *Resolved) Revision() uint64 {
	if r.forced == nil {
		return r.revision
	}
	return max(r.revision, r.by.revision)
}

// Evaluate decides for one call, as [Flag.Evaluate]. An override beats a mode's
// level, which beats the definition, also a disabled one.
func (r *Resolved) Evaluate(now int64, attributes ...Attribute) Decision {
	if r.forced != nil {
		return Decision{Variant: r.forced, Reason: Static}
	}
	return r.Flag.Evaluate(now, attributes...)
}

// Forced returns the variant that is forced and what forces it, such as
// "override/flag-x" or "mode/storefront=basic"; nil where the definition decides.
func (r *Resolved) Forced() (*Variant, string) {
	if r.forced == nil {
		return nil, ""
	}
	return r.forced, r.by.by
}

// Metadata returns the metadata of the definition, and, of a forced flag,
// "holdfast.forcedBy" with what forces it. It is sorted and must not be changed.
func (r *Resolved) Metadata() []Attribute {
	if r.forced == nil {
		return r.Flag.Metadata()
	}
	all := append([]Attribute{}, r.Flag.Metadata()...)
	return sortedMembers(append(all, Attribute{Key: forcedByKey, Value: String(r.by.by)}))
}

// Definition returns the definition as canonical JSON, changed so that a flagd
// provider, which knows no overrides, comes to the same decisions: a forced
// variant is the default one of an enabled flag without targeting, and a default
// variant that is none is left out. It must not be changed.
func (r *Resolved) Definition() []byte {
	if r.forced == nil && (r.standard != noVariant || r.broken) {
		return r.spec
	}
	var definition map[string]json.RawMessage
	if json.Unmarshal(r.spec, &definition) != nil {
		return r.spec
	}
	delete(definition, "defaultVariant")
	if r.forced != nil {
		delete(definition, "targeting")
		definition["state"] = json.RawMessage(`"ENABLED"`)
		definition["defaultVariant"] = document.AppendString(nil, r.forced.Name)
		definition["metadata"] = Object(r.Metadata()...).AppendJSON(nil)
	}
	changed, err := json.Marshal(definition)
	if err != nil {
		return r.spec
	}
	canonical, err := document.Canonical(changed)
	if err != nil {
		return r.spec
	}
	return canonical
}

// Explanation tells how a decision was made.
type Explanation struct {
	Decision
	// DecidedBy is what decided: "override/NAME", "mode/NAME=LEVEL", or the part of
	// the definition, such as "targeting.if[3]", "defaultVariant" or "state".
	DecidedBy string
	// Detail says more in words; of an error what is wrong.
	Detail string
	// Revision is the one of what decided, and End when it ends, state time in
	// milliseconds since 1970; 0 where it does not.
	Revision uint64
	End      int64
}

// Explain decides as Evaluate does and tells how it came to that.
func (r *Resolved) Explain(now int64, attributes ...Attribute) Explanation {
	e := Explanation{Decision: r.Evaluate(now, attributes...), Revision: r.revision}
	switch {
	case r.forced != nil:
		e.DecidedBy, e.Revision, e.End = r.by.by, r.by.revision, r.by.end
		e.Detail = "forces the variant " + strconv.Quote(r.forced.Name)
	case e.Reason == Disabled:
		e.DecidedBy, e.Detail = "state", "the flag is disabled; the caller's default applies"
	case e.Code == ParseError:
		e.DecidedBy = "targeting"
		e.Detail = r.wrong()
	case e.Reason == Static:
		e.DecidedBy, e.Detail = "defaultVariant", "there is no targeting"
	case r.rule == nil:
		e.DecidedBy, e.Detail = "defaultVariant", "there is neither targeting nor a default variant; the caller's default applies"
	default:
		path, result := r.trace(now, attributes)
		e.DecidedBy = string(path)
		e.Detail = r.detail(e, result)
	}
	return e
}

// wrong says why the flag cannot be evaluated.
func (r *Resolved) wrong() string {
	_, violations := Compile(r.key, r.spec)
	if len(violations) == 0 {
		return "the definition has no meaning"
	}
	return violations[0].String()
}

func (r *Resolved) detail(e Explanation, result string) string {
	switch {
	case e.Code == General && result == "":
		return "the rule takes more than the allowed steps"
	case e.Code == General:
		return "the rule results in " + result + ", which is not among the variants"
	case result == unbucketed && e.Variant == nil:
		return "there is no " + TargetingKey + " to choose a bucket by, and no default variant; the caller's default applies"
	case result == unbucketed:
		return "there is no " + TargetingKey + " to choose a bucket by; the default variant applies"
	case e.Reason == Default && e.Variant == nil:
		return "the rule results in null, and there is no default variant; the caller's default applies"
	case e.Reason == Default:
		return "the rule results in null; the default variant applies"
	default:
		return "the rule results in " + result
	}
}

// unbucketed is the result of a "fractional" without a value to bucket by.
const unbucketed = "unbucketed"

// trace returns the part of the rule that makes the result, and the result as
// JSON; empty when it takes too many steps.
func (r *Resolved) trace(now int64, attributes []Attribute) (path document.Path, result string) {
	m := machine{key: r.key, now: now, steps: maxSteps, pool: r.pool}
	who := &subject{attributes}
	defer func() {
		if m.scratch != nil {
			m.release()
		}
	}()
	path = "targeting"
	for n := r.rule; ; {
		switch n.op { //nolint:exhaustive // others are the result themselves
		case opIf:
			next := m.branch(n, who, root())
			if next == nil {
				return path.Key("if"), "null"
			}
			path = childPath(path.Key("if"), n, next)
			n = next
			continue
		case opFractional:
			if key, _ := m.attribute(who, TargetingKey); n.fractional.seed == nil && n.fractional.buckets != nil && key.typ != StringType {
				return path.Key("fractional"), unbucketed
			}
			if i, simple := m.bucket(n, who, root()); simple && i >= 0 {
				n, path = n.fractional.buckets[i].variant, path.Key("fractional").Index(i+len(n.args)-len(n.fractional.buckets)).Index(0)
				continue
			}
		}
		v := m.eval(n, who, root())
		if m.spent() {
			return path, ""
		}
		return path, string(v.appendBrief(nil))
	}
}

// childPath returns the path of an operand.
func childPath(path document.Path, n, child *node) document.Path {
	for i := range n.args {
		if &n.args[i] == child {
			return path.Index(i)
		}
	}
	return path
}
