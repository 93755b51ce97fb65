package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/registry"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/watch"
)

// Outcome says whether a request that failed may have had an effect.
type Outcome string

const (
	// Definite means that the request had no effect.
	Definite Outcome = "definite"
	// Unknown means that the request may have had its effect. A retry with the
	// same request id finds out.
	Unknown Outcome = "unknown"
)

// Keys of the metadata of an ErrorInfo.
const (
	// MetaOutcome is an Outcome; every failure has it.
	MetaOutcome = "outcome"
	// MetaLeader is the id of the leader, where one is known.
	MetaLeader = "leader"
	// MetaActualRevision is the mod_revision that a resource has; 0 when it does
	// not exist.
	MetaActualRevision = "actual_revision"
	// MetaEpoch is the epoch of the server that refuses a cursor of another cluster,
	// as "lineage/counter".
	MetaEpoch = "epoch"
	// MetaRevision is the revision that this server has applied.
	MetaRevision = "revision"
)

// ReasonInfo is a row of the table of failures.
type ReasonInfo struct {
	Reason  string
	Code    codes.Code
	Outcome Outcome
	// RetryAfter is the delay in the RetryInfo; 0 means that none is sent.
	RetryAfter time.Duration
	// Meaning is what happened and what to do, for people.
	Meaning string
}

// Error is a failure with its row of the table and what the row cannot know.
type Error struct {
	// Reason is one of the table; any other counts as INTERNAL.
	Reason string
	// Message says what was wrong, for people.
	Message string
	// Metadata is added to the ErrorInfo.
	Metadata map[string]string
	// Violations name fields of the request.
	Violations []*errdetails.BadRequest_FieldViolation
	// Preconditions name resources that are not as the request wanted them.
	Preconditions []*errdetails.PreconditionFailure_Violation

	cause error
}

// Errorf returns a failure for a reason of the table. The replica uses it for
// what only it knows.
func Errorf(reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// newError is Errorf with a cause for errors.Is.
func newError(reason string, cause error, format string, args ...any) *Error {
	e := Errorf(reason, format, args...)
	e.cause = cause
	return e
}

// with adds metadata and returns e.
func (e *Error) with(key, value string) *Error {
	if e.Metadata == nil {
		e.Metadata = make(map[string]string, 1)
	}
	e.Metadata[key] = value
	return e
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus returns the failure as clients see it.
func (e *Error) GRPCStatus() *status.Status {
	row, ok := rowOf(e.Reason)
	if !ok {
		row, _ = rowOf(ReasonInternal)
	}
	metadata := map[string]string{MetaOutcome: string(row.Outcome)}
	maps.Copy(metadata, e.Metadata)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Domain: Domain, Reason: row.Reason, Metadata: metadata}}
	if row.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(row.RetryAfter)})
	}
	if len(e.Violations) > 0 {
		details = append(details, &errdetails.BadRequest{FieldViolations: bounded(e.Violations)})
	}
	if len(e.Preconditions) > 0 {
		details = append(details, &errdetails.PreconditionFailure{Violations: e.Preconditions})
	}
	st, err := status.New(row.Code, strings.ToValidUTF8(e.Message, "\uFFFD")).WithDetails(details...)
	if err != nil {
		// Only a detail that does not encode gets here, and the ones above do.
		return status.New(row.Code, e.Message)
	}
	return st
}

// bounded keeps the violations within what trailers may carry. The last one
// tells how many were left out.
func bounded(all []*errdetails.BadRequest_FieldViolation) []*errdetails.BadRequest_FieldViolation {
	size := 0
	for i, v := range all {
		size += len(v.GetField()) + len(v.GetDescription())
		if i > 0 && (i >= MaxViolations-1 || size > MaxViolationBytes) && len(all)-i > 1 {
			return append(slices.Clone(all[:i]), &errdetails.BadRequest_FieldViolation{
				Description: fmt.Sprintf("%d more problems are not listed", len(all)-i),
			})
		}
	}
	return all
}

// asStatus turns any error of a handler into one that clients can decide by.
// What is a status already, such as that of a broken stream or of another
// server, stays what it is.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	var failure *Error
	if errors.As(err, &failure) {
		return failure.GRPCStatus().Err()
	}
	if failure = failureOf(err); failure != nil {
		return failure.GRPCStatus().Err()
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	return newError(ReasonInternal, err, "internal error: %v", err).GRPCStatus().Err()
}

// failureOf maps the errors of the packages below; nil for any other.
func failureOf(err error) *Error {
	var rejection *state.Rejection
	var notLeader *consensus.NotLeaderError
	var foreign *watch.ForeignLineageError
	switch {
	case errors.As(err, &rejection):
		return rejected(rejection, nil)
	case errors.As(err, &notLeader):
		return newError(ReasonNotLeader, err, "this server is not the leader").with(MetaLeader, notLeader.ID)
	case errors.Is(err, consensus.ErrUnknownOutcome):
		return newError(ReasonUnknownOutcome, err, "%v", err)
	case errors.Is(err, consensus.ErrUnavailable):
		return newError(ReasonUnavailable, err, "%v", err)
	case errors.Is(err, consensus.ErrTooLarge):
		return newError(state.ReasonCommandTooLarge, err, "%v", err)
	case errors.Is(err, consensus.ErrNotMember):
		return newError(ReasonMemberNotFound, err, "%v", err)
	case errors.Is(err, consensus.ErrNotCaughtUp):
		return newError(ReasonMemberBehind, err, "%v", err)
	case errors.As(err, &foreign):
		return newError(ReasonForeignLineage, err, "the cursor belongs to another cluster: %v", err).with(MetaEpoch, foreign.Here.String())
	case errors.Is(err, watch.ErrForkedEpoch):
		return newError(ReasonForkedEpoch, err, "the cursor's epoch has this one's number and is another: %v", err)
	case errors.Is(err, registry.ErrReplaced):
		return newError(ReasonInstanceReplaced, err, "%v", err)
	case errors.Is(err, registry.ErrTooManyTallies):
		return newError(ReasonTooManyWaits, err, "this server counts instances for as many callers as it can; retry, or ask another server")
	case errors.Is(err, context.Canceled):
		return newError(ReasonCancelled, err, "the caller gave up")
	case errors.Is(err, context.DeadlineExceeded):
		return newError(ReasonDeadlineExceeded, err, "the caller's time is over")
	default:
		return nil
	}
}

// rejected turns a refusal by the state into a failure. The keys, where the
// caller knows them, name the resource at fault.
func rejected(r *state.Rejection, keys []placedKey) *Error {
	e := newError(r.Reason, r, "%s", r.Message)
	if r.Reason != state.ReasonRevisionMismatch {
		return e
	}
	e = e.with(MetaActualRevision, formatRevision(r.Actual))
	if r.Step < 0 || r.Step >= len(keys) {
		return e
	}
	e.Message = fmt.Sprintf("operations[%d]: %s", r.Step, r.Message)
	e.Preconditions = []*errdetails.PreconditionFailure_Violation{{
		Type: r.Reason, Subject: keys[r.Step].String(), Description: r.Message,
	}}
	return e
}

// infoOf returns Holdfast's ErrorInfo of an error; nil when it has none.
func infoOf(err error) *errdetails.ErrorInfo {
	if err == nil {
		return nil
	}
	for _, d := range status.Convert(asStatus(err)).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return info
		}
	}
	return nil
}

// reasonOf returns the reason of a failure; empty for an error that is none.
func reasonOf(err error) string { return infoOf(err).GetReason() }

// outcomeOf tells whether what failed may have had an effect. What nobody
// explained may have.
func outcomeOf(err error) Outcome {
	if infoOf(err).GetMetadata()[MetaOutcome] == string(Definite) {
		return Definite
	}
	return Unknown
}
