package flags

import (
	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/schema"
)

// Validator checks definitions: everything that can be told from one of them
// alone. What it accepts compiles. The zero value is ready, and any number of
// goroutines may use it.
type Validator struct{}

// Validate returns everything that is wrong with a definition, in the order of
// its parts, up to MaxViolations; nothing when it may be stored. A definition
// that is no JSON document (see document.Canonical) has one violation.
func (Validator) Validate(key document.Key, spec []byte) []schema.Violation {
	if key.Kind == document.Flag {
		_, violations := Compile(key.Name, spec)
		return violations
	}
	var r schema.Report
	definition, ok := r.Read(spec)
	if !ok {
		return r.List()
	}
	switch key.Kind {
	case document.Flag: // above
	case document.Mode:
		checkMode(definition)
	case document.Policy:
		checkPolicy(definition)
	case document.Override:
		checkOverride(definition)
	default:
		r.Add("", "there are no definitions of %s", key.Kind)
	}
	return r.List()
}
