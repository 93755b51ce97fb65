package guard

import (
	"context"
	"math"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/stripe"
)

// Call makes a call under the settings: with a deadline where the context's is
// absent or later, retried within the budget, through breaker and bulkhead. The
// error is that of the last attempt, or a *Rejection where none was made. It
// allocates nothing but the deadline's context where the first attempt succeeds.
func (t *Target) Call(ctx context.Context, s *Setting, call Invocation) error {
	if s.Disabled {
		return call.Invoke(ctx, 1)
	}
	now := t.now()
	left := t.left(ctx, now)
	limit, ok := s.Policy.Timeouts.Limit(s.own, left, left != policy.Unbounded && IsHop(ctx))
	if !ok {
		if err := t.tooNear(s); err != nil {
			return err
		}
	}
	if !s.Enforce {
		limit = left
	}
	p := Permit{first: true}
	if err := t.admit(ctx, s, &p, now, limit, true); err != nil {
		return t.refused(err)
	}
	if limit < left { // only now: a context costs more than all the rest
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, t.clock.Deadline(now, limit))
		defer cancel()
		p.ctx = ctx
	}
	t.dependency.budget.Call(now, stripe.Index())
	var o outcome
	if s.hedged {
		t.hedge(ctx, s, call, &p, &o)
	} else {
		t.attempt(ctx, call, 1, &p, &o)
	}
	if !s.Enforce || o.Code == codes.OK && !o.RetryKnown {
		return o.end(call)
	}
	end := int64(math.MaxInt64)
	if limit != policy.Unbounded {
		end = now + int64(limit)
	}
	t.retry(ctx, s, call, end, &o)
	if o.PushedBack && o.PushBack < 0 {
		spend(ctx)
	}
	return o.end(call)
}

// outcome is how an attempt ended.
type outcome struct {
	Result
	err   error
	cut   bool  // it had less time than its call
	place Place // of an answer that goes on
}

// end hands the place of the answer that Call returns to the invocation, which has
// to be a Keeper.
func (o *outcome) end(call Invocation) error {
	if o.Keep {
		call.(Keeper).Keep(o.place) // as Result promises
	}
	return o.err
}

// attempt makes one attempt, which p permits. A probe has its own time, and each
// attempt its share of the call's.
func (t *Target) attempt(ctx context.Context, call Invocation, n int, p *Permit, o *outcome) {
	defer p.end()
	if s := p.setting; s.Enforce {
		limit, _ := s.Policy.Timeouts.Attempt(p.budget)
		if p.ticket.Probe() {
			limit = min(limit, t.breaker.ProbeTime())
		}
		if o.cut = limit < p.budget; o.cut {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, t.clock.Deadline(p.start, limit))
			defer cancel()
		}
	}
	err := call.Invoke(ctx, n)
	r := call.Result(ctx, err)
	p.said = ended
	if err == nil && r.plain() {
		p.succeeded()
		return
	}
	o.Result, o.err = r, err
	p.judge(&r, err, 0)
	if r.Keep {
		o.place, p.place = p.place, Place{}
	}
}

// end counts the attempt and gives its places back. One that has not come back, for
// a panic or runtime.Goexit, is a failure.
func (p *Permit) end() {
	if p.said != ended {
		p.said = ended
		p.judge(&Result{Code: codes.Internal, Class: breaker.Failure, Classified: true}, nil, 0)
	}
	p.target.count(p.class, p.first)
	p.place.Release()
}

// retry makes more attempts as long as that may help. The outcome is that of the
// last one.
func (t *Target) retry(ctx context.Context, s *Setting, call Invocation, end int64, o *outcome) {
	var backoff backoff
	for n := 2; ; n++ {
		if ctx.Err() != nil || !s.retryable(&o.Result, o.err, o.cut) {
			return
		}
		if n > s.Policy.Retry.MaxAttempts {
			if n > 2 { // else its policy leaves retries to others
				spend(ctx)
			}
			return
		}
		pause, ok := backoff.next(t, s, o)
		if !ok || !t.affords(ctx, s, end, pause) {
			return
		}
		o.place.Release()
		o.place = Place{}
		if !sleep(ctx, pause) {
			return
		}
		now := t.exact()
		left := policy.Unbounded
		if end != math.MaxInt64 {
			left = time.Duration(end - now)
		}
		var p Permit
		if err := t.admit(ctx, s, &p, now, left, true); err != nil {
			t.counters.add(retriesRejected, 1)
			return
		}
		t.counters.add(retries, 1)
		*o = outcome{}
		t.attempt(ctx, call, n, &p, o)
		if good(p.class) {
			t.counters.add(retrySuccesses, 1)
		}
	}
}

// backoff is how the pauses of a call grow.
type backoff struct {
	n      int
	before time.Duration
}

// next returns the pause before the next retry: what the server said, which also
// lets the pauses begin anew, else what the policy draws.
func (b *backoff) next(t *Target, s *Setting, o *outcome) (time.Duration, bool) {
	if o.PushedBack {
		*b = backoff{}
		return o.PushBack, o.PushBack >= 0
	}
	b.n++
	b.before = s.Policy.Retry.Pause(b.n, b.before, t.dependency.guard.draw())
	return b.before, true
}

// affords tells whether there is time and budget for a retry after a pause, and
// takes it from the budget. A call without end does not wait longer than the policy
// would let it.
func (t *Target) affords(ctx context.Context, s *Setting, end int64, pause time.Duration) bool {
	now, ok := t.exact(), pause <= s.Policy.Retry.MaxDelay
	if end != math.MaxInt64 {
		_, ok = s.Policy.Timeouts.Attempt(time.Duration(end-now) - pause)
	}
	if !ok {
		t.counters.add(retriesRefusedDeadline, 1)
		return false
	}
	if !t.dependency.budget.Take(now) {
		t.counters.add(retriesRefusedBudget, 1)
		spend(ctx)
		return false
	}
	return true
}

// sleep waits; false if the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
