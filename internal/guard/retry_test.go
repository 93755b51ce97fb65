package guard

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

const ms = time.Millisecond

func TestRetryOnlyWhatMayBeRepeated(t *testing.T) {
	known := func(retry bool) *Result { return &Result{Retry: retry, RetryKnown: true} }
	codeSet := func(c ...codes.Code) (set policy.Codes) {
		for _, c := range c {
			set |= 1 << c
		}
		return set
	}
	for name, c := range map[string]struct {
		method   string
		policy   func(*policy.Retry)
		step     step
		attempts int
	}{
		"idempotent by proto":            {method: putMethod, step: step{code: codes.Unavailable}, attempts: 3},
		"no side effects by proto":       {method: readMethod, step: step{code: codes.Unavailable}, attempts: 3},
		"unknown by proto":               {method: postMethod, step: step{code: codes.Unavailable}, attempts: 1},
		"no proto":                       {method: "/x.Y/Z", step: step{code: codes.Unavailable}, attempts: 1},
		"by policy":                      {method: postMethod, policy: func(r *policy.Retry) { r.Idempotent = []string{postMethod} }, step: step{code: codes.Unavailable}, attempts: 3},
		"of a service by policy":         {method: postMethod, policy: func(r *policy.Retry) { r.Idempotent = []string{"/guardtest.Store/*"} }, step: step{code: codes.Unavailable}, attempts: 3},
		"of another service by policy":   {method: postMethod, policy: func(r *policy.Retry) { r.Idempotent = []string{"/guardtest.Sto/*", "/guardtest.Store/Po*"} }, step: step{code: codes.Unavailable}, attempts: 1},
		"all by policy":                  {method: postMethod, policy: func(r *policy.Retry) { r.Idempotent = []string{"*"} }, step: step{code: codes.Unavailable}, attempts: 3},
		"a classifier knows":             {method: postMethod, step: step{code: codes.Internal, result: known(true)}, attempts: 3},
		"a classifier knows better":      {method: putMethod, step: step{code: codes.Unavailable, result: known(false)}, attempts: 1},
		"never, whatever a classifier":   {method: putMethod, policy: func(r *policy.Retry) { r.NonRetryable = codeSet(codes.Internal) }, step: step{code: codes.Internal, result: known(true)}, attempts: 1},
		"a success that is to be tried":  {method: putMethod, step: step{result: known(true)}, attempts: 3},
		"another code":                   {method: putMethod, step: step{code: codes.Internal}, attempts: 1},
		"another code by policy":         {method: putMethod, policy: func(r *policy.Retry) { r.Retryable = codeSet(codes.Internal) }, step: step{code: codes.Internal}, attempts: 3},
		"own rejection further in":       {method: putMethod, step: step{err: &Rejection{Reason: BreakerOpen, Code: codes.Unavailable}}, attempts: 1},
		"own rejection, classifier":      {method: putMethod, step: step{err: &Rejection{Reason: BreakerOpen, Code: codes.Unavailable}, result: known(true)}, attempts: 1},
		"the server says never":          {method: putMethod, step: step{code: codes.Unavailable, result: &Result{PushedBack: true, PushBack: -1}}, attempts: 1},
		"one attempt by policy":          {method: putMethod, policy: func(r *policy.Retry) { r.MaxAttempts = 1 }, step: step{code: codes.Unavailable}, attempts: 1},
		"an attempt out of its own time": {method: putMethod, step: step{took: time.Hour}, attempts: 3},
		"so of a call that changes more": {method: postMethod, step: step{took: time.Hour}, attempts: 1},
		"never, out of its own time":     {method: putMethod, policy: func(r *policy.Retry) { r.NonRetryable = codeSet(codes.DeadlineExceeded) }, step: step{took: time.Hour}, attempts: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, func(p *policy.Policy) {
					p.Timeouts.PerAttempt = time.Second
					if c.policy != nil {
						c.policy(&p.Retry)
					}
				})
				call := &scripted{method: c.method, steps: []step{c.step}}
				_ = f.call(t.Context(), call)
				if len(call.list()) != c.attempts {
					t.Errorf("made %d attempts, want %d", len(call.list()), c.attempts)
				}
				for i, m := range call.list() {
					if m.n != i+1 {
						t.Errorf("attempt %d is number %d", i, m.n)
					}
				}
				if s := f.stats(c.method); s.Calls != 1 || s.Attempts != uint64(c.attempts) || s.Retries != uint64(c.attempts-1) {
					t.Errorf("counted %+v", s)
				}
			})
		})
	}
}

func TestRepeatable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		target, call := f.target(postMethod), attempts(codes.Unavailable, codes.OK)
		if err := target.Call(t.Context(), target.Now().Repeatable(), call); err != nil || len(call.list()) != 2 {
			t.Errorf("made %d attempts: %v", len(call.list()), err)
		}
		if s := f.target(putMethod).Now(); !s.Idempotent || !s.Repeatable().Repeatable().Idempotent || target.Now().Idempotent {
			t.Error("the wrong ones are idempotent")
		}
	})
}

func TestRetryPauses(t *testing.T) {
	pushed := func(d time.Duration) step {
		return step{code: codes.Unavailable, result: &Result{PushedBack: true, PushBack: d}}
	}
	bad := step{code: codes.Unavailable}
	for name, c := range map[string]struct {
		steps  []step
		caller time.Duration
		pauses []time.Duration
		late   uint64 // retries refused for want of time
	}{
		"grow":                        {steps: []step{bad}, caller: -1, pauses: []time.Duration{100 * ms, 200 * ms, 400 * ms}},
		"the server's":                {steps: []step{bad, pushed(700 * ms), bad}, caller: -1, pauses: []time.Duration{100 * ms, 700 * ms, 100 * ms}},
		"the server's, none":          {steps: []step{pushed(0)}, caller: -1, pauses: []time.Duration{0, 0, 0}},
		"beyond the deadline":         {steps: []step{bad}, caller: 300 * ms, pauses: []time.Duration{100 * ms}, late: 1},
		"just within the deadline":    {steps: []step{bad}, caller: 301 * ms, pauses: []time.Duration{100 * ms, 200 * ms}, late: 1},
		"server's, beyond the end":    {steps: []step{pushed(time.Minute)}, caller: -1, late: 1},
		"of attempts that take a lot": {steps: []step{{code: codes.Unavailable, took: 4940 * ms}}, caller: -1, pauses: []time.Duration{5040 * ms}, late: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, func(p *policy.Policy) { p.Retry.MaxAttempts, p.CircuitBreaker.FailureThreshold = 4, 0 })
				call, begun := &scripted{steps: c.steps}, time.Now()
				if err := f.call(until(t, c.caller), call); status.Code(err) != codes.Unavailable {
					t.Errorf("got %v", err)
				}
				if got := call.pauses(); !slices.Equal(got, c.pauses) {
					t.Errorf("paused %v", got)
				}
				if s := f.stats(putMethod); s.RetriesRefusedDeadline != c.late {
					t.Errorf("counted %+v", s)
				}
				if took, last := time.Since(begun), call.list()[len(call.list())-1]; took != last.at.Sub(begun)+c.steps[len(c.steps)-1].took {
					t.Errorf("took %v: waited before it gave up", took)
				}
			})
		})
	}
}

// Who has gone needs no retry, and none is taken from the budget.
func TestNoRetryForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		call := &scripted{steps: []step{{code: codes.Unavailable, do: func(context.Context) { cancel() }}}}
		_ = f.call(ctx, call)
		if used := f.Dependency("store").budget.Use(f.now()); len(call.list()) != 1 || used.Retries != 0 || f.stats(putMethod).RetriesRefusedDeadline != 0 {
			t.Errorf("made %d attempts, took %d from the budget", len(call.list()), used.Retries)
		}
	})
}

// A call without a deadline does not wait for as long as a server likes.
func TestPushBackIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) { p.Timeouts.Call = 0 })
		for pause, attempts := range map[time.Duration]int{2 * time.Second: 3, 2*time.Second + 1: 1} {
			call := &scripted{steps: []step{{code: codes.Unavailable, result: &Result{PushedBack: true, PushBack: pause}}}}
			_ = f.call(t.Context(), call)
			if len(call.list()) != attempts {
				t.Errorf("%v: made %d attempts", pause, len(call.list()))
			}
		}
	})
}

func TestRetryBudgetIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) {
			p.CircuitBreaker = policy.CircuitBreaker{}
			p.Retry.Budget = policy.Budget{Ratio: 0.1, Window: 10 * time.Second}
		})
		made := 0
		for i := range 200 {
			call := attempts(codes.Unavailable)
			call.method = []string{putMethod, readMethod}[i%2]
			_ = f.call(t.Context(), call)
			made += len(call.list())
		}
		if made < 210 || made > 220 {
			t.Errorf("made %d attempts of 200 calls", made)
		}
		put, read := f.stats(putMethod), f.stats(readMethod)
		if refused := put.RetriesRefusedBudget + read.RetriesRefusedBudget; refused < 180 {
			t.Errorf("refused %d", refused)
		}
		if d := f.Stats().Dependencies[0]; d.RetryTokens < 0 || d.RetryTokens > 1 {
			t.Errorf("%v retries are left", d.RetryTokens)
		}
	})
}

// Rejected calls do not pay for retries.
func TestRejectedCallsAreNotInTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		f.fail(5)
		before := f.Dependency("store").budget.Use(f.now()).Calls
		for range 10 {
			if err := f.call(t.Context(), attempts(codes.OK)); err != nil {
				t.Fatal(err) // another target
			}
			if err := f.call(t.Context(), &scripted{method: postMethod, steps: []step{{}}}); !errors.Is(err, BreakerOpen) {
				t.Fatal(err)
			}
		}
		if got := f.Dependency("store").budget.Use(f.now()).Calls; before != 5 || got != 15 {
			t.Errorf("the budget saw %d calls, then %d", before, got)
		}
	})
}

// Retries go through the breaker, which ends them; the error is that of the last
// attempt that was made.
func TestBreakerEndsRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) { p.Retry.MaxAttempts, p.CircuitBreaker.FailureThreshold = 7, 3 })
		call := attempts(codes.Unavailable)
		if err := f.call(t.Context(), call); status.Code(err) != codes.Unavailable || errors.Is(err, Rejected) {
			t.Errorf("got %v", err)
		}
		if s := f.stats(putMethod); len(call.list()) != 3 || s.RetriesRejected != 1 || s.Calls != 1 || len(s.Rejected) != 0 || s.Results[breaker.Failure] != 3 {
			t.Errorf("made %d attempts, counted %+v", len(call.list()), s)
		}
	})
}

func TestRetrySucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		if err := f.call(t.Context(), attempts(codes.Unavailable, codes.Unavailable, codes.OK)); err != nil {
			t.Fatal(err)
		}
		if err := f.call(t.Context(), attempts(codes.Unavailable, codes.NotFound)); status.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
		s := f.stats(putMethod)
		want := TargetStats{Calls: 2, Attempts: 5, Retries: 3, RetrySuccesses: 2}
		if s.Calls != want.Calls || s.Attempts != want.Attempts || s.Retries != want.Retries || s.RetrySuccesses != want.RetrySuccesses ||
			s.Results != [5]uint64{breaker.Success: 2, breaker.Failure: 3} {
			t.Errorf("counted %+v", s)
		}
	})
}

func TestCancelEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(30*ms, cancel)
		call, begun := attempts(codes.Unavailable), time.Now()
		if err := f.call(ctx, call); status.Code(err) != codes.Unavailable || time.Since(begun) != 30*ms || len(call.list()) != 1 {
			t.Errorf("got %v after %v and %d attempts", err, time.Since(begun), len(call.list()))
		}
	})
}
