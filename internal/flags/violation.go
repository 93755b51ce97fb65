package flags

import (
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

// report collects violations.
type report struct {
	violations []Violation
	more       int
}

func (r *report) add(path document.Path, format string, args ...any) {
	if len(r.violations) == MaxViolations-1 {
		r.more++
		return
	}
	r.violations = append(r.violations, Violation{Path: string(path), Message: fmt.Sprintf(format, args...)})
}

func (r *report) list() []Violation {
	if r.more > 0 {
		return append(r.violations, Violation{Message: fmt.Sprintf("and %d more", r.more)})
	}
	return r.violations
}
