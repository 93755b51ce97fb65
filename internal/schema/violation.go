package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
)

// Violation is one thing that is wrong with a definition.
type Violation struct {
	// Path leads to the value, such as "levels[1].name"; empty for the definition
	// itself.
	Path string
	// Message says what is wrong and, where it can, what to do.
	Message string
}

// String returns the violation as "path: message".
func (v Violation) String() string {
	if v.Path == "" {
		return v.Message
	}
	return v.Path + ": " + v.Message
}

// MaxViolations is how many violations are listed; the last entry then counts
// the rest.
const MaxViolations = 100

// Report collects violations.
type Report struct {
	violations []Violation
	more       int
}

// Add reports what is wrong with the value at path; beyond MaxViolations it only
// counts.
func (r *Report) Add(path document.Path, format string, args ...any) {
	if r.Full() {
		r.more++
		return
	}
	r.violations = append(r.violations, Violation{Path: string(path), Message: fmt.Sprintf(format, args...)})
}

// Full tells that more violations are only counted, so that their messages are not
// worth much work.
func (r *Report) Full() bool { return len(r.violations) == MaxViolations-1 }

// List returns the violations in the order in which they were added.
func (r *Report) List() []Violation {
	if r.more > 0 {
		return append(r.violations, Violation{Message: fmt.Sprintf("and %d more", r.more)})
	}
	return r.violations
}

// Read returns the fields of a definition: one JSON document (see
// document.Canonical) that is an object.
func (r *Report) Read(spec []byte) (Fields, bool) {
	canonical, err := document.Canonical(spec)
	var syntax *document.SyntaxError
	switch {
	case errors.As(err, &syntax):
		r.Add(document.Path(syntax.Path), "%s (byte %d)", syntax.Msg, syntax.Offset)
		return Fields{}, false
	case err != nil:
		r.Add("", "%v", err)
		return Fields{}, false
	}
	var value any
	decoder := json.NewDecoder(bytes.NewReader(canonical))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		r.Add("", "%v", err)
		return Fields{}, false
	}
	return r.Object("", value)
}
