package guard

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-dev/holdfast/internal/clock"
	"github.com/holdfast-dev/holdfast/internal/flags"
	"github.com/holdfast-dev/holdfast/internal/policy"
)

// instant is a call that ends at once.
type instant struct{ code codes.Code }

func (instant) Invoke(context.Context, int) error      { return nil }
func (i instant) Result(context.Context, error) Result { return Result{Code: i.code} }
func (instant) Twin() Invocation                       { return nil }
func (instant) Adopt(Invocation)                       {}

// measured is a target to measure, and a context in which the policy adds no
// deadline to calls.
func measured(tb testing.TB, coarse bool, change func(*policy.Policy)) (*Target, context.Context) {
	tb.Helper()
	g := New(Config{Clock: clock.New(), Coarse: coarse, Seed: 1})
	tb.Cleanup(g.Close)
	p := policy.Default()
	if change != nil {
		change(&p)
	}
	g.Apply(said{policies: map[string]policy.Policy{"store": p}})
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	tb.Cleanup(cancel)
	return g.Dependency("store").Target(putMethod, Method), ctx
}

func unbounded(p *policy.Policy) { p.Timeouts.Call = 0 }

func benchmark(b *testing.B, t *Target, ctx context.Context, call Invocation) { //nolint:revive // the benchmark comes first
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		_ = t.Call(ctx, t.Now(), call)
	}
}

func benchmarkParallel(b *testing.B, t *Target, ctx context.Context, call Invocation) { //nolint:revive // the benchmark comes first
	b.Helper()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_ = t.Call(ctx, t.Now(), call)
		}
	})
}

// The caller has a deadline that holds, or nobody has one.
func BenchmarkCall(b *testing.B) {
	t, ctx := measured(b, false, unbounded)
	benchmark(b, t, ctx, instant{})
}

func BenchmarkCallNoDeadline(b *testing.B) {
	t, _ := measured(b, false, unbounded)
	benchmark(b, t, context.Background(), instant{})
}

func BenchmarkCallParallel(b *testing.B) {
	t, ctx := measured(b, false, unbounded)
	benchmarkParallel(b, t, ctx, instant{})
}

// A call that might be hedged, and is over before.
func BenchmarkCallHedged(b *testing.B) {
	t, ctx := measured(b, false, hedging)
	benchmark(b, t.dependency.Target(readMethod, Method), ctx, instant{})
}

// The policy's deadline needs a context of its own.
func BenchmarkCallWithDeadline(b *testing.B) {
	t, _ := measured(b, false, nil)
	benchmark(b, t, context.Background(), instant{})
}

func BenchmarkCallCoarse(b *testing.B) {
	t, ctx := measured(b, true, unbounded)
	benchmark(b, t, ctx, instant{})
}

func BenchmarkCallCoarseParallel(b *testing.B) {
	t, ctx := measured(b, true, unbounded)
	benchmarkParallel(b, t, ctx, instant{})
}

func BenchmarkCallObserved(b *testing.B) {
	t, ctx := measured(b, false, func(p *policy.Policy) { p.Enforcement = policy.Observe })
	benchmark(b, t, ctx, instant{})
}

// A call that fails and is not repeated.
func BenchmarkCallFails(b *testing.B) {
	t, ctx := measured(b, false, func(p *policy.Policy) {
		unbounded(p)
		p.CircuitBreaker.FailureThreshold, p.CircuitBreaker.FailureRatio = 0, 0
	})
	benchmark(b, t, ctx, instant{codes.Internal})
}

func rejecting(tb testing.TB, coarse, held bool) (*Target, context.Context) {
	tb.Helper()
	t, ctx := measured(tb, coarse, func(p *policy.Policy) { p.CircuitBreaker.Timeout, p.CircuitBreaker.MaxTimeout = time.Hour, time.Hour })
	for range 5 {
		_ = t.Call(ctx, t.Now(), instant{codes.Internal})
	}
	if held {
		t.dependency.guard.Apply(said{holds: map[string]flags.Hold{"store": {Dependency: "store", Open: true, Override: "x"}}})
	}
	return t, ctx
}

func BenchmarkRejected(b *testing.B) {
	t, ctx := rejecting(b, false, false)
	benchmark(b, t, ctx, instant{})
}

func BenchmarkRejectedCoarse(b *testing.B) {
	t, ctx := rejecting(b, true, false)
	benchmark(b, t, ctx, instant{})
}

func BenchmarkRejectedParallel(b *testing.B) {
	t, ctx := rejecting(b, false, false)
	benchmarkParallel(b, t, ctx, instant{})
}

func BenchmarkAdmitRejected(b *testing.B) {
	t, ctx := rejecting(b, false, false)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = t.Admit(ctx, t.Now())
	}
}

// What the fleet's verdict costs: nothing where nothing is wrong, since it is part of the
// state that each call looks at anyway.
func BenchmarkFleet(b *testing.B) {
	suspecting := func(p *policy.Policy) {
		unbounded(p)
		p.CircuitBreaker.FailureThreshold, p.CircuitBreaker.FailureRatio, p.Fleet.VetoSuccesses = 0, 0, 1000
	}
	for _, c := range []struct {
		name    string
		change  func(*policy.Policy)
		verdict FleetVerdict
		call    instant
		fails   int // before
	}{
		{"call/without", unbounded, FleetVerdict{}, instant{}, 0},
		{"call/verdict", unbounded, believed(false), instant{}, 0},
		{"call/advised", unbounded, FleetVerdict{Mode: policy.FleetAdvise}, instant{}, 2},
		{"failure/without", suspecting, FleetVerdict{}, instant{codes.Internal}, 0},
		{"failure/verdict", func(p *policy.Policy) { suspecting(p); p.Fleet.SuspicionThreshold = 1 << 40 }, believed(false), instant{codes.Internal}, 0},
		{"rejected/hearsay", suspecting, believed(false), instant{codes.Internal}, 2},
	} {
		b.Run(c.name, func(b *testing.B) {
			t, ctx := measured(b, false, c.change)
			t.dependency.Heed(c.verdict)
			for range c.fails {
				_ = t.Call(ctx, t.Now(), instant{codes.Internal})
			}
			benchmark(b, t, ctx, c.call)
		})
	}
}

// What it costs to look at what was seen of a dependency of so many targets.
func BenchmarkEvidence(b *testing.B) {
	for _, targets := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(targets), func(b *testing.B) {
			t, _ := measured(b, false, nil)
			for n := range targets - 1 {
				t.dependency.Target(fmt.Sprint(n), Operation)
			}
			b.ReportAllocs()
			for b.Loop() {
				t.dependency.Evidence()
			}
		})
	}
}

func BenchmarkAdmitDone(b *testing.B) {
	t, ctx := measured(b, false, nil)
	b.ReportAllocs()
	for b.Loop() {
		p, _ := t.Admit(ctx, t.Now())
		p.Done(Result{}, 0)
	}
}

func TestAllocations(t *testing.T) {
	plain, ctx := measured(t, false, unbounded)
	coarse, _ := measured(t, true, unbounded)
	open, _ := rejecting(t, false, false)
	held, _ := rejecting(t, false, true)
	observed, _ := measured(t, false, func(p *policy.Policy) { p.Enforcement = policy.Observe })
	deadline, _ := measured(t, false, nil)
	listening, _ := measured(t, false, unbounded)
	listening.dependency.guard.config.OnSuspicion = func(*Dependency) {}
	heard, _ := measured(t, false, func(p *policy.Policy) { unbounded(p); p.Fleet.Canary = 0 })
	heard.dependency.Heed(believed(false))
	for range 2 {
		_ = heard.Call(ctx, heard.Now(), instant{codes.Internal})
	}
	told, _ := measured(t, false, func(p *policy.Policy) {
		unbounded(p)
		p.CircuitBreaker.FailureThreshold, p.CircuitBreaker.FailureRatio, p.Fleet.SuspicionThreshold = 0, 0, 1<<40
	})
	told.dependency.Heed(believed(false))
	own := testing.AllocsPerRun(1000, func() {
		_, cancel := context.WithDeadline(context.Background(), time.Now().Add(time.Hour))
		cancel()
	})
	for name, c := range map[string]struct {
		target *Target
		ctx    context.Context //nolint:containedctx // of a row
		call   Invocation
		allocs float64
	}{
		"call":                   {plain, ctx, instant{}, 0},
		"no deadline":            {plain, context.Background(), instant{}, 0},
		"coarse":                 {coarse, ctx, instant{}, 0},
		"failure":                {plain, ctx, instant{codes.NotFound}, 0},
		"rejected":               {open, ctx, instant{}, 0},
		"a verdict":              {told, ctx, instant{}, 0},
		"failure in spite of it": {told, ctx, instant{codes.Internal}, 0},
		"listening":              {listening, ctx, instant{}, 0},
		"hearsay":                {heard, ctx, instant{}, 0},
		"held open":              {held, ctx, instant{}, 0},
		"observed":               {observed, context.Background(), instant{}, 0},
		"the policy's deadline":  {deadline, context.Background(), instant{}, own},
	} {
		if n := testing.AllocsPerRun(1000, func() { _ = c.target.Call(c.ctx, c.target.Now(), c.call) }); n != c.allocs {
			t.Errorf("%s: %v allocations, want %v", name, n, c.allocs)
		}
	}
	if n := testing.AllocsPerRun(1000, func() {
		p, _ := plain.Admit(ctx, plain.Now())
		p.Done(Result{}, 0)
	}); n != 0 {
		t.Errorf("a permit: %v allocations", n)
	}
}
