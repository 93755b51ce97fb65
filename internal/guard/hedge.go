package guard

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-dev/holdfast/internal/breaker"
)

// race is the first attempt of a call with hedges beside it.
type race struct {
	target  *Target
	setting *Setting
	call    Invocation
	ctx     context.Context //nolint:containedctx // of all who run
	cancel  context.CancelFunc

	// running are the hedges, the one that a timer is to start among them.
	running  sync.WaitGroup
	won      atomic.Pointer[twin]
	panicked atomic.Pointer[any]

	mu    sync.Mutex
	over  bool        // the first attempt has come back: no more hedges
	timer *time.Timer // of the next hedge
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
	r := &race{target: t, setting: s, call: call, ctx: ctx, cancel: cancel}
	defer r.end()
	r.plan(0)
	p.ctx = ctx
	func() {
		defer r.stop()
		t.attempt(ctx, call, 1, p, o)
	}()
	if !good(p.class) {
		r.running.Wait() // one of them may do better
	}
	cancel()
	r.running.Wait()
	if v := r.panicked.Load(); v != nil {
		o.place.Release() // the first attempt may have come back well
		panic(*v)         // of the host's own code, on a goroutine where it may catch it
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

// plan lets another hedge start after the delay, where n have before it.
func (r *race) plan(n int) {
	retry := &r.setting.Policy.Retry
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over || n >= retry.MaxHedges {
		return
	}
	r.running.Add(1)
	r.timer = time.AfterFunc(retry.HedgeDelay, func() { r.start(n) })
}

// stop lets no more hedges start.
func (r *race) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	if r.timer.Stop() {
		r.running.Done()
	}
}

// start makes a hedge.
func (r *race) start(n int) {
	defer r.running.Done()
	defer r.contain()
	if r.ctx.Err() != nil {
		return
	}
	if call := r.call.Twin(); call != nil {
		r.plan(n + 1)
		r.run(r.ctx, call, n+2)
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
