package guard

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/holdfast-dev/holdfast/internal/breaker"
)

// race is the first attempt of a call with hedges beside it.
type race struct {
	target  *Target
	setting *Setting
	call    Invocation
	cancel  context.CancelFunc // of all who run

	running  sync.WaitGroup
	won      atomic.Pointer[twin]
	panicked atomic.Pointer[any]
}

// twin is a hedge that came back well.
type twin struct {
	call Invocation
	outcome
}

// hedge makes the first attempt, and others beside it if it takes long. The first
// one that comes back well ends the rest, whose results say nothing. It returns
// when all have come back.
func (t *Target) hedge(ctx context.Context, s *Setting, call Invocation, p *Permit, o *outcome) {
	ctx, cancel := context.WithCancel(ctx)
	waiting, stop := context.WithCancel(ctx)
	r := &race{target: t, setting: s, call: call, cancel: cancel}
	defer r.end()
	r.running.Go(func() { r.start(ctx, waiting) })
	p.ctx = ctx
	func() {
		defer stop()
		t.attempt(ctx, call, 1, p, o)
	}()
	if !good(p.class) {
		r.running.Wait() // one of them may do better
	}
	cancel()
	r.running.Wait()
	if v := r.panicked.Load(); v != nil {
		panic(*v) // of the host's own code, on a goroutine where it may catch it
	}
	if good(p.class) {
		return
	}
	if won := r.won.Swap(nil); won != nil {
		o.place.Release()
		call.Adopt(won.call)
		*o = won.outcome
		t.counters.add(hedgeWins, 1)
	}
}

func good(c breaker.Class) bool { return c == breaker.Success || c == breaker.Slow }

// end lets go of what was not adopted.
func (r *race) end() {
	r.cancel()
	r.running.Wait()
	if won := r.won.Load(); won != nil {
		won.place.Release()
	}
}

// start starts hedges, one after the other, until waiting ends.
func (r *race) start(ctx, waiting context.Context) {
	defer r.contain()
	retry := &r.setting.Policy.Retry
	for n := range retry.MaxHedges {
		if !sleep(waiting, retry.HedgeDelay) {
			return
		}
		call := r.call.Twin()
		if call == nil {
			return
		}
		r.running.Go(func() {
			defer r.contain()
			r.run(ctx, call, n+2)
		})
	}
}

// contain notes a panic, and ends the race.
func (r *race) contain() {
	if v := recover(); v != nil {
		r.panicked.CompareAndSwap(nil, &v)
		r.cancel()
	}
}

// run makes a hedge, if there is a place and budget for it at once.
func (r *race) run(ctx context.Context, call Invocation, n int) {
	t := r.target
	var p Permit
	now := t.exact()
	if t.admit(ctx, r.setting, &p, now, t.left(ctx, now), false) != nil {
		return
	}
	if !t.dependency.budget.Take(now) {
		t.giveBack(&p)
		p.place.Release()
		t.counters.add(retriesRefusedBudget, 1)
		return
	}
	t.counters.add(hedges, 1)
	won := &twin{call: call}
	t.attempt(ctx, call, n, &p, &won.outcome)
	if good(p.class) && r.won.CompareAndSwap(nil, won) {
		r.cancel()
		return
	}
	won.place.Release()
}
