package state

import (
	"fmt"

	"github.com/holdfast-dev/holdfast/internal/document"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

// Reasons of rejections. They are stable: clients decide by them.
const (
	// ReasonInvalidCommand refuses a command whose form is wrong. Proposers
	// check the form, so it points to a bug or a stranger in the log.
	ReasonInvalidCommand = "INVALID_COMMAND"
	// ReasonCommandTooLarge refuses a command over the limit of bytes or steps.
	ReasonCommandTooLarge = "COMMAND_TOO_LARGE"
	// ReasonRevisionMismatch refuses a step whose precondition does not hold.
	ReasonRevisionMismatch = "REVISION_MISMATCH"
	// ReasonRequestTooOld refuses a request that may have been applied so long
	// ago that its outcome is no longer known.
	ReasonRequestTooOld = "REQUEST_TOO_OLD"
	// ReasonRequestIDReused refuses a request id that named another write.
	ReasonRequestIDReused = "REQUEST_ID_REUSED"
	// ReasonStateFull refuses a write that would exceed the bytes of the state.
	ReasonStateFull = "STATE_FULL"
	// ReasonTooManyResources, ReasonTooManyOverrides and ReasonTooManyNamespaces
	// refuse a write that would exceed a number.
	ReasonTooManyResources  = "TOO_MANY_RESOURCES"
	ReasonTooManyOverrides  = "TOO_MANY_OVERRIDES"
	ReasonTooManyNamespaces = "TOO_MANY_NAMESPACES"
	// ReasonRestoreBusy refuses a restore while another one is moving.
	ReasonRestoreBusy = "RESTORE_BUSY"
	// ReasonRestoreUnknown refuses to go on with a restore that is not, or no
	// longer, under way.
	ReasonRestoreUnknown = "RESTORE_UNKNOWN"
	// ReasonRestoreTooLarge refuses a backup over the limit, or bytes beyond the
	// size it was announced with.
	ReasonRestoreTooLarge = "RESTORE_TOO_LARGE"
	// ReasonRestoreOutOfOrder refuses bytes that do not continue what is staged;
	// Rejection.Actual tells how many bytes are.
	ReasonRestoreOutOfOrder = "RESTORE_OUT_OF_ORDER"
	// ReasonRestoreIncomplete refuses to commit before all bytes are there.
	ReasonRestoreIncomplete = "RESTORE_INCOMPLETE"
	// ReasonRestoreCorrupt refuses a backup that is damaged or impossible.
	ReasonRestoreCorrupt = "RESTORE_CORRUPT"
	// ReasonRestoreUnknownFormat refuses a backup of a newer version.
	ReasonRestoreUnknownFormat = "RESTORE_UNKNOWN_FORMAT"
)

// Rejection is a deterministic refusal: every server refuses the command, and a
// retry is refused the same way.
type Rejection struct {
	// Reason is one of the constants.
	Reason string
	// Message says what was wrong. It may be worded differently by another
	// version, so nothing that servers compare depends on it.
	Message string
	// Step is the step at fault; -1 when it is not about one.
	Step int
	// Actual is the mod_revision that the resource at fault has, 0 when it does
	// not exist; with ReasonRestoreOutOfOrder the number of staged bytes.
	Actual uint64
}

// Error makes a rejection an error.
func (r *Rejection) Error() string {
	if r.Step < 0 {
		return r.Message
	}
	return fmt.Sprintf("step %d: %s", r.Step, r.Message)
}

// reject returns a rejection that is not about a step.
func reject(reason, format string, args ...any) *Rejection {
	return &Rejection{Reason: reason, Message: fmt.Sprintf(format, args...), Step: -1}
}

// at returns the rejection as one about a step.
func (r *Rejection) at(step int) *Rejection {
	r.Step = step
	return r
}

// Outcome is what a command came to. It is kept, so that a retry gets the same.
type Outcome struct {
	// Revision is that of the state after the command.
	Revision uint64
	// Changes tell what happened to each step, in order.
	Changes []document.ChangeType
	// Rejection is why the command was refused, or nil.
	Rejection *Rejection
}

// Proto returns the stored form.
func (o Outcome) Proto() *storagev1.Outcome {
	p := &storagev1.Outcome{Revision: o.Revision}
	for _, c := range o.Changes {
		p.Changes = append(p.Changes, c.Proto())
	}
	if r := o.Rejection; r != nil {
		p.Rejection = &storagev1.Rejection{
			Reason:         r.Reason,
			Message:        r.Message,
			Step:           int32(r.Step), //nolint:gosec // steps are limited
			ActualRevision: r.Actual,
		}
	}
	return p
}

// OutcomeFromProto reads an outcome from its stored form.
func OutcomeFromProto(p *storagev1.Outcome) (Outcome, error) {
	o := Outcome{Revision: p.GetRevision()}
	if n := len(p.GetChanges()); n > 0 {
		o.Changes = make([]document.ChangeType, n)
	}
	for i, c := range p.GetChanges() {
		if c <= holdfastv1.ChangeType_CHANGE_TYPE_UNSPECIFIED || c > holdfastv1.ChangeType_CHANGE_TYPE_ENDED {
			return Outcome{}, fmt.Errorf("read outcome: unknown change %d", c)
		}
		o.Changes[i] = document.ChangeType(c)
	}
	if r := p.GetRejection(); r != nil {
		o.Rejection = &Rejection{
			Reason:  r.GetReason(),
			Message: r.GetMessage(),
			Step:    int(r.GetStep()),
			Actual:  r.GetActualRevision(),
		}
	}
	return o, nil
}
