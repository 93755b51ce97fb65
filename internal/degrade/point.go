package degrade

import (
	"context"
	"strconv"
	"sync/atomic"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/bulkhead"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/guard"
)

// Point degrades the calls of one method or operation on one side. Its methods may
// be called at the same time.
type Point struct {
	*Dependency
	target  string
	side    flags.Side
	shedder bulkhead.Shedder
	counts  counts
}

type counts struct {
	rejected, shed, cached, misses, fallbacks, failures, recorded atomic.Uint64
}

// Stats are totals of a point.
type Stats struct {
	Dependency, Target string
	Side               flags.Side
	// Rejected and Shed calls were refused. Cached ones were answered from the cache,
	// Misses could not be. Fallbacks were answered by a chain; of Failures a chain was
	// to answer and did not. Recorded replies were kept.
	Rejected, Shed, Cached, Misses, Fallbacks, Failures, Recorded uint64
}

// Stats returns what was counted.
func (p *Point) Stats() Stats {
	return Stats{
		Dependency: p.name, Target: p.target, Side: p.side,
		Rejected: p.counts.rejected.Load(), Shed: p.counts.shed.Load(),
		Cached: p.counts.cached.Load(), Misses: p.counts.misses.Load(),
		Fallbacks: p.counts.fallbacks.Load(), Failures: p.counts.failures.Load(), Recorded: p.counts.recorded.Load(),
	}
}

// Before does what levels of modes demand before a call is made, in the order of the
// plan: what sheds it, then what can answer it, then what refuses it. What cannot
// answer leaves it to the next. It returns the mark of who answered, empty where the
// call is to be made; the error is a *guard.Rejection. Without a question, such as of
// a stream, nothing can answer.
func (p *Point) Before(ctx context.Context, s *guard.Setting, q Question) (by string, err error) {
	plan := &s.Plan
	if e := plan.Shed; e != nil && p.shedder.Drop(guard.PriorityOf(ctx), e.Percent/percent, p.degrader.random()) {
		p.counts.shed.Add(1)
		return "", p.refuse(e, guard.Shed, codes.ResourceExhausted)
	}
	if e := plan.Cache; e != nil && q != nil && p.recall(e, q) {
		return mark(e.By, flags.Cache), nil
	}
	if e := plan.Fallback; e != nil && q != nil {
		chain := e.Chain
		if chain == "" {
			chain = s.Policy.Fallback.ChainOf(p.target)
		}
		if p.ask(ctx, &s.Policy.Fallback, chain, Call{By: e.By}, q) {
			return mark(e.By, flags.Fallback), nil
		}
	}
	if e := plan.Reject; e != nil {
		p.counts.rejected.Add(1)
		return "", p.refuse(e, guard.Degraded, codeOf(e.Code))
	}
	return "", nil
}

// percent is all of it.
const percent = 100

// mark is what a degraded answer says of itself.
func mark(by string, a flags.Action) string { return by + "; " + a.String() }

func (p *Point) refuse(e *flags.MethodEffect, reason guard.Reason, code codes.Code) error {
	return &guard.Rejection{
		Reason: reason, Dependency: p.name, Target: p.target, By: e.By, RetryAfter: e.RetryAfter, Code: code, Message: e.Message,
	}
}

// codeOf returns the code of a name; UNAVAILABLE for one that is none, or OK, which
// would make a refused call look like one that was made.
func codeOf(name string) codes.Code {
	var code codes.Code
	if err := code.UnmarshalJSON([]byte(strconv.Quote(name))); err != nil || code == codes.OK {
		return codes.Unavailable
	}
	return code
}

// recall answers with a recorded reply that is fresh enough.
func (p *Point) recall(e *flags.MethodEffect, q Question) bool {
	if p.degrader.replies != nil {
		if key, ok := q.Key(Names(e.Vary)); ok {
			reply, _, found := p.degrader.replies.Get(p.degrader.clock.Now(), key, e.MaxAge)
			if found && q.Recall(reply) == nil {
				p.counts.cached.Add(1)
				return true
			}
		}
	}
	p.counts.misses.Add(1)
	return false
}

// Record keeps the reply of a call that its dependency answered, for each set of
// metadata by which a level may ask for it.
func (p *Point) Record(s *guard.Setting, q Question) {
	if p.degrader.replies == nil {
		return
	}
	var reply any
	var size int
	for i := range s.Recordings {
		key, ok := q.Key(Names(s.Recordings[i].Vary))
		if !ok {
			return
		}
		if i == 0 {
			if reply, size, ok = q.Reply(); !ok {
				return
			}
			p.counts.recorded.Add(1)
		}
		p.degrader.replies.Put(p.degrader.clock.Now(), key, reply, size)
	}
}
