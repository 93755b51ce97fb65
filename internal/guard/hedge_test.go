package guard

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

func hedging(p *policy.Policy) { p.Retry.HedgeDelay, p.Retry.MaxHedges = 100*ms, 2 }

// hedged is a call with a twin.
func hedged(first, second step) *scripted {
	return &scripted{method: readMethod, steps: []step{first}, twin: &scripted{method: readMethod, steps: []step{second}}}
}

func TestHedge(t *testing.T) {
	slow := step{took: 5 * time.Second}
	for name, c := range map[string]struct {
		policy  func(*policy.Policy)
		method  string
		call    *scripted
		took    time.Duration
		code    codes.Code
		adopted bool
		hedges  uint64
		results [5]uint64
	}{
		"not needed": {call: hedged(step{took: 99 * ms}, step{}), took: 99 * ms, results: [5]uint64{breaker.Success: 1}},
		"wins": {
			call: hedged(slow, step{took: 10 * ms}), took: 110 * ms, adopted: true, hedges: 1,
			results: [5]uint64{breaker.Success: 1, breaker.Neutral: 1},
		},
		"wins with an answer that is no OK": {
			call: hedged(slow, step{took: 10 * ms, code: codes.NotFound}), took: 110 * ms, code: codes.NotFound, adopted: true, hedges: 1,
			results: [5]uint64{breaker.Success: 1, breaker.Neutral: 1},
		},
		"wins against one that ends badly for that": {
			call: hedged(step{code: codes.Internal, do: func(ctx context.Context) { <-ctx.Done() }}, step{took: 10 * ms}), took: 110 * ms, adopted: true, hedges: 1,
			results: [5]uint64{breaker.Success: 1, breaker.Neutral: 1},
		},
		"loses": {
			call: hedged(step{took: 150 * ms}, slow), took: 150 * ms, hedges: 1,
			results: [5]uint64{breaker.Success: 1, breaker.Neutral: 1},
		},
		"loses against a failure": {
			call: hedged(step{took: 150 * ms, code: codes.Internal}, step{took: 100 * ms}), took: 200 * ms, adopted: true, hedges: 1,
			results: [5]uint64{breaker.Success: 1, breaker.Failure: 1},
		},
		"all fail": {
			call: hedged(step{took: 150 * ms, code: codes.Internal}, step{took: 100 * ms, code: codes.Unknown}), took: 200 * ms, code: codes.Internal, hedges: 1,
			results: [5]uint64{breaker.Failure: 2},
		},
		"several": {
			call: hedged(slow, step{took: 150 * ms}), took: 250 * ms, adopted: true, hedges: 2,
			results: [5]uint64{breaker.Success: 1, breaker.Neutral: 2},
		},
		"a call that changes something": {
			method: putMethod, call: hedged(step{took: time.Second}, step{}), took: time.Second,
			results: [5]uint64{breaker.Success: 1},
		},
		"no twin":         {call: &scripted{method: readMethod, steps: []step{{took: time.Second}}}, took: time.Second, results: [5]uint64{breaker.Success: 1}},
		"not enough room": {policy: places(1, 9), call: hedged(step{took: time.Second}, step{}), took: time.Second, results: [5]uint64{breaker.Success: 1}},
		"no budget": {
			policy: func(p *policy.Policy) { p.Retry.Budget = policy.Budget{Window: time.Second} },
			call:   hedged(step{took: time.Second}, step{}), took: time.Second, results: [5]uint64{breaker.Success: 1},
		},
		"a retry after all failed": {
			policy: func(p *policy.Policy) { p.Retry.Retryable = 1 << codes.Internal; p.Retry.MaxAttempts = 2 },
			call: &scripted{
				method: readMethod, steps: []step{{took: 150 * ms, code: codes.Internal}, {}},
				twin: &scripted{steps: []step{{code: codes.Internal}}},
			},
			took: 250 * ms, hedges: 1, results: [5]uint64{breaker.Success: 1, breaker.Failure: 2},
		},
		"the caller's deadline": {
			call: hedged(step{took: time.Hour}, step{took: time.Hour}), took: 10 * time.Second, code: codes.DeadlineExceeded, hedges: 2,
			results: [5]uint64{breaker.Failure: 3},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, func(p *policy.Policy) {
					hedging(p)
					if c.policy != nil {
						c.policy(p)
					}
				})
				if c.method != "" {
					c.call.method = c.method
				}
				begun := time.Now()
				err := f.call(t.Context(), c.call)
				if took := time.Since(begun); took != c.took || status.Code(err) != c.code || (c.call.adopted != nil) != c.adopted {
					t.Errorf("got %v after %v, adopted: %v", err, took, c.call.adopted != nil)
				}
				s, use := f.stats(c.call.method), f.Stats().Dependencies[0]
				if s.Hedges != c.hedges || s.Results != c.results || s.Calls != 1 || (s.HedgeWins == 1) != c.adopted || use.InUse != 0 || len(s.Rejected) != 0 {
					t.Errorf("counted %+v of %+v", s, use)
				}
				for _, m := range slices.Concat(c.call.list(), twinOf(c.call).list()) {
					if m.ctx.Err() == nil {
						t.Error("a context goes on")
					}
				}
				if twin := twinOf(c.call); twin.finished != len(twin.list()) {
					t.Error("a hedge runs still")
				}
			})
		})
	}
}

// A hedge that is not due yet is a timer and no more.
func TestNoGoroutineBeforeTheDelay(t *testing.T) {
	f := newFixture(t, func(p *policy.Policy) { p.Retry.HedgeDelay, p.Retry.MaxHedges = time.Hour, 2 })
	before, during := runtime.NumGoroutine(), 0
	call := hedged(step{do: func(context.Context) { during = runtime.NumGoroutine() }}, step{})
	if err := f.call(t.Context(), call); err != nil || during != before {
		t.Errorf("%d goroutines were %d before: %v", during, before, err)
	}
}

func twinOf(c *scripted) *scripted {
	if c.twin == nil {
		return new(scripted)
	}
	return c.twin
}

// A panic of a hedge comes to its caller, not to the process.
func TestHedgePanics(t *testing.T) {
	for name, call := range map[string]*scripted{
		"hedge": hedged(step{took: time.Hour}, step{panics: "broken"}),
		"first": hedged(step{do: func(context.Context) { pass(150 * ms) }, panics: "broken"}, step{took: time.Hour}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, hedging)
				var got any
				func() {
					defer func() { got = recover() }()
					_ = f.call(t.Context(), call)
				}()
				s, use := f.stats(readMethod), f.Stats().Dependencies[0]
				if got != "broken" || use.InUse != 0 || s.Results[breaker.Failure] != 1 || s.Results[breaker.Neutral] != 1 {
					t.Errorf("got %v, counted %+v", got, s)
				}
				if call.finished+call.twin.finished != 2 {
					t.Error("one of them runs still")
				}
			})
		})
	}
}

// An answer that keeps its place gives it back where a hedge's panic comes instead.
func TestHedgePanicsBesideAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, hedging)
		call := hedged(step{took: 150 * ms, deaf: true, result: &Result{Keep: true}}, step{panics: "broken"})
		var got any
		func() {
			defer func() { got = recover() }()
			_ = f.call(t.Context(), call)
		}()
		s, use := f.stats(readMethod), f.Stats().Dependencies[0]
		if got != "broken" || use.InUse != 0 || len(call.places) != 0 || s.Results[breaker.Success] != 1 {
			t.Errorf("got %v, %d in use, counted %+v", got, use.InUse, s)
		}
	})
}

// A probe is not hedged, since the breaker admits no other one.
func TestProbesAreNotHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, hedging)
		f.target(readMethod).breaker.Force(0, true)
		f.target(readMethod).breaker.Release(0)
		call := hedged(step{took: time.Second}, step{})
		if err := f.call(t.Context(), call); err != nil || len(call.twin.list()) != 0 {
			t.Errorf("made %d hedges: %v", len(call.twin.list()), err)
		}
		if s := f.stats(readMethod); s.Hedges != 0 || len(s.Rejected) != 0 || s.Breaker.Good != 1 {
			t.Errorf("counted %+v", s)
		}
		if used := f.Dependency("store").budget.Use(f.now()); used.Retries != 0 {
			t.Errorf("took %d from the budget", used.Retries)
		}
	})
}

// keep lets each good answer keep its place.
func keep(code codes.Code) *Result { return &Result{Code: code, Keep: true} }

func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) {
			hedging(p)
			p.Bulkhead.Methods = map[string]int{putMethod: 5, readMethod: 5}
		})
		inUse := func() int { return f.Stats().Dependencies[0].InUse }
		for name, c := range map[string]struct {
			call     *scripted
			attempts int
			kept     int
		}{
			"answer":       {call: &scripted{steps: []step{{result: keep(codes.OK)}}}, attempts: 1, kept: 1},
			"second one":   {call: &scripted{steps: []step{{result: keep(codes.Unavailable)}, {result: keep(codes.OK)}}}, attempts: 2, kept: 1},
			"last failure": {call: &scripted{steps: []step{{result: keep(codes.Unavailable)}}}, attempts: 3, kept: 1},
			"none":         {call: &scripted{steps: []step{{result: keep(codes.Unavailable)}, {}}}, attempts: 2},
			"of the twin": {call: &scripted{
				method: readMethod, steps: []step{{took: time.Hour, result: keep(codes.OK)}},
				twin: &scripted{steps: []step{{result: keep(codes.OK)}}},
			}, attempts: 1, kept: 1},
			"of a failure before the twin": {call: &scripted{
				method: readMethod, steps: []step{{took: 150 * ms, result: keep(codes.Internal)}},
				twin: &scripted{steps: []step{{took: 100 * ms, result: keep(codes.OK)}}},
			}, attempts: 1, kept: 1},
			"not of the twin that lost": {call: &scripted{
				method: readMethod, steps: []step{{took: 150 * ms, result: keep(codes.OK), do: func(context.Context) {}}},
				twin: &scripted{steps: []step{{took: 50 * ms, deaf: true, result: keep(codes.OK)}}},
			}, attempts: 1, kept: 1},
		} {
			_ = f.call(t.Context(), c.call)
			if len(c.call.list()) != c.attempts || len(c.call.places) != c.kept || inUse() != c.kept {
				t.Errorf("%s: %d attempts kept %d places, %d are taken", name, len(c.call.list()), len(c.call.places), inUse())
			}
			for _, p := range c.call.places {
				p.Release()
			}
			if inUse() != 0 {
				t.Errorf("%s: %d are taken after the end", name, inUse())
			}
		}
		for _, part := range f.Dependency("store").parts {
			if part.Use().InUse != 0 {
				t.Errorf("%d places of a part are taken", part.Use().InUse)
			}
		}
	})
}

// While a call pauses before a retry, it takes no place.
func TestKeptPlaceIsFreeInThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, places(1, 0))
		f.begin(t.Context(), &scripted{steps: []step{{result: keep(codes.Unavailable)}, {took: time.Second}}})
		if c := f.begin(t.Context(), lasting(50*ms)); c.done() {
			t.Errorf("got %v", c.err())
		}
		pass(time.Minute)
	})
}

func TestDisabled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, places(1, 0))
		target := f.target(putMethod)
		f.fail(5)
		f.apply(said{disabled: true})
		before := f.Stats()
		broken := errors.New("broken")
		for range 3 {
			call := &scripted{steps: []step{{err: broken, took: ms}}}
			ctx := until(t, time.Second)
			if err := target.Call(ctx, target.Now(), call); !errors.Is(err, broken) || len(call.list()) != 1 || call.list()[0].ctx != ctx {
				t.Errorf("got %v", err)
			}
			p, err := target.Admit(ctx, target.Now())
			if err != nil || target.Due(until(t, 0), target.Now()) != nil {
				t.Errorf("got %v", err)
			}
			defer p.Done(Result{Code: codes.Internal}, 0)
			p.Answered()
		}
		if after := f.stats(putMethod); after.Calls != 0 || before.Dependencies[0].InUse != 0 {
			t.Errorf("counted %+v", after)
		}
		f.apply(said{})
		if s := f.stats(postMethod); s.Breaker.State != breaker.Open {
			t.Errorf("the breaker forgot: %v", s.Breaker.State)
		}
	})
}
