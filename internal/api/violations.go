package api

import (
	"fmt"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/document"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// violations collects everything that is wrong with a request, so that the
// caller hears of all of it at once. The zero value has none.
type violations struct {
	list []*errdetails.BadRequest_FieldViolation
}

// addf adds what is wrong with a field; an empty field means the whole request.
func (v *violations) addf(field, format string, args ...any) {
	v.list = append(v.list, &errdetails.BadRequest_FieldViolation{Field: field, Description: fmt.Sprintf(format, args...)})
}

// duration checks that a duration is well formed and not negative. It tells
// whether it is.
func (v *violations) duration(field string, d *durationpb.Duration) bool {
	switch {
	case d == nil:
		return true
	case !d.IsValid():
		v.addf(field, "is not a valid duration")
	case d.AsDuration() < 0:
		v.addf(field, "is negative")
	default:
		return true
	}
	return false
}

// err returns the refusal of the request; nil when nothing is wrong.
func (v *violations) err() error {
	if len(v.list) == 0 {
		return nil
	}
	first := v.list[0].GetDescription()
	if f := v.list[0].GetField(); f != "" {
		first = f + ": " + first
	}
	e := Errorf(ReasonInvalidRequest, "%s", first)
	if n := len(v.list) - 1; n > 0 {
		e.Message = fmt.Sprintf("%s (and %d more)", first, n)
	}
	e.Violations = v.list
	return e
}

// kinds checks a kind to filter by and returns the kinds that it means.
func (v *violations) kinds(field string, k holdfastv1.Kind) []document.Kind {
	if k == holdfastv1.Kind_KIND_UNSPECIFIED {
		return document.Kinds()
	}
	kind, ok := kindOf(k)
	if !ok {
		v.addf(field, "is %v, which is unknown", k)
	}
	return []document.Kind{kind}
}

// kindOf returns a known kind.
func kindOf(k holdfastv1.Kind) (document.Kind, bool) {
	for _, kind := range document.Kinds() {
		if holdfastv1.Kind(kind) == k {
			return kind, true
		}
	}
	return 0, false
}

// prefix checks the beginning of a name.
func (v *violations) prefix(field, prefix string) {
	if prefix == "" {
		return
	}
	if err := document.CheckName(prefix); err != nil {
		v.addf(field, "%v", err)
	}
}

// formatRevision returns a revision as it stands in metadata.
func formatRevision(revision uint64) string { return strconv.FormatUint(revision, 10) }
