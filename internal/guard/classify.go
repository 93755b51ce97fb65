package guard

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// fairBudget is how long an attempt must have had for its timeout to say something
// about a dependency whose policy does not say what is slow.
const fairBudget = 100 * time.Millisecond

// fair returns the time that an attempt must have been given for its timeout to
// count: slow_after where the policy has it, but no more than half of what the
// policy gives an attempt at most, or there would never be enough.
func fair(p *policy.Policy, own time.Duration) time.Duration {
	fair := p.CircuitBreaker.SlowAfter
	if fair <= 0 {
		fair = fairBudget
	}
	for _, d := range []time.Duration{own, p.Timeouts.PerAttempt, p.CircuitBreaker.ProbeTimeout} {
		if d > 0 {
			fair = min(fair, d/2)
		}
	}
	return fair
}

// class tells what a result that is no plain success says about the dependency. ctx
// is that of the attempt, budget how long it might take.
func (s *Setting) class(ctx context.Context, r *Result, err error, budget time.Duration) breaker.Class {
	class := r.Class
	if !r.Classified {
		class = s.byCode(r.Code)
	}
	if class == breaker.Success || class == breaker.Slow {
		return class
	}
	ended := ctx.Err()
	switch {
	case err != nil && errors.Is(err, Rejected), errors.Is(ended, context.Canceled):
		return breaker.Neutral
	case r.Classified:
		return class
	case (ended != nil || r.Code == codes.DeadlineExceeded) && class == breaker.Failure && budget < s.fair:
		return breaker.Neutral
	}
	return class
}

// byCode is what the policy makes of a code.
func (s *Setting) byCode(code codes.Code) breaker.Class {
	switch {
	case code == codes.OK:
		return breaker.Success
	case s.Policy.CircuitBreaker.FailureCodes.Has(uint32(code)):
		return breaker.Failure
	case code == codes.ResourceExhausted:
		return breaker.Overload
	case code == codes.Canceled || code == codes.Unimplemented || code == codes.DeadlineExceeded:
		return breaker.Neutral
	default:
		return breaker.Success
	}
}

// retryable tells whether another attempt after this result may help and do no
// harm. cut tells that the attempt had less time than the call.
func (s *Setting) retryable(r *Result, err error, cut bool) bool {
	retry := &s.Policy.Retry
	switch {
	case retry.NonRetryable.Has(uint32(r.Code)), err != nil && errors.Is(err, Rejected):
		return false
	case r.RetryKnown:
		return r.Retry
	case !s.Idempotent || r.Code == codes.OK:
		return false
	case cut && r.Code == codes.DeadlineExceeded:
		return true
	default:
		return retry.Retryable.Has(uint32(r.Code))
	}
}
