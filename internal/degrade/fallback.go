package degrade

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/guard"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// Outcome returns the word of policy.Fallback.On for a call that ended with an
// error; empty for one that no fallback is for. Rejected tells that the call was not
// made, or was refused by the rules of the other side.
func Outcome(p *policy.Policy, r guard.Result, rejected bool) string {
	switch {
	case rejected:
		return policy.OnRejected
	case r.Classified && r.Class == breaker.Overload, !r.Classified && r.Code == codes.ResourceExhausted:
		return policy.OnOverload
	case r.Classified && r.Class != breaker.Failure, r.Code == codes.Canceled:
		return ""
	case r.Code == codes.DeadlineExceeded:
		return policy.OnTimeout
	case r.Classified, p.CircuitBreaker.FailureCodes.Has(uint32(r.Code)):
		return policy.OnFailure
	default:
		return ""
	}
}

// Prepared tells whether After may have something to answer with, at the price of
// two lookups.
func (p *Point) Prepared(s *guard.Setting) bool {
	return s.Enforce && (s.Policy.Fallback.ChainOf(p.target) != "" || p.degrader.chain(p.target) != nil)
}

// After lets the fallback of the policy answer for a call that ended with cause, if
// it is meant for such an outcome. It returns the mark of who answered, empty where
// nobody did.
func (p *Point) After(ctx context.Context, s *guard.Setting, outcome string, cause error, q Question) (by string) {
	f := &s.Policy.Fallback
	if !slices.Contains(f.On, outcome) || errors.Is(ctx.Err(), context.Canceled) || !p.Prepared(s) {
		return ""
	}
	by = "policy/" + p.name
	if !p.ask(ctx, f, f.ChainOf(p.target), Call{Cause: cause, By: by}, q) {
		return ""
	}
	return mark(by, flags.Fallback)
}

// ask lets a chain answer, the one of the target where it has no name. It tells
// whether q has the answer.
func (p *Point) ask(ctx context.Context, f *policy.Fallback, name string, call Call, q Question) bool {
	if name == "" {
		name = p.target
	}
	answer, err := p.run(ctx, f, name, call, q)
	if err != nil {
		p.counts.failures.Add(1)
		p.degrader.failed(p, name, err)
		return false
	}
	q.Accept(answer)
	p.counts.fallbacks.Add(1)
	return true
}

// run runs a chain within the bounds of the policy, until the caller cancels. The
// deadline of a call that failed may be what it failed by, and is none of the chain's;
// before a call is made, it is.
func (p *Point) run(ctx context.Context, f *policy.Fallback, name string, call Call, q Question) (any, error) {
	chain := p.degrader.chain(name)
	if chain == nil {
		return nil, fmt.Errorf("no chain is registered as %q; register one with RegisterFallback", name)
	}
	if n := p.running.Add(1); n > int64(f.MaxConcurrent) {
		p.running.Add(-1)
		return nil, fmt.Errorf("%d chains of the dependency run already, which is all that fallback.max_concurrent allows", f.MaxConcurrent)
	}
	call.Dependency, call.Target, call.Request = p.name, p.target, q.Request()
	life := ctx
	if call.Cause != nil {
		life = context.WithoutCancel(ctx)
	}
	bounded, cancel := context.WithTimeout(life, f.Timeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})()
	if !p.degrader.running.begin() {
		defer p.running.Add(-1)
		return try(bounded, chain, call, q)
	}
	type result struct {
		answer any
		err    error
	}
	done := make(chan result, 1)
	go func() {
		defer p.degrader.running.end()
		defer p.running.Add(-1)
		r := result{err: errors.New("a function ended its goroutine")}
		defer func() { done <- r }()
		r.answer, r.err = try(bounded, chain, call, q)
	}()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-bounded.Done():
		return nil, fmt.Errorf("no answer in time: %w", bounded.Err())
	}
}

// try asks the functions of a chain in order for an answer of the right type.
func try(ctx context.Context, chain []Func, call Call, q Question) (any, error) {
	var failures []error
	for i, f := range chain {
		if ctx.Err() != nil {
			failures = append(failures, ctx.Err())
			break
		}
		answer, err := contained(ctx, f, call)
		if err == nil {
			err = q.Check(answer)
		}
		if err == nil {
			return answer, nil
		}
		failures = append(failures, fmt.Errorf("function %d: %w", i+1, err))
	}
	return nil, errors.Join(failures...)
}

// contained calls a function; its panic is an error.
func contained(ctx context.Context, f Func, call Call) (answer any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	if f == nil {
		return nil, errors.New("is nil")
	}
	return f(ctx, call)
}
