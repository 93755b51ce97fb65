package guard

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/bulkhead"
	"github.com/holdfast-dev/holdfast/internal/policy"
	"github.com/holdfast-dev/holdfast/internal/stripe"
)

// Place is what an attempt takes of the bulkheads; the zero Place is nothing.
type Place struct {
	part, whole *bulkhead.Bulkhead
	weight      int
}

// Release gives it back. It must be called once.
func (p Place) Release() {
	if p.part != nil {
		p.part.Release(1)
	}
	if p.whole != nil {
		p.whole.Release(p.weight)
	}
}

// Permit is the right to make one attempt. It must be ended once with Done, or it
// keeps its places for ever. It must not be copied once it is used; its methods may
// be called at the same time.
type Permit struct {
	target  *Target
	setting *Setting
	ctx     context.Context //nolint:containedctx // the attempt's own: its end tells who ended the attempt
	place   Place
	ticket  breaker.Ticket // the zero one if the breaker is not to be told
	start   int64
	budget  time.Duration // how long the attempt may take
	class   breaker.Class // once it has ended
	first   bool          // attempt of its call
	said    uint32        // of answered and ended, by several goroutines
}

const (
	answered = 1 << iota
	ended
)

// admit asks breaker and bulkheads for an attempt. A patient one may wait for a
// place. The error is a *Rejection or the one of ctx; it is not counted.
func (t *Target) admit(ctx context.Context, s *Setting, p *Permit, now int64, budget time.Duration, patient bool) error {
	p.target, p.setting, p.ctx, p.start, p.budget = t, s, ctx, now, budget
	if t.breaker != nil {
		a := t.breaker.Admit(now)
		if a.Event != nil {
			t.told(a.Event, s.by)
		}
		if !a.Admitted {
			if s.Enforce || s.Hold.Open {
				return t.open(s, a.RetryAfter, a.Hearsay())
			}
			t.counters.add(observed+breakerOpen, 1)
			if a.Hearsay() {
				t.counters.add(hearsay, 1)
			}
			return nil
		}
		p.ticket = a.Ticket
	}
	if s.part == nil || s.part.TryAcquire(1) {
		if s.whole.TryAcquire(s.weight) {
			p.place = Place{s.part, s.whole, s.weight}
			return nil
		}
		s.part.Release(1)
	}
	return t.crowded(ctx, s, p, patient)
}

// crowded goes on where no place is free. Nobody knows how long that takes, so the
// breaker gets its ticket back, which may be the lease of a probe, and is asked
// again: it may have opened meanwhile.
func (t *Target) crowded(ctx context.Context, s *Setting, p *Permit, patient bool) error {
	t.giveBack(p)
	if !s.Enforce {
		t.counters.add(observed+bulkheadFull, 1)
		return nil
	}
	if !patient {
		return t.reject(BulkheadFull, codes.ResourceExhausted)
	}
	waiting := t.exact()
	err := t.queue(ctx, s, p)
	now := t.exact()
	if !errors.Is(err, bulkhead.ErrFull) {
		t.counters.add(waits, 1)
		t.counters.add(waitTime, uint64(max(now-waiting, 0)))
	}
	switch {
	case errors.Is(err, bulkhead.ErrFull):
		return t.reject(BulkheadFull, codes.ResourceExhausted)
	case errors.Is(err, bulkhead.ErrTimeout):
		return t.reject(BulkheadTimeout, codes.ResourceExhausted)
	case err != nil && ctx.Err() == nil: // the policy's deadline, not the caller's
		return t.reject(DeadlineTooNear, codes.DeadlineExceeded)
	case err != nil:
		return err
	}
	if err := t.readmit(s, p, now); err != nil {
		p.place.Release()
		return err
	}
	return nil
}

// queue waits for places, no longer than the call may take.
func (t *Target) queue(ctx context.Context, s *Setting, p *Permit) error {
	if p.budget < t.left(ctx, p.start) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, t.clock.Deadline(p.start, p.budget))
		defer cancel()
	}
	if err := s.part.Acquire(ctx, 1, PriorityOf(ctx)); err != nil {
		return err
	}
	if err := s.whole.Acquire(ctx, s.weight, PriorityOf(ctx)); err != nil {
		s.part.Release(1)
		return err
	}
	p.place = Place{s.part, s.whole, s.weight}
	return nil
}

// readmit asks the breaker again after a wait.
func (t *Target) readmit(s *Setting, p *Permit, now int64) error {
	p.budget = policy.Left(p.budget, time.Duration(now-p.start))
	p.start = now
	if _, ok := s.Policy.Timeouts.Attempt(p.budget); !ok {
		return t.reject(DeadlineTooNear, codes.DeadlineExceeded)
	}
	if t.breaker == nil {
		return nil
	}
	a := t.breaker.Admit(now)
	if a.Event != nil {
		t.told(a.Event, s.by)
	}
	if !a.Admitted {
		return t.open(s, a.RetryAfter, a.Hearsay())
	}
	p.ticket = a.Ticket
	return nil
}

// giveBack returns a ticket unused.
func (t *Target) giveBack(p *Permit) {
	if p.admitted() {
		t.record(p, p.start, breaker.Neutral, 0)
		p.ticket = breaker.Ticket{}
	}
}

// record tells the breaker the result of what it admitted.
func (t *Target) record(p *Permit, now int64, class breaker.Class, took time.Duration) {
	event := t.breaker.Record(now, p.ticket, class, took)
	switch {
	case event != nil:
		t.told(event, p.setting.by)
	case p.ticket.Probe():
		t.dependency.changed()
	case class == breaker.Failure:
		t.failed(now)
	}
}

// Admit asks breaker and bulkhead for one attempt, for what Call does not fit,
// such as a stream. It may wait in the queue of the bulkhead. The error is a
// *Rejection or the one of ctx.
func (t *Target) Admit(ctx context.Context, s *Setting) (Permit, error) {
	var p Permit
	if s.Disabled {
		return p, nil
	}
	now := t.now()
	if err := t.admit(ctx, s, &p, now, t.left(ctx, now), true); err != nil {
		return Permit{}, t.refused(err)
	}
	if t.breaker != nil {
		t.dependency.budget.Call(now, stripe.Index())
	}
	return p, nil
}

// Due refuses a call that has less time left than it needs at least: the error is
// a *Rejection.
func (t *Target) Due(ctx context.Context, s *Setting) error {
	deadline, ok := ctx.Deadline()
	if !ok || s.Disabled {
		return nil
	}
	if _, ok := s.Policy.Timeouts.Limit(0, t.clock.Left(deadline, t.exact()), false); ok {
		return nil
	}
	return t.tooNear(s)
}

// Limit returns how long an operation may take that would take its own timeout;
// false where the caller's deadline, if it has one, is the earlier one. The error is
// a *Rejection: too little time is left.
func (t *Target) Limit(ctx context.Context, s *Setting, own time.Duration) (time.Duration, bool, error) {
	left := t.left(ctx, t.exact())
	limit, ok := s.Policy.Timeouts.Limit(own, left, IsHop(ctx))
	if !ok {
		if err := t.tooNear(s); err != nil {
			return 0, false, err
		}
	}
	return limit, s.Enforce && limit < left, nil
}

// left returns how long a context may go on.
func (t *Target) left(ctx context.Context, now int64) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return t.clock.Left(deadline, now)
	}
	return policy.Unbounded
}

// Answered tells that the first message of a stream is there. A stream that is a
// probe has succeeded then, though it may last for long.
func (p *Permit) Answered() {
	if p.ticket.Probe() && atomic.CompareAndSwapUint32(&p.said, 0, answered) {
		now := p.target.exact()
		p.target.record(p, now, breaker.Success, time.Duration(now-p.start))
	}
}

// Done ends the attempt with its result and how long it took to judge it by,
// which of a stream is the time to the first message; 0 means since Admit. Only the
// first of several counts.
func (p *Permit) Done(r Result, took time.Duration) {
	if p.target == nil {
		return
	}
	said := atomic.OrUint32(&p.said, ended)
	if said&ended != 0 {
		return
	}
	q := p
	if said&answered != 0 { // the breaker has its answer, and Answered may still read
		q = &Permit{target: p.target, setting: p.setting, ctx: p.ctx, place: p.place, start: p.start, budget: p.budget}
	}
	q.judge(&r, nil, took)
	q.target.count(q.class, true)
	q.place.Release()
}

// judge ends the attempt with what it was like; took is 0 if that is not known. The
// places stay taken.
func (p *Permit) judge(r *Result, err error, took time.Duration) {
	t := p.target
	now := t.exact()
	if took == 0 {
		took = time.Duration(max(now-p.start, 0))
	}
	p.class = p.setting.class(p.ctx, r, err, p.budget)
	if r.Code == codes.DeadlineExceeded && p.class != breaker.Success {
		t.counters.add(timeouts, 1)
		t.counters.add(timeoutTime, uint64(took))
	}
	if p.admitted() && r.PushedBack && p.class == breaker.Failure && r.PushBack >= p.setting.Policy.CircuitBreaker.Timeout {
		if event := t.breaker.OpenFor(now, p.ticket, r.PushBack); event != nil {
			t.told(event, p.setting.by)
		}
	} else {
		p.record(now, took)
	}
	p.observe(now, took, r.Code == codes.DeadlineExceeded)
}

// succeeded is judge for a plain success.
func (p *Permit) succeeded() {
	now := p.target.now()
	took := time.Duration(max(now-p.start, 0))
	p.record(now, took)
	p.observe(now, took, false)
}

// admitted tells whether the breaker admitted the attempt, and wants to hear of it.
func (p *Permit) admitted() bool { return p.ticket != breaker.Ticket{} }

// record tells the breaker what the attempt was like.
func (p *Permit) record(now int64, took time.Duration) {
	if p.admitted() {
		p.target.record(p, now, p.class, took)
	}
}
