package facade

import (
	"context"
	"fmt"
	"iter"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/flags"
)

// question asks for flags on behalf of one call.
type question struct {
	view       *flags.View
	selector   selector
	now        int64 // seconds since 1970
	attributes []flags.Attribute
}

// answer is what a flag is for one call.
type answer struct {
	key string
	// variant is nil where the caller's default applies.
	variant  *flags.Variant
	reason   flags.Reason
	code     flags.ErrorCode
	metadata []flags.Attribute
}

// ask answers for one flag.
func (q *question) ask(key string) answer {
	f := q.view.Flag(key)
	if !q.selector.has(f) {
		return answer{key: key, reason: flags.Error, code: flags.FlagNotFound, metadata: q.selector.metadata()}
	}
	return q.of(f)
}

func (q *question) of(f *flags.Resolved) answer {
	d := f.Evaluate(q.now, q.attributes...)
	return answer{key: f.Key(), variant: d.Variant, reason: d.Reason, code: d.Code, metadata: f.Metadata()}
}

// all answers for every flag that is selected, in the order of their keys. It
// stops when the one who asked is gone.
func (q *question) all(ctx context.Context) iter.Seq[answer] {
	return func(yield func(answer) bool) {
		for f := range q.view.Flags() {
			if ctx.Err() != nil || q.selector.has(f) && !yield(q.of(f)) {
				return
			}
		}
	}
}

// details says in words what went wrong.
func (a answer) details() string {
	switch a.code {
	case flags.NoError:
		return ""
	case flags.FlagNotFound:
		return fmt.Sprintf("there is no flag %q", a.key)
	case flags.ParseError:
		return fmt.Sprintf("the rules of flag %q cannot be evaluated", a.key)
	case flags.TypeMismatch:
		return fmt.Sprintf("flag %q has another type", a.key)
	default:
		return fmt.Sprintf("the rules of flag %q name a variant that does not exist", a.key)
	}
}

// err returns the failure of a call that asked for this flag only; nil if it did
// not fail.
func (a answer) err() error {
	if a.reason != flags.Error {
		return nil
	}
	code := codes.Unknown
	switch a.code {
	case flags.FlagNotFound:
		code = codes.NotFound
	case flags.TypeMismatch:
		code = codes.InvalidArgument
	case flags.ParseError:
		code = codes.DataLoss
	case flags.General, flags.NoError:
	}
	return failf(code, "%s: %s", a.code, a.details())
}

// typed returns the value as a type, ok if there is one. A value of another type
// is a mismatch.
func typed[T any](a *answer, as func(flags.Value) (T, bool)) (value T, ok bool) {
	if a.variant == nil {
		return value, false
	}
	if value, ok = as(a.variant.Value); !ok {
		a.variant, a.reason, a.code = nil, flags.Error, flags.TypeMismatch
	}
	return value, ok
}
