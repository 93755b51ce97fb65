package guard

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

func observing(p *policy.Policy) { p.Enforcement = policy.Observe }

// Nothing is refused or recorded that would have been refused; the breaker opens
// once, and probes as if it were obeyed.
func TestObserveBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, observing)
		f.fail(50)
		s := f.stats(postMethod)
		if s.Attempts != 50 || s.Results[breaker.Failure] != 50 || s.Observed[BreakerOpen] != 45 || len(s.Rejected) != 0 || s.Calls != 50 {
			t.Errorf("counted %+v", s)
		}
		if s.Breaker.State != breaker.Open || s.Breaker.Counts.Failures != 0 || len(f.events) != 1 {
			t.Errorf("the breaker is %+v, told %d times", s.Breaker, len(f.events))
		}
		pass(5 * time.Second)
		f.fail(1) // would have been the probe
		if s := f.stats(postMethod); s.Observed[BreakerOpen] != 45 || s.Breaker.OpenFor != 10*time.Second {
			t.Errorf("counted %+v", s)
		}
	})
}

func TestObserveDeadlinesRetriesAndHedges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) {
			observing(p)
			p.Timeouts.PerAttempt = time.Second
			p.Retry.HedgeDelay = 10 * ms
		})
		for _, left := range []time.Duration{-1, 20 * time.Second, 3 * time.Second, ms / 2, 0} {
			ctx := WithHop(until(t, left))
			call := &scripted{method: readMethod, steps: []step{{took: ms / 4, code: codes.Unavailable}}}
			_ = f.call(ctx, call)
			if len(call.list()) != 1 || call.list()[0].ctx != ctx || call.twins > 0 {
				t.Errorf("%v: made %d attempts", left, len(call.list()))
			}
		}
		if s := f.stats(readMethod); s.Observed[DeadlineTooNear] != 2 || s.Retries+s.RetriesRefusedBudget+s.RetriesRefusedDeadline != 0 || s.Calls != 5 {
			t.Errorf("counted %+v", s)
		}
	})
}

// A call without a place passes at once, and takes none, so that the others find
// what they would find.
func TestObserveBulkhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) {
			places(2, 5)(p)
			observing(p)
		})
		for range 5 {
			if c := f.begin(t.Context(), lasting(time.Minute)); len(c.list()) != 1 {
				t.Fatal("a call waits")
			}
		}
		if use := f.Stats().Dependencies[0]; use.InUse != 2 || use.Enforce {
			t.Errorf("is %+v", use)
		}
		pass(time.Minute)
		synctest.Wait()
		s, use := f.stats(putMethod), f.Stats().Dependencies[0]
		if use.InUse != 0 || s.Observed[BulkheadFull] != 3 || s.Waits != 0 || s.Breaker.Counts.Calls != 2 {
			t.Errorf("counted %+v of %+v", s, use)
		}
	})
}

// A probe that finds no place is no probe.
func TestObserveGivesLeasesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) {
			places(1, 0)(p)
			observing(p)
		})
		f.fail(5)
		pass(5 * time.Second)
		f.begin(t.Context(), lasting(time.Minute))
		f.fail(1)
		if s := f.stats(postMethod); s.Breaker.State != breaker.HalfOpen || s.Breaker.Probes != 0 || s.Observed[BulkheadFull] != 1 {
			t.Errorf("counted %+v", s)
		}
		pass(time.Minute)
	})
}
