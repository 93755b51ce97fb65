package client

import "github.com/holdfast-dev/holdfast/internal/guard"

// Rejection is the error of a call that was not made, or that a server did not
// handle. *Rejection is found by errors.As, and is a gRPC status with ErrorInfo and,
// where RetryAfter is known, RetryInfo. It is shared between calls and must not be
// changed.
//
//	type Rejection struct {
//		Reason             Reason        // why; errors.Is(err, client.BreakerOpen) asks for it
//		Dependency, Target string        // what was to be called
//		By                 string        // what decided: "", "override/x", "mode/storefront=read-only"
//		RetryAfter         time.Duration // how soon another try may be worth it; 0 if nobody knows
//		Code               codes.Code    // the gRPC code
//		Message            string        // what is said beside the rest
//	}
type Rejection = guard.Rejection

// Reason is why a call was not made, and an error: errors.Is(err, client.BreakerOpen).
// As text it is a word such as "BREAKER_OPEN".
type Reason = guard.Reason

// The reasons. Rejected is in all of them.
const (
	Rejected        = guard.Rejected
	BreakerOpen     = guard.BreakerOpen
	BulkheadFull    = guard.BulkheadFull
	BulkheadTimeout = guard.BulkheadTimeout
	DeadlineTooNear = guard.DeadlineTooNear
	Shed            = guard.Shed
	Degraded        = guard.Degraded
)
