package policy

import (
	"math"
	"time"
)

// Unbounded is the time that a call without a deadline has left.
const Unbounded time.Duration = math.MaxInt64

// Left returns what is left of the time left after some of it is spent. Unbounded
// stays Unbounded.
func Left(left, spent time.Duration) time.Duration {
	if left == Unbounded {
		return Unbounded
	}
	return left - spent
}

// Limit returns how long a call may take. own is its timeout by For, 0 for none (as
// for a stream); left is what its caller has left, or Unbounded; hop tells that it
// is made while answering somebody else's call, to whom Margin is kept to answer
// in.
//
// The call needs a deadline of its own only if limit < left: one of the caller's
// that is earlier holds as it is. A call that is not ok is to be refused at once,
// as less than Minimum is left. A server asks the same about a call that comes in,
// with neither own nor hop.
func (t Timeouts) Limit(own, left time.Duration, hop bool) (limit time.Duration, ok bool) {
	limit = left
	if hop {
		limit = Left(left, t.Margin)
	}
	if own > 0 {
		limit = min(limit, own)
	}
	return limit, t.suffices(limit)
}

// Attempt returns how long one attempt of a call may take that has so much left: at
// most PerAttempt. One that is not ok is not worth making.
//
// It tells as well whether a retry is worth its pause: ask with Left(left, pause).
func (t Timeouts) Attempt(left time.Duration) (limit time.Duration, ok bool) {
	limit = left
	if t.PerAttempt > 0 {
		limit = min(limit, t.PerAttempt)
	}
	return limit, t.suffices(left)
}

func (t Timeouts) suffices(left time.Duration) bool { return left > 0 && left >= t.Minimum }
