package flags

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// Structural checks the shape of definitions: what can be told from one
// definition alone, without compiling its rules. The zero value is ready, and
// any number of goroutines may use it.
type Structural struct{}

// Validate returns everything that is wrong with a definition, in the order of
// its parts, up to MaxViolations; nothing when it may be stored. A definition
// that is no JSON document (see document.Canonical) has one violation.
func (Structural) Validate(key document.Key, spec []byte) []Violation {
	var r report
	canonical, err := document.Canonical(spec)
	var syntax *document.SyntaxError
	switch {
	case errors.As(err, &syntax):
		r.add(document.Path(syntax.Path), "%s (byte %d)", syntax.Msg, syntax.Offset)
		return r.list()
	case err != nil:
		r.add("", "%v", err)
		return r.list()
	}
	var value any
	decoder := json.NewDecoder(bytes.NewReader(canonical))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		r.add("", "%v", err)
		return r.list()
	}
	definition, ok := r.object("", value)
	if !ok {
		return r.list()
	}
	switch key.Kind {
	case document.Flag:
		checkFlag(definition)
	case document.Mode:
		checkMode(definition)
	case document.Policy:
		checkPolicy(definition)
	case document.Override:
		checkOverride(definition)
	default:
		r.add("", "there are no definitions of %s", key.Kind)
	}
	return r.list()
}
