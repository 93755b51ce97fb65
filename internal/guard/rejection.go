package guard

import (
	"context"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Reason is why a call was not made. It is an error, so that errors.Is finds it
// in a Rejection.
type Reason string

// Why a call was not made.
const (
	BreakerOpen     Reason = "BREAKER_OPEN"
	BulkheadFull    Reason = "BULKHEAD_FULL"
	BulkheadTimeout Reason = "BULKHEAD_TIMEOUT" // waited in the queue for too long
	DeadlineTooNear Reason = "DEADLINE_TOO_NEAR"
	Shed            Reason = "SHED"     // by a level of a mode
	Degraded        Reason = "DEGRADED" // refused by a level of a mode
	// Rejected is in every Rejection: errors.Is(err, Rejected) tells that a call was
	// not made.
	Rejected Reason = "REJECTED"
)

// Error returns the word in lower case.
func (r Reason) Error() string { return strings.ToLower(strings.ReplaceAll(string(r), "_", " ")) }

// Domain is the one of the ErrorInfo that a Rejection carries over gRPC.
const Domain = "holdfast"

// Rejection is the error of a call that was not made: by the instance itself, so
// that a retry by another layer is of no use. It is a gRPC status as well.
type Rejection struct {
	Reason Reason
	// Dependency and Target say what was to be called; of a call that a server
	// refuses to handle, its own name and the method.
	Dependency, Target string
	// By is what decided: empty for the policy, else such as "override/x",
	// "mode/storefront=read-only", or "fleet" for a breaker that is open because other
	// instances find the dependency broken.
	By string
	// RetryAfter is how soon another try may be worth it; 0 if nobody knows.
	RetryAfter time.Duration
	// Code is the gRPC code, and Message what is said beside the rest.
	Code    codes.Code
	Message string
}

// Error says what was refused, why, and when to come back.
func (r *Rejection) Error() string {
	var b strings.Builder
	b.WriteString(r.Dependency)
	if r.Target != "" && r.Target != r.Dependency {
		b.WriteString(" " + r.Target)
	}
	b.WriteString(": not called: " + r.Reason.Error())
	if r.By != "" {
		b.WriteString(" by " + r.By)
	}
	if r.Message != "" {
		b.WriteString(": " + r.Message)
	}
	if r.RetryAfter > 0 {
		b.WriteString("; retry after " + r.RetryAfter.Round(time.Millisecond).String())
	}
	return b.String()
}

// Is tells whether the target is the reason, or Rejected. For want of time it is
// context.DeadlineExceeded as well.
func (r *Rejection) Is(target error) bool {
	return target == r.Reason || target == Rejected || r.Reason == DeadlineTooNear && target == context.DeadlineExceeded
}

// GRPCStatus returns the status with ErrorInfo and, where it is known, RetryInfo.
func (r *Rejection) GRPCStatus() *status.Status {
	info := &errdetails.ErrorInfo{Reason: string(r.Reason), Domain: Domain, Metadata: map[string]string{"dependency": r.Dependency}}
	if r.Target != "" {
		info.Metadata["target"] = r.Target
	}
	if r.By != "" {
		info.Metadata["by"] = r.By
	}
	details := []protoadapt.MessageV1{info}
	if r.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.RetryAfter)})
	}
	s := status.New(r.Code, r.Error())
	if detailed, err := s.WithDetails(details...); err == nil {
		return detailed
	}
	return s
}
