package client

import "github.com/holdfast-dev/holdfast/internal/guard"

// Rejection is the error of a call that was not made, or not handled; errors.As
// finds it. It carries the reason, what decided, and when to come back, and is a
// gRPC status.
type Rejection = guard.Rejection

// Reason is why a call was not made: errors.Is(err, client.BreakerOpen).
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
