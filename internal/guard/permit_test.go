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
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

func TestPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) {
			places(1, 0)(p)
			p.CircuitBreaker.SlowAfter = time.Second
		})
		target := f.target(postMethod)
		admit := func() (Permit, error) { return target.Admit(t.Context(), target.Now()) }
		p, err := admit()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := admit(); !errors.Is(err, BulkheadFull) {
			t.Errorf("a second one: %v", err)
		}
		pass(time.Minute)
		// The first of several ends counts, and takes what it says.
		var ends sync.WaitGroup
		for range 8 {
			ends.Go(func() { p.Done(Result{Code: codes.Internal}, ms) })
		}
		ends.Wait()
		if s := f.stats(postMethod); s.Results[breaker.Failure] != 1 || s.Breaker.Counts.Failures != 1 || s.Breaker.Counts.Slow != 0 || s.Calls != 2 {
			t.Errorf("counted %+v", s)
		}
		if use := f.Stats().Dependencies[0]; use.InUse != 0 {
			t.Errorf("%d places are taken", use.InUse)
		}
		p, _ = admit()
		pass(time.Minute)
		p.Done(Result{}, 0)
		if s := f.stats(postMethod); s.Breaker.Counts.Slow != 1 || s.Results[breaker.Success] != 1 {
			t.Errorf("not slow: %+v", s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		p, _ = target.Admit(ctx, target.Now())
		cancel()
		p.Done(Result{Code: codes.Unknown}, 0)
		if s := f.stats(postMethod); s.Results[breaker.Neutral] != 1 {
			t.Errorf("cancelled: %+v", s)
		}
		p, _ = target.Admit(until(t, 10*ms), target.Now())
		pass(10 * ms)
		p.Done(Result{Code: codes.DeadlineExceeded}, 0)
		if s := f.stats(postMethod); s.Results[breaker.Neutral] != 2 {
			t.Errorf("an unfair timeout: %+v", s)
		}
		f.fail(5)
		if _, err := admit(); !errors.Is(err, BreakerOpen) {
			t.Errorf("open: %v", err)
		}
	})
	var none Permit
	none.Answered()
	none.Done(Result{}, 0)
}

// A stream that is a probe may last for longer than a probe may take to answer.
func TestAnsweredProbe(t *testing.T) {
	for name, c := range map[string]struct {
		answered bool
		state    breaker.State
	}{"answered": {true, breaker.Closed}, "not": {false, breaker.Open}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, func(p *policy.Policy) {
					p.CircuitBreaker.SuccessThreshold, p.CircuitBreaker.Ramp = 1, nil
				})
				target := f.target(postMethod)
				f.fail(5)
				pass(5 * time.Second)
				p, err := target.Admit(t.Context(), target.Now())
				if err != nil {
					t.Fatal(err)
				}
				pass(ms)
				if c.answered {
					p.Answered()
					p.Answered()
				}
				pass(10 * time.Second)
				other, err := target.Admit(t.Context(), target.Now())
				if (err == nil) != c.answered {
					t.Errorf("another: %v", err)
				}
				other.Done(Result{}, 0)
				p.Done(Result{Code: codes.Unavailable}, ms)
				s := f.stats(postMethod)
				stale := uint64(0)
				if !c.answered {
					stale = 1
				}
				if s.Breaker.State != c.state || s.Breaker.Counts.Failures != 0 || s.Breaker.Stale != stale || s.Results[breaker.Failure] != 6 {
					t.Errorf("counted %+v", s)
				}
			})
		})
	}
}

func TestServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, places(2, 0))
		reject := &flags.MethodEffect{Action: flags.Reject}
		f.apply(said{
			plans: map[flags.Side]flags.Plan{flags.ServerSide: {Reject: reject}},
			holds: map[string]flags.Hold{"server:store": {Dependency: "server:store", Open: true}},
		})
		target := f.Server("store").Target(putMethod, Method)
		if target.Now().Plan.Reject != reject || f.target(putMethod).Now().Plan.Reject != nil {
			t.Error("the plans are those of the wrong side")
		}
		for range 30 { // it has no breaker
			a, err := target.Admit(t.Context(), target.Now())
			if err != nil {
				t.Fatal(err)
			}
			b, _ := target.Admit(t.Context(), target.Now())
			if _, err = target.Admit(t.Context(), target.Now()); !errors.Is(err, BulkheadFull) {
				t.Errorf("a third one: %v", err)
			}
			a.Done(Result{Code: codes.Internal}, 0)
			b.Done(Result{Code: codes.Internal}, 0)
		}
		for _, d := range f.Stats().Dependencies {
			if d.Name != "server:store" {
				continue
			}
			if s := d.Targets[0]; d.InUse != 0 || s.Calls != 90 || s.Rejected[BulkheadFull] != 30 || s.Breaker.State != breaker.Closed || len(f.events) != 0 {
				t.Errorf("counted %+v", d)
			}
		}
		// Without a policy there is no bound.
		free := f.Server("other").Target(putMethod, Method)
		for range 5000 {
			if p, err := free.Admit(t.Context(), free.Now()); err != nil {
				t.Fatal(err)
			} else {
				defer p.Done(Result{}, 0)
			}
		}
	})
}
