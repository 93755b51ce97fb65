package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-dev/holdfast/internal/breaker"
	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

func TestBreakerOpensAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		f.fail(5)
		call := &scripted{method: postMethod, steps: []step{{}}}
		err := f.call(t.Context(), call)
		var r *Rejection
		if !errors.As(err, &r) || !errors.Is(err, BreakerOpen) || !errors.Is(err, Rejected) || len(call.list()) > 0 {
			t.Fatalf("got %v after %d attempts", err, len(call.list()))
		}
		if want := (Rejection{Reason: BreakerOpen, Dependency: "store", Target: postMethod, RetryAfter: 5 * time.Second, Code: codes.Unavailable}); *r != want {
			t.Errorf("got %+v", *r)
		}
		if s := f.stats(postMethod); s.Calls != 6 || s.Attempts != 5 || s.Rejected[BreakerOpen] != 1 || s.Results[breaker.Failure] != 5 || s.Breaker.State != breaker.Open {
			t.Errorf("counted %+v", s)
		}
		if s := f.stats(putMethodOf(f)); s.Breaker.State != breaker.Closed {
			t.Errorf("another target is %v", s.Breaker.State)
		}
		pass(5 * time.Second)
		// Nobody has called: what is shown changes, and nothing else.
		if s := f.stats(postMethod); s.Breaker.State != breaker.HalfOpen || s.Transitions[breaker.HalfOpen] != 0 {
			t.Errorf("shows %v", s.Breaker.State)
		}
		for range 100 {
			_ = f.call(t.Context(), &scripted{method: postMethod, steps: []step{{}}})
			pass(50 * ms)
		}
		want := []breaker.State{breaker.Open, breaker.HalfOpen, breaker.Recovering, breaker.Closed}
		if got := f.states(); !slices.Equal(got, want) {
			t.Errorf("was %v", got)
		}
		if s := f.stats(postMethod); s.Transitions != [7]uint64{1, 0, 1, 0, 1, 1, 0} {
			t.Errorf("counted %v", s.Transitions)
		}
	})
}

// putMethodOf calls a method well and returns it.
func putMethodOf(f *fixture) string {
	_ = f.call(f.Context(), attempts(codes.OK))
	return putMethod
}

// Rejections of about the same time share an error, which never tells less time
// than there is, and hardly more.
func TestRejectionsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		f.fail(5)
		begun, last, changes := time.Now(), error(nil), 0
		for time.Since(begun) < 5*time.Second {
			err := f.call(t.Context(), &scripted{method: postMethod, steps: []step{{}}})
			var r *Rejection
			if !errors.As(err, &r) {
				t.Fatal(err)
			}
			if left := 5*time.Second - time.Since(begun); r.RetryAfter < left || r.RetryAfter > left+max(left/8, ms) {
				t.Fatalf("%v is left, told %v", left, r.RetryAfter)
			}
			if err != last { //nolint:errorlint // the same value
				changes++
			}
			last = err
			pass(ms / 4)
		}
		if changes < 10 || changes > 100 {
			t.Errorf("made %d errors of 20,000", changes)
		}
		f.fail(1) // the probe
		if _, err := f.target(postMethod).Admit(t.Context(), f.target(postMethod).Now()); true {
			if r, ok := errors.AsType[*Rejection](err); !ok || r.RetryAfter != 10*time.Second {
				t.Errorf("open for longer: %v", err)
			}
		}
	})
}

func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) { p.CircuitBreaker.ProbeTimeout = time.Second })
		f.fail(5)
		pass(5 * time.Second)
		// It has its own time, after which it has failed.
		probe := &scripted{method: postMethod, steps: []step{{took: time.Hour}}}
		if err := f.call(t.Context(), probe); status.Code(err) != codes.DeadlineExceeded || probe.list()[0].left != time.Second {
			t.Errorf("got %v in %v", err, probe.list()[0].left)
		}
		if got := f.states(); !slices.Equal(got, []breaker.State{breaker.Open, breaker.HalfOpen, breaker.Open}) {
			t.Errorf("was %v", got)
		}
		pass(10 * time.Second)
		// One that pays no attention to its time lapses; it wedges nothing.
		go func() {
			_ = f.call(t.Context(), &scripted{method: postMethod, steps: []step{{took: time.Hour, deaf: true}}})
		}()
		synctest.Wait()
		if err := f.call(t.Context(), &scripted{method: postMethod, steps: []step{{}}}); !errors.Is(err, BreakerOpen) {
			t.Errorf("a second probe: %v", err)
		}
		pass(time.Second + 20*time.Second)
		for range 2 {
			if err := f.call(t.Context(), &scripted{method: postMethod, steps: []step{{}}}); err != nil && !errors.Is(err, BreakerOpen) {
				t.Error(err)
			}
			pass(20 * time.Second)
		}
		if s := f.stats(postMethod); s.Breaker.State == breaker.Open {
			t.Errorf("still %+v", s.Breaker)
		}
		pass(time.Hour)
	})
}

// A caller's short deadline says nothing about the dependency, or a probe under it
// would keep the breaker open for ever.
func TestUnfairTimeoutsAreNeutral(t *testing.T) {
	for name, c := range map[string]struct {
		policy func(*policy.Policy)
		left   time.Duration
		class  breaker.Class
	}{
		"short":                         {left: 99 * ms, class: breaker.Neutral},
		"long enough":                   {left: 100 * ms, class: breaker.Failure},
		"shorter than slow":             {policy: func(p *policy.Policy) { p.CircuitBreaker.SlowAfter = time.Second }, left: 999 * ms, class: breaker.Neutral},
		"as long as slow":               {policy: func(p *policy.Policy) { p.CircuitBreaker.SlowAfter = time.Second }, left: time.Second, class: breaker.Failure},
		"slow is short":                 {policy: func(p *policy.Policy) { p.CircuitBreaker.SlowAfter = 10 * ms }, left: 10 * ms, class: breaker.Failure},
		"the policy gives little":       {policy: func(p *policy.Policy) { p.Timeouts.Call = 50 * ms }, left: 50 * ms, class: breaker.Failure},
		"the policy gives all of that":  {policy: func(p *policy.Policy) { p.Timeouts.Call = 50 * ms }, left: -1, class: breaker.Failure},
		"less than half of that":        {policy: func(p *policy.Policy) { p.Timeouts.Call = 50 * ms }, left: 24 * ms, class: breaker.Neutral},
		"the policy gives attempts few": {policy: func(p *policy.Policy) { p.Timeouts.PerAttempt, p.Retry.MaxAttempts = 20*ms, 1 }, left: -1, class: breaker.Failure},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, c.policy)
				if err := f.call(until(t, c.left), &scripted{steps: []step{{took: time.Hour}}}); status.Code(err) != codes.DeadlineExceeded {
					t.Fatal(err)
				}
				if s := f.stats(putMethod); s.Results[c.class] != 1 || s.Timeouts != 1 || s.TimeoutTime == 0 || (s.Breaker.Counts.Failures == 1) != (c.class == breaker.Failure) {
					t.Errorf("counted %+v", s)
				}
			})
		})
	}
}

// A timeout that comes as something else is one all the same.
func TestUnfairTimeoutsInDisguise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		timeout := step{code: codes.Unknown, do: func(ctx context.Context) { <-ctx.Done() }}
		for _, ctx := range []context.Context{until(t, 50*ms), WithHop(until(t, 60*ms))} {
			_ = f.call(ctx, &scripted{method: postMethod, steps: []step{timeout}})
		}
		_ = f.call(until(t, time.Second), &scripted{method: postMethod, steps: []step{timeout}})
		if s := f.stats(postMethod); s.Results[breaker.Neutral] != 2 || s.Results[breaker.Failure] != 1 {
			t.Errorf("counted %v", s.Results)
		}
	})
}

func TestClasses(t *testing.T) {
	classified := func(c breaker.Class) *Result { return &Result{Class: c, Classified: true} }
	cases := map[string]struct {
		step   step
		cancel bool // by the caller, while it runs
		class  breaker.Class
	}{
		"cancelled by the caller":               {step: step{took: time.Second}, cancel: true, class: breaker.Neutral},
		"cancelled, told as something else":     {step: step{code: codes.Unavailable}, cancel: true, class: breaker.Neutral},
		"cancelled, classified":                 {step: step{code: codes.Unknown, result: classified(breaker.Failure)}, cancel: true, class: breaker.Neutral},
		"cancelled, but it came back well":      {step: step{}, cancel: true, class: breaker.Success},
		"cancelled by the server":               {step: step{code: codes.Canceled}, class: breaker.Neutral},
		"own rejection":                         {step: step{err: fmt.Errorf("inside: %w", &Rejection{Reason: BreakerOpen, Code: codes.Unavailable})}, class: breaker.Neutral},
		"own rejection, classified":             {step: step{err: &Rejection{Reason: BulkheadFull, Code: codes.Unavailable}, result: classified(breaker.Failure)}, class: breaker.Neutral},
		"deadline of the server":                {step: step{code: codes.DeadlineExceeded}, class: breaker.Failure},
		"classified as failure":                 {step: step{code: codes.NotFound, result: classified(breaker.Failure)}, class: breaker.Failure},
		"classified as success":                 {step: step{code: codes.Internal, result: classified(breaker.Success)}, class: breaker.Success},
		"classified as slow":                    {step: step{result: classified(breaker.Slow)}, class: breaker.Slow},
		"classified as neutral":                 {step: step{code: codes.Internal, result: classified(breaker.Neutral)}, class: breaker.Neutral},
		"classified as overload":                {step: step{code: codes.Internal, result: classified(breaker.Overload)}, class: breaker.Overload},
		"a code beyond gRPC's, as of a mistake": {step: step{code: 99}, class: breaker.Success},
	}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		c := cases[code.String()]
		c.step.code = code
		switch code {
		case codes.Unknown, codes.DeadlineExceeded, codes.Internal, codes.Unavailable, codes.DataLoss:
			c.class = breaker.Failure
		case codes.ResourceExhausted:
			c.class = breaker.Overload
		case codes.Canceled, codes.Unimplemented:
			c.class = breaker.Neutral
		default:
			c.class = breaker.Success
		}
		cases[code.String()] = c
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, nil)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.cancel {
					c.step.do = func(context.Context) { cancel() }
				}
				_ = f.call(ctx, &scripted{method: postMethod, steps: []step{c.step}})
				var want [5]uint64
				want[c.class] = 1
				s := f.stats(postMethod)
				if s.Results != want || s.Calls != 1 {
					t.Errorf("counted %+v", s)
				}
				b, failures := s.Breaker.Counts, uint64(0)
				if c.class == breaker.Failure {
					failures = 1
				}
				if b.Failures != failures || (b.Neutral == 1) != (c.class == breaker.Neutral) || (b.Overload == 1) != (c.class == breaker.Overload) {
					t.Errorf("the breaker counted %+v", b)
				}
			})
		})
	}
}

// What counts as a failure is the policy's to say.
func TestFailureCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) {
			p.CircuitBreaker.FailureCodes = 1<<codes.ResourceExhausted | 1<<codes.NotFound | 1<<codes.Canceled
		})
		for _, code := range []codes.Code{codes.ResourceExhausted, codes.NotFound, codes.Canceled, codes.Unavailable} {
			_ = f.call(t.Context(), &scripted{method: postMethod, steps: []step{{code: code}}})
		}
		_ = f.call(until(t, time.Second), &scripted{method: postMethod, steps: []step{{took: time.Hour}}})
		if s := f.stats(postMethod); s.Results != [5]uint64{breaker.Failure: 3, breaker.Success: 1, breaker.Neutral: 1} {
			t.Errorf("counted %v", s.Results)
		}
	})
}

// A server that says when to come back is left alone for as long, if that is at least
// as long as the breaker would be open.
func TestPushBackOpens(t *testing.T) {
	for name, c := range map[string]struct {
		step step
		open time.Duration
	}{
		"long":               {step{code: codes.Unavailable, result: &Result{PushedBack: true, PushBack: 30 * time.Second}}, 30 * time.Second},
		"just as long":       {step{code: codes.Unavailable, result: &Result{PushedBack: true, PushBack: 5 * time.Second}}, 5 * time.Second},
		"too long":           {step{code: codes.Unavailable, result: &Result{PushedBack: true, PushBack: time.Hour}}, time.Minute},
		"short":              {step{code: codes.Unavailable, result: &Result{PushedBack: true, PushBack: 4999 * ms}}, 0},
		"of one's own quota": {step{code: codes.ResourceExhausted, result: &Result{PushedBack: true, PushBack: 30 * time.Second}}, 0},
		"not said":           {step{code: codes.Unavailable, result: &Result{PushBack: 30 * time.Second}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, nil)
				_ = f.call(t.Context(), &scripted{method: postMethod, steps: []step{c.step}})
				if s := f.stats(postMethod); s.Breaker.OpenFor != c.open || c.open > 0 && f.events[0].Reason != breaker.Ordered {
					t.Errorf("is %v for %v", s.Breaker.State, s.Breaker.OpenFor)
				}
			})
		})
	}
}

// A call that does not come back the usual way is a failure, and gives back what it
// has taken.
func TestPanicAndGoexit(t *testing.T) {
	for name, last := range map[string]step{"panic": {panics: "broken"}, "exit": {exits: true}} {
		for _, attempt := range []int{1, 2} {
			t.Run(fmt.Sprint(name, " in attempt ", attempt), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t, func(p *policy.Policy) { p.CircuitBreaker.FailureThreshold = attempt })
					call := &scripted{steps: []step{last}}
					if attempt == 2 {
						call.steps = []step{{code: codes.Unavailable}, last}
					}
					var got any
					done := make(chan struct{})
					go func() {
						defer close(done)
						defer func() { got = recover() }()
						_ = f.call(t.Context(), call)
					}()
					<-done
					if got != last.panics {
						t.Errorf("the panic is %v", got)
					}
					d, s := f.Stats().Dependencies[0], f.stats(putMethod)
					if d.InUse != 0 || s.Results[breaker.Failure] != uint64(attempt) || s.Breaker.State != breaker.Open {
						t.Errorf("counted %+v of %+v", s, d)
					}
					if call.list()[attempt-1].ctx.Err() == nil {
						t.Error("the context goes on")
					}
					pass(5 * time.Second)
					if err := f.call(t.Context(), attempts(codes.OK)); err != nil {
						t.Errorf("the probe: %v", err)
					}
				})
			})
		}
	}
}

// A dependency whose good answers take longer than a first probe may must not stay
// open for ever.
func TestSlowDependencyRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(p *policy.Policy) { p.Timeouts.Call = 15 * time.Second })
		f.fail(5)
		for begun := time.Now(); time.Since(begun) < 3*time.Minute; pass(time.Second) {
			_ = f.call(t.Context(), &scripted{method: postMethod, steps: []step{{took: 8 * time.Second}}})
		}
		if s := f.stats(postMethod).Breaker; s.State != breaker.Closed {
			t.Errorf("is %v", s.State)
		}
	})
}

// A probe has a context of its own, whose end says nothing about who ended it.
func TestProbeThatPanicsHasFailed(t *testing.T) {
	for name, last := range map[string]step{"panic": {panics: "broken"}, "exit": {exits: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, nil)
				f.fail(5)
				pass(5 * time.Second)
				done := make(chan struct{})
				go func() {
					defer close(done)
					defer func() { _ = recover() }()
					_ = f.call(t.Context(), &scripted{method: postMethod, steps: []step{last}})
				}()
				<-done
				if s := f.stats(postMethod); s.Breaker.State != breaker.Open || s.Breaker.OpenFor != 10*time.Second || s.Results[breaker.Failure] != 6 {
					t.Errorf("counted %+v", s)
				}
			})
		})
	}
}

func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		held := func(open bool, override string) said {
			return said{holds: map[string]flags.Hold{"store": {Dependency: "store", Open: open, Override: override}}}
		}
		call := func() error { return f.call(t.Context(), &scripted{method: postMethod, steps: []step{{}}}) }
		refused := func(by string) {
			t.Helper()
			err := call()
			var r *Rejection
			if !errors.As(err, &r) || r.Reason != BreakerOpen || r.By != by || r.RetryAfter != 0 {
				t.Errorf("got %v", err)
			}
		}
		if err := call(); err != nil {
			t.Fatal(err)
		}
		f.apply(held(true, "x"))
		f.apply(held(true, "x"))
		refused("override/x")
		if target := f.target(readMethod); target.Now().Hold.Override != "x" {
			t.Error("a target that is new is not held")
		} else if err := target.Call(t.Context(), target.Now(), attempts(codes.OK)); !errors.Is(err, BreakerOpen) {
			t.Errorf("a target that is new: %v", err)
		}
		f.apply(held(true, "local override"))
		refused("local override")
		// A policy that only observes does not let held calls pass.
		f.policy.Enforcement = policy.Observe
		f.apply(held(true, "x"))
		refused("override/x")
		f.policy.Enforcement = policy.Enforce
		f.apply(held(false, "y"))
		f.fail(20)
		f.apply(said{})
		if s := f.stats(postMethod); s.Breaker.State != breaker.Closed || s.Breaker.Counts.Failures != 20 {
			t.Errorf("released, it is %+v", s.Breaker)
		}
		f.apply(said{})
		var got []string
		for _, e := range f.events {
			if e.Target == postMethod {
				got = append(got, e.To.String()+" by "+e.By)
			}
		}
		if want := []string{"forced open by override/x", "forced closed by override/y", "closed by override/y"}; !slices.Equal(got, want) {
			t.Errorf("told %q", got)
		}
	})
}

// Others than who forced it have no part in what a breaker does by itself.
func TestEventsNameTheHolderOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		f.fail(5)
		if e := f.events[0]; e.By != "" || e.Dependency != "store" || e.Target != postMethod || e.Wall != time.Now() || e.From != breaker.Closed ||
			e.To != breaker.Open || e.Counts.Failures != 5 || e.OpenFor != 5*time.Second || e.Reason != breaker.TooManyFailures {
			t.Errorf("told %+v", e)
		}
	})
}

// A call that began under a hold makes a breaker a probe that was let go meanwhile.
func TestHolderOfThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		target := f.target(postMethod)
		f.apply(said{holds: map[string]flags.Hold{"store": {Dependency: "store", Open: true, Override: "x"}}})
		old := target.Now()
		f.apply(said{})
		if err := target.Call(t.Context(), old, attempts(codes.OK)); err != nil {
			t.Fatal(err)
		}
		if e := f.events[2]; e.To != breaker.HalfOpen || e.By != "" {
			t.Errorf("told %+v", e)
		}
	})
}

// Who listens may use the guard, and his panics end with him.
func TestListener(t *testing.T) {
	var lines bytes.Buffer
	var g *Guard
	told := 0
	g = New(Config{Clock: clock.Manual(time.Unix(0, 0)), Logger: slog.New(slog.NewTextHandler(&lines, nil)), OnEvent: func(BreakerEvent) {
		told++
		g.Stats()
		g.Apply(said{})
		g.Dependency("new").Target("new", Operation)
		panic("deaf")
	}})
	held := func(open bool) said {
		return said{holds: map[string]flags.Hold{"store": {Dependency: "store", Open: open, Override: "x"}}}
	}
	g.Dependency("store").Target(postMethod, Method)
	g.Apply(held(true)) // which the listener takes back, and hears of that
	if told != 2 {
		t.Errorf("told %d times", told)
	}
	log := lines.String()
	if n := strings.Count(log, "circuit breaker changed"); n != 2 || strings.Count(log, "panic=deaf") != 2 {
		t.Errorf("%d lines:\n%s", n, log)
	}
	for _, want := range []string{`level=WARN msg="circuit breaker changed"`, `to="forced open"`, "dependency=store", "target=" + postMethod, "by=override/x", "reason=forced"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in\n%s", want, log)
		}
	}
}
