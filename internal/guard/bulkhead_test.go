package guard

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/bulkhead"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// places lets the policy have so many, and as many calls wait for up to a second.
func places(n, queue int) func(*policy.Policy) {
	return func(p *policy.Policy) {
		p.Bulkhead.MaxConcurrent, p.Bulkhead.MaxQueue, p.Bulkhead.MaxWait = n, queue, time.Second
	}
}

// going is a call in the background.
type going struct {
	*scripted
	mu    sync.Mutex
	got   error
	ended bool
}

func (f *fixture) begin(ctx context.Context, c *scripted) *going {
	g := &going{scripted: c}
	go func() {
		err := f.call(ctx, c)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.got, g.ended = err, true
	}()
	synctest.Wait()
	return g
}

func (g *going) err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.got
}

func (g *going) done() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ended
}

func lasting(d time.Duration) *scripted { return &scripted{steps: []step{{took: d}}} }

func TestBulkhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, places(2, 1))
		ctx := t.Context()
		a, b := f.begin(ctx, lasting(300*ms)), f.begin(ctx, lasting(5*time.Second))
		c := f.begin(ctx, lasting(5*time.Second))
		if len(c.list()) > 0 || c.done() {
			t.Fatal("a third call does not wait")
		}
		d := f.begin(ctx, lasting(0))
		var r *Rejection
		if !errors.As(d.err(), &r) || r.Reason != BulkheadFull || r.Code != codes.ResourceExhausted || !errors.Is(d.err(), Rejected) {
			t.Errorf("with a full queue: %v", d.err())
		}
		pass(300 * ms)
		synctest.Wait()
		if !a.done() || len(c.list()) != 1 {
			t.Error("who waits does not get the place")
		}
		if left := c.list()[0].left; left != 9700*ms {
			t.Errorf("the wait is not part of the call: %v are left", left)
		}
		e := f.begin(ctx, lasting(0))
		pass(time.Second)
		synctest.Wait()
		if !errors.Is(e.err(), BulkheadTimeout) {
			t.Errorf("after max_wait: %v", e.err())
		}
		s, use := f.stats(putMethod), f.Stats().Dependencies[0]
		if s.Rejected[BulkheadFull] != 1 || s.Rejected[BulkheadTimeout] != 1 || s.Waits != 2 || s.WaitTime != 1300*ms || use.InUse != 2 || use.Limit != 2 || use.Queued != 0 {
			t.Errorf("counted %+v of %+v", s, use)
		}
		pass(time.Minute)
		if use := f.Stats().Dependencies[0]; use.InUse != 0 || b.err() != nil {
			t.Errorf("%d places are taken", use.InUse)
		}
		if n := f.stats(putMethod).Breaker.Counts; n.Failures != 0 {
			t.Errorf("the breaker counts rejections: %+v", n)
		}
	})
}

// Important calls go first.
func TestPriorityInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, places(1, 2))
		f.begin(t.Context(), lasting(100*ms))
		normal := f.begin(t.Context(), lasting(100*ms))
		high := f.begin(WithPriority(t.Context(), bulkhead.High), lasting(100*ms))
		pass(100 * ms)
		synctest.Wait()
		if len(high.list()) != 1 || len(normal.list()) != 0 {
			t.Errorf("made %d important, %d normal calls", len(high.list()), len(normal.list()))
		}
		pass(time.Second)
	})
}

func TestPartsAndWeights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) {
			p.Bulkhead.MaxConcurrent = 10
			p.Bulkhead.Methods = map[string]int{putMethod: 2}
			p.Bulkhead.Weights = map[string]int{postMethod: 8}
		})
		ctx := t.Context()
		for range 2 {
			f.begin(ctx, lasting(time.Minute))
		}
		if c := f.begin(ctx, lasting(0)); !errors.Is(c.err(), BulkheadFull) {
			t.Errorf("a third of its method: %v", c.err())
		}
		if use := f.Stats().Dependencies[0]; use.InUse != 2 {
			t.Errorf("%d places are taken", use.InUse)
		}
		post := func() *going {
			return f.begin(ctx, &scripted{method: postMethod, steps: []step{{took: time.Minute}}})
		}
		if c := post(); c.done() {
			t.Errorf("8 of 10 places: %v", c.err())
		}
		if c := post(); !errors.Is(c.err(), BulkheadFull) {
			t.Errorf("8 more: %v", c.err())
		}
		// A call that finds a place in the part only does not keep it.
		pass(time.Minute)
		synctest.Wait()
		post()
		f.begin(ctx, lasting(time.Minute))
		f.begin(ctx, lasting(time.Minute))
		f.policy.Bulkhead.Methods = map[string]int{putMethod: 5}
		f.apply(said{})
		if c := f.begin(ctx, lasting(0)); !errors.Is(c.err(), BulkheadFull) {
			t.Errorf("beyond the whole: %v", c.err())
		}
		pass(time.Minute)
		synctest.Wait()
		for range 5 {
			if c := f.begin(ctx, lasting(time.Minute)); c.done() {
				t.Errorf("the part lost a place: %v", c.err())
			}
		}
		pass(time.Minute)
		synctest.Wait()
		f.policy.Bulkhead.Methods = nil
		f.apply(said{})
		if n := len(f.Dependency("store").parts); n != 0 {
			t.Errorf("%d parts are left", n)
		}
	})
}

// A probe that has to wait for a place lets another one be the probe meanwhile.
func TestWaitingHoldsNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) {
			places(1, 1)(p)
			p.CircuitBreaker.ProbeTimeout = 500 * ms
		})
		f.fail(5)
		pass(5 * time.Second)
		other := f.begin(t.Context(), lasting(800*ms)) // takes the place, of another target
		probe := f.begin(t.Context(), &scripted{method: postMethod, steps: []step{{took: 400 * ms}}})
		if s := f.stats(postMethod); len(probe.list()) != 0 || s.Breaker.Probes != 0 || s.Breaker.State != breaker.HalfOpen {
			t.Errorf("waiting, it is %+v", s.Breaker)
		}
		pass(1200 * ms)
		synctest.Wait()
		if s := f.stats(postMethod); probe.err() != nil || !probe.done() || s.Breaker.Good != 1 || probe.list()[0].left != 500*ms || other.err() != nil {
			t.Errorf("got %v, the breaker is %+v", probe.err(), s.Breaker)
		}
	})
}

// Whoever waited is asked again by the breaker, and gives the place back.
func TestBreakerOpensWhileCallsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) {
			places(1, 1)(p)
			p.CircuitBreaker.FailureThreshold = 1
		})
		f.begin(t.Context(), &scripted{method: postMethod, steps: []step{{took: 100 * ms, code: codes.Internal}}})
		waits := f.begin(t.Context(), &scripted{method: postMethod, steps: []step{{}}})
		pass(100 * ms)
		synctest.Wait()
		if !errors.Is(waits.err(), BreakerOpen) || len(waits.list()) > 0 {
			t.Errorf("got %v", waits.err())
		}
		if use := f.Stats().Dependencies[0]; use.InUse != 0 {
			t.Errorf("%d places are taken", use.InUse)
		}
	})
}

func TestEndsWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) {
			places(1, 4)(p)
			p.Timeouts.Minimum = 50 * ms
		})
		f.begin(t.Context(), lasting(500*ms))
		ctx, cancel := context.WithCancel(t.Context())
		cancelled := f.begin(ctx, lasting(0))
		cancel()
		late := f.begin(until(t, 300*ms), lasting(0))
		near := f.begin(until(t, 549*ms), lasting(0))
		pass(time.Second)
		synctest.Wait()
		if !errors.Is(cancelled.err(), context.Canceled) || errors.Is(cancelled.err(), Rejected) {
			t.Errorf("cancelled: %v", cancelled.err())
		}
		if !errors.Is(late.err(), context.DeadlineExceeded) || errors.Is(late.err(), Rejected) {
			t.Errorf("out of time: %v", late.err())
		}
		if !errors.Is(near.err(), DeadlineTooNear) {
			t.Errorf("less than the minimum is left: %v", near.err())
		}
		// The policy's deadline bounds the wait as well.
		f.policy.Timeouts.Call = 200 * ms
		f.apply(said{})
		post, _ := f.target(postMethod).Admit(t.Context(), f.target(postMethod).Now())
		begun, own := time.Now(), lasting(0)
		own.method = readMethod
		if err := f.call(t.Context(), own); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 200*ms {
			t.Errorf("got %v after %v", err, time.Since(begun))
		}
		post.Done(Result{}, 0)
		s := f.stats(putMethod)
		if use := f.Stats().Dependencies[0]; use.InUse != 0 || s.Calls != 4 || s.Waits != 3 || s.Attempts != 1 {
			t.Errorf("counted %+v of %+v", s, use)
		}
	})
}

// A call that waits until the policy's deadline was not made, and its caller has not
// given up.
func TestOwnDeadlineEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) {
			places(1, 4)(p)
			p.Timeouts.Call = 200 * ms
		})
		target := f.target(postMethod)
		taken, err := target.Admit(t.Context(), target.Now())
		if err != nil {
			t.Fatal(err)
		}
		for range 20 { // whose timer comes first is a matter of chance
			ctx := until(t, 300*ms)
			if err := f.call(ctx, lasting(0)); !errors.Is(err, Rejected) || !errors.Is(err, DeadlineTooNear) {
				t.Errorf("the policy's: %v", err)
			}
			if err := f.call(until(t, 100*ms), lasting(0)); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, Rejected) {
				t.Errorf("the caller's: %v", err)
			}
		}
		if s := f.stats(putMethod); s.Rejected[DeadlineTooNear] != 20 || s.Calls != 40 {
			t.Errorf("counted %+v", s)
		}
		taken.Done(Result{}, 0)
	})
}

func TestAdaptive(t *testing.T) {
	for name, c := range map[string]struct {
		step  step
		fewer bool
	}{
		"overload":  {step: step{code: codes.ResourceExhausted}, fewer: true},
		"timeouts":  {step: step{took: time.Hour}, fewer: true},
		"cancelled": {step: step{code: codes.Canceled}},
		"failures":  {step: step{code: codes.Internal}},
		"successes": {step: step{took: ms}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, func(p *policy.Policy) {
					p.CircuitBreaker = policy.CircuitBreaker{FailureCodes: p.CircuitBreaker.FailureCodes}
					p.Bulkhead.Adaptive, p.Bulkhead.MinConcurrent, p.Bulkhead.MaxConcurrent = true, 4, 100
				})
				f.call(t.Context(), attempts(codes.OK))
				before := f.Stats().Dependencies[0].Limit
				for range 200 {
					_ = f.call(until(t, 500*ms), &scripted{method: postMethod, steps: []step{c.step}})
					pass(10 * ms)
				}
				if after := f.Stats().Dependencies[0].Limit; after < before != c.fewer || before == 0 {
					t.Errorf("%d places became %d", before, after)
				}
			})
		})
	}
}
