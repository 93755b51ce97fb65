package policy

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// naiveBudget remembers each call and each retry with its time.
type naiveBudget struct {
	Budget
	calls, retries []int64
}

func since(times []int64, start int64) (n float64) {
	for _, at := range times {
		if at > start {
			n++
		}
	}
	return n
}

// room is how many more retries could be given if the calls of one window and the
// retries of another, both ending now, are weighed.
func (n *naiveBudget) room(now, callWindow, retryWindow int64) float64 {
	return math.Floor(n.Ratio*since(n.calls, now-callWindow)+n.MinPerSecond*n.Window.Seconds()+1e-9) -
		since(n.retries, now-retryWindow)
}

// TestBudgetKeepsItsPromise: a retry that is given fits into the window that ends
// then, to the nanosecond; one that is refused would not fit if calls counted a
// slice less long, and retries a slice longer.
func TestBudgetKeepsItsPromise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Budget{
			Ratio:        rapid.SampledFrom([]float64{0, 0.1, 0.2, 0.29, 0.5, 1}).Draw(t, "ratio"),
			MinPerSecond: rapid.SampledFrom([]float64{0, 0.3, 1, 5}).Draw(t, "min"),
			Window:       time.Duration(rapid.SampledFrom([]int{100, 1000, 10_000}).Draw(t, "window")) * time.Millisecond,
		}
		budget, naive := NewRetryBudget(b), &naiveBudget{Budget: b}
		now, window := int64(0), int64(b.Window)
		slice := window / budgetSlices
		given, refused := uint64(0), uint64(0)
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			now += rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, slice), rapid.Int64Range(0, window/3), rapid.Int64Range(0, 3*window)).Draw(t, "later")
			if rapid.IntRange(0, 2).Draw(t, "what") > 0 {
				for hint := range rapid.IntRange(1, 4).Draw(t, "calls") {
					budget.Call(now, uint64(hint))
					naive.calls = append(naive.calls, now)
				}
				continue
			}
			if budget.Take(now) {
				given++
				if naive.room(now, window, window) < 1 {
					t.Fatalf("a retry beyond the budget at %v", time.Duration(now))
				}
				naive.retries = append(naive.retries, now)
			} else {
				refused++
				if naive.room(now, window-slice, window+slice) >= 1 {
					t.Fatalf("a retry within the budget is refused at %v", time.Duration(now))
				}
			}
		}
		if use := budget.Use(now); use.Taken != given || use.Refused != refused {
			t.Fatalf("%+v, want %d and %d", use, given, refused)
		}
	})
}

func TestBudgetEdges(t *testing.T) {
	take := func(r *RetryBudget, now int64) (n int) {
		for r.Take(now) {
			n++
		}
		return n
	}
	if n := take(NewRetryBudget(Budget{Window: time.Second}), 0); n != 0 {
		t.Errorf("%d retries of nothing", n)
	}
	if NewRetryBudget(Budget{}).Take(0) {
		t.Error("a retry of the zero budget")
	}
	r := NewRetryBudget(Budget{Ratio: 0.29, MinPerSecond: 0, Window: time.Second})
	for range 100 {
		r.Call(5, 0)
	}
	if n := take(r, 5); n != 29 {
		t.Errorf("%d retries, want 29 of 100", n)
	}
	// Long after, all is forgotten.
	if use := r.Use(int64(time.Hour)); use.Calls != 0 || use.Retries != 0 || use.Taken != 29 {
		t.Errorf("after an hour %+v", use)
	}
	// A writer who is late by more than a window counts nowhere, in no other's slice.
	r.Call(int64(time.Hour), 0)
	r.Call(6, 0)
	if use := r.Use(int64(time.Hour)); use.Calls != 1 {
		t.Errorf("with a late call %+v", use)
	}
	// A reader who is a little late takes what is there.
	if use := r.Use(int64(time.Hour) - 1); use.Calls != 1 {
		t.Errorf("a moment before %+v", use)
	}
}

// TestBudgetSlices: calls count for a little less than a window, retries for a little
// more, to the nanosecond.
func TestBudgetSlices(t *testing.T) {
	const slice, window = int64(time.Second), budgetSlices * int64(time.Second)
	b := Budget{Ratio: 1, Window: time.Duration(window)}
	for _, c := range []struct{ now, calls int64 }{{window - 1, 1}, {window, 0}, {window + slice - 1, 0}} {
		r := NewRetryBudget(b)
		r.Call(slice-1, 0)
		if use := r.Use(c.now); use.Calls != uint64(c.calls) {
			t.Errorf("at %v: %+v, want %d calls", time.Duration(c.now), use, c.calls)
		}
	}
	b = Budget{MinPerSecond: 1.0 / budgetSlices, Window: time.Duration(window)}
	for _, c := range []struct {
		now  int64
		want bool
	}{{slice, false}, {window + slice - 1, false}, {window + slice, true}} {
		r := NewRetryBudget(b)
		if !r.Take(slice - 1) {
			t.Fatal("the first retry is refused")
		}
		if got := r.Take(c.now); got != c.want {
			t.Errorf("another at %v: %v", time.Duration(c.now), got)
		}
	}
	// One whose time is behind another's counts as well.
	b.MinPerSecond = 1
	r := NewRetryBudget(b)
	r.Take(5 * slice)
	r.Take(3 * slice)
	for _, now := range []int64{3, 5, 24} {
		if use := r.Use(now * slice); use.Retries != 2 {
			t.Errorf("in slice %d: %+v", now, use)
		}
	}
}

func TestBudgetConfigure(t *testing.T) {
	b := Budget{Ratio: 0.5, Window: 10 * time.Second}
	now := int64(time.Minute)
	fill := func() *RetryBudget {
		r := NewRetryBudget(b)
		for i := range uint64(100) {
			r.Call(now, i)
		}
		for range 20 {
			r.Take(now)
		}
		return r
	}
	for _, c := range []struct {
		name   string
		change func(*Budget)
		want   BudgetUse
	}{
		{"another ratio", func(b *Budget) { b.Ratio = 0.1 }, BudgetUse{Calls: 100, Retries: 20, Allowed: 10, Taken: 20}},
		{"a longer window", func(b *Budget) { b.Window = time.Minute }, BudgetUse{Calls: 100, Retries: 20, Allowed: 50, Taken: 20}},
		{"a shorter window", func(b *Budget) { b.Window = time.Second }, BudgetUse{Calls: 10, Retries: 2, Allowed: 5, Taken: 20}},
	} {
		r, next := fill(), b
		c.change(&next)
		r.Configure(now, next)
		if use := r.Use(now); use != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, use, c.want)
		}
		if r.Use(now+2*int64(next.Window)).Calls != 0 {
			t.Errorf("%s: calls stay for ever", c.name)
		}
	}
}

// TestBudgetUnderStress: many goroutines at once get no more retries than one would,
// and no fewer.
func TestBudgetUnderStress(t *testing.T) {
	const calls, workers, window = 200_000, 8, 10 * time.Second
	r := NewRetryBudget(Budget{Ratio: 0.1, MinPerSecond: 1, Window: window})
	for i := range uint64(calls) {
		r.Call(int64(window), i)
	}
	var given atomic.Int64
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for i := range 4000 {
				now := int64(window) + int64(i)*int64(time.Microsecond) // within the window
				if r.Take(now) {
					given.Add(1)
				}
				if worker == 0 && i%10 == 0 {
					r.Configure(now, Budget{Ratio: 0.1, MinPerSecond: 1, Window: window})
				}
			}
		})
	}
	group.Wait()
	if got := given.Load(); got != calls/10+10 {
		t.Errorf("%d retries, want %d", got, calls/10+10)
	}
}

// TestBudgetCountsEachCall also of those that come in the first instant of a slice.
func TestBudgetCountsEachCall(t *testing.T) {
	const slice, workers = int64(time.Second), 2
	for range 50 {
		r := NewRetryBudget(Budget{Ratio: 1, Window: budgetSlices * time.Duration(slice)})
		for s := range int64(2 * budgetSlices) { // the second time each slot is taken over
			if s == budgetSlices {
				if use := r.Use((s - 1) * slice); use.Calls != workers*budgetSlices {
					t.Fatalf("%d calls, want %d", use.Calls, workers*budgetSlices)
				}
			}
			together(workers, func() { r.Call(s*slice, 0) })
		}
		if use := r.Use((2*budgetSlices - 1) * slice); use.Calls != workers*budgetSlices {
			t.Fatalf("%d calls, want %d", use.Calls, workers*budgetSlices)
		}
	}
}

// together calls fn on so many goroutines as nearly at once as can be.
func together(n int, fn func()) {
	var ready atomic.Int64
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			ready.Add(1)
			for spins := 1; ready.Load() < int64(n); spins++ {
				if spins%10_000 == 0 {
					runtime.Gosched()
				}
			}
			fn()
		})
	}
	group.Wait()
}

func TestBudgetCallCostsNothing(t *testing.T) {
	r := NewRetryBudget(Default().Retry.Budget)
	now := int64(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += int64(time.Millisecond)
		r.Call(now, 0)
	}); n != 0 {
		t.Errorf("%v allocations for a call", n)
	}
	for r.Take(now) {
	}
	if n := testing.AllocsPerRun(100, func() { r.Take(now) }); n != 0 {
		t.Errorf("%v allocations for a refusal", n)
	}
}

func BenchmarkBudgetCall(b *testing.B) {
	r := NewRetryBudget(Default().Retry.Budget)
	b.Run("serial", func(b *testing.B) {
		now := int64(0)
		for b.Loop() {
			now += 1000
			r.Call(now, 0)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		var workers atomic.Uint64
		b.RunParallel(func(pb *testing.PB) {
			now, hint := int64(0), workers.Add(1)
			for pb.Next() {
				now += 1000
				r.Call(now, hint)
			}
		})
	})
}

func BenchmarkBudgetTake(b *testing.B) {
	b.Run("given", func(b *testing.B) {
		r := NewRetryBudget(Budget{MinPerSecond: math.MaxInt32, Window: time.Second})
		for b.Loop() {
			r.Take(0)
		}
	})
	b.Run("refused", func(b *testing.B) {
		r := NewRetryBudget(Budget{Window: time.Second})
		for b.Loop() {
			r.Take(0)
		}
	})
}
