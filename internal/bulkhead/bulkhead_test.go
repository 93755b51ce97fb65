package bulkhead

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-dev/holdfast/internal/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func queueing(places, queue int, wait time.Duration) policy.Bulkhead {
	return policy.Bulkhead{MaxConcurrent: places, MaxQueue: queue, MaxWait: wait}
}

// call is a call that waits in the background.
type call struct{ err chan error }

func acquire(ctx context.Context, b *Bulkhead, weight int, p Priority) call {
	c := call{make(chan error, 1)}
	go func() { c.err <- b.Acquire(ctx, weight, p) }()
	synctest.Wait()
	return c
}

// done tells what the call got, if it has.
func (c call) done() (error, bool) {
	synctest.Wait()
	select {
	case err := <-c.err:
		return err, true
	default:
		return nil, false
	}
}

func (c call) waits(t *testing.T, what string) {
	t.Helper()
	if err, done := c.done(); done {
		t.Fatalf("%s does not wait: %v", what, err)
	}
}

func (c call) got(t *testing.T, what string, want error) {
	t.Helper()
	err, done := c.done()
	if !done {
		t.Fatalf("%s waits still", what)
	}
	if !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func TestPlaces(t *testing.T) {
	b := New(queueing(3, 0, 0))
	take := func(weight int, want bool) {
		t.Helper()
		if got := b.TryAcquire(weight); got != want {
			t.Errorf("%d places beside %d: %v", weight, b.Use().InUse, got)
		}
	}
	take(1, true)
	take(2, true)
	take(1, false)
	if err := b.Acquire(t.Context(), 1, Critical); !errors.Is(err, ErrFull) {
		t.Errorf("without a queue: %v", err)
	}
	b.Release(2)
	take(5, false) // of three places one is taken
	b.Release(1)
	take(5, true) // all of them
	take(1, false)
	b.Release(5)
	take(0, true) // counts as one
	take(-1, true)
	b.Release(0)
	b.Release(-1)
	if use := b.Use(); use != (Use{Limit: 3, Full: 1}) {
		t.Errorf("%+v", use)
	}
}

func TestNoBound(t *testing.T) {
	var none *Bulkhead
	for _, b := range []*Bulkhead{none, New(policy.Bulkhead{}), New(policy.Bulkhead{Adaptive: true, MinConcurrent: 1})} {
		for range 10_000 {
			if !b.TryAcquire(1_000_000) {
				t.Fatal("there is a bound")
			}
		}
		if err := b.Acquire(t.Context(), 1, Low); err != nil {
			t.Fatal(err)
		}
		b.Observe(1, time.Second, true)
		for range 10_000 {
			b.Release(1_000_000)
		}
		b.Release(1)
		if use := b.Use(); use != (Use{}) {
			t.Errorf("%+v", use)
		}
	}
}

func TestQueueIsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(queueing(1, 10, time.Minute))
		b.TryAcquire(1)
		var order []string
		var mu sync.Mutex
		for _, c := range []struct {
			name string
			p    Priority
		}{{"n1", Normal}, {"l1", Low}, {"n2", Normal}, {"c1", Critical}, {"h1", High}, {"c2", 100}, {"l2", -100}, {"h2", High}} {
			go func() {
				if err := b.Acquire(t.Context(), 1, c.p); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, c.name)
				mu.Unlock()
				b.Release(1)
			}()
			synctest.Wait()
		}
		if use := b.Use(); use.Queued != 8 || use.InUse != 1 {
			t.Errorf("%+v", use)
		}
		if b.TryAcquire(1) {
			t.Error("a call passed those who wait")
		}
		time.Sleep(time.Second) //nolint:forbidigo // virtual time
		b.Release(1)
		synctest.Wait()
		if want := []string{"c1", "c2", "h1", "h2", "n1", "n2", "l1", "l2"}; !slices.Equal(order, want) {
			t.Errorf("%v, want %v", order, want)
		}
		if use := b.Use(); use != (Use{Limit: 1, Waited: 8, WaitTime: 8 * time.Second}) {
			t.Errorf("%+v", use)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(queueing(1, 2, 100*time.Millisecond))
		b.TryAcquire(1)
		ctx, cancel := context.WithCancel(t.Context())
		patient, hasty := acquire(t.Context(), b, 1, Normal), acquire(ctx, b, 1, Normal)
		acquire(t.Context(), b, 1, Normal).got(t, "the third", ErrFull)
		cancel()
		hasty.got(t, "the cancelled one", context.Canceled)
		again := acquire(t.Context(), b, 1, Normal) // there is room in the queue again
		time.Sleep(100*time.Millisecond - 1)        //nolint:forbidigo // virtual time
		patient.waits(t, "the first")
		time.Sleep(time.Nanosecond) //nolint:forbidigo // virtual time
		patient.got(t, "the first", ErrTimeout)
		again.got(t, "the one after", ErrTimeout)
		short, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer stop()
		late := acquire(short, b, 1, Normal)
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // virtual time
		late.got(t, "one with a deadline", context.DeadlineExceeded)
		b.Release(1)
		if use := b.Use(); use != (Use{Limit: 1, Full: 1, TimedOut: 2, Gone: 2}) {
			t.Errorf("%+v", use)
		}
	})
}

// TestMoreImportantCallsComeIn also when the queue is full, in place of the newest of
// the least important.
func TestMoreImportantCallsComeIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(queueing(1, 3, time.Minute))
		b.TryAcquire(1)
		n1, l1, l2 := acquire(t.Context(), b, 1, Normal), acquire(t.Context(), b, 1, Low), acquire(t.Context(), b, 1, Low)
		acquire(t.Context(), b, 1, Low).got(t, "an equal", ErrFull)
		n2 := acquire(t.Context(), b, 1, Normal)
		l2.got(t, "the newer low one", ErrFull)
		n2.waits(t, "a normal one")
		h := acquire(t.Context(), b, 1, High)
		l1.got(t, "the older low one", ErrFull)
		c := acquire(t.Context(), b, 1, Critical)
		n2.got(t, "the newer normal one", ErrFull)
		n1.waits(t, "the older normal one")
		for _, next := range []call{c, h, n1} {
			b.Release(1)
			next.got(t, "the next", nil)
		}
		b.Release(1)
		if use := b.Use(); use.Full != 4 || use.InUse != 0 || use.Queued != 0 {
			t.Errorf("%+v", use)
		}
	})
}

// TestHeavyCalls are passed by nobody while they wait, and let others by when they
// give up.
func TestHeavyCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(queueing(4, 10, time.Second))
		b.TryAcquire(1)
		b.TryAcquire(1)
		ctx, cancel := context.WithCancel(t.Context())
		heavy, light := acquire(ctx, b, 3, Normal), acquire(t.Context(), b, 1, Normal)
		light.waits(t, "a light call behind a heavy one")
		cancel()
		heavy.got(t, "the heavy one", context.Canceled)
		light.got(t, "the light one", nil)
		huge := acquire(t.Context(), b, 100, Normal)
		b.Release(1)
		b.Release(1)
		huge.waits(t, "one that needs all")
		b.Release(1)
		huge.got(t, "one that needs all", nil)
		if b.TryAcquire(1) {
			t.Error("it does not run alone")
		}
		b.Release(100)
		if use := b.Use(); use.InUse != 0 {
			t.Errorf("%+v", use)
		}
	})
}

// TestWaitingMeetsRelease: a place that becomes free while a call joins the queue is
// its place, and one that is given while a call gives up is not lost.
func TestWaitingMeetsRelease(t *testing.T) {
	b := New(queueing(1, 1, time.Minute))
	w, _ := b.join(1, Normal) // as if the place had become free since it was tried
	if err := b.giveUp(w, ErrTimeout, &b.use.TimedOut); err != nil {
		t.Errorf("it has its place, but is told %v", err)
	}
	if use := b.Use(); use.InUse != 1 || use.Queued != 0 || use.TimedOut != 0 || use.Waited != 1 {
		t.Errorf("%+v", use)
	}
}

func TestConfigureWhileHeldAndWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(queueing(4, 10, time.Second))
		for range 4 {
			b.TryAcquire(1)
		}
		first, second, third := acquire(t.Context(), b, 1, Normal), acquire(t.Context(), b, 1, Normal), acquire(t.Context(), b, 1, Low)
		b.Configure(queueing(2, 10, time.Second)) // fewer: those who hold go on
		b.Release(1)
		b.Release(1)
		first.waits(t, "with 2 of 2 places taken a call")
		b.Release(1)
		first.got(t, "with 1 of 2 places taken a call", nil)
		b.Configure(queueing(3, 10, time.Second)) // more: those who wait come in
		second.got(t, "with 2 of 3 places taken a call", nil)
		third.waits(t, "the third")
		b.Configure(queueing(3, 0, 0)) // no queue
		third.got(t, "the third", ErrFull)
		b.Configure(policy.Bulkhead{})
		acquire(t.Context(), b, 1, Normal).got(t, "without a bound a call", nil)
		for range 4 {
			b.Release(1)
		}
		if use := b.Use(); use.InUse != 0 || use.Queued != 0 || use.Waited != 2 || use.Full != 1 {
			t.Errorf("%+v", use)
		}
	})
}

func TestAdaptiveBulkhead(t *testing.T) {
	settings := policy.Bulkhead{MaxConcurrent: 100, Adaptive: true, MinConcurrent: 4}
	b := New(settings)
	if use := b.Use(); use.Limit != 20 {
		t.Fatalf("%+v", use)
	}
	now := int64(0)
	period := func(calls int, took time.Duration, dropped bool) {
		now += int64(samplePeriod)
		held := 0
		for b.TryAcquire(1) {
			held++
		}
		for range calls {
			b.Observe(now, took, dropped)
		}
		for range held {
			b.Release(1)
		}
	}
	period(sampleCalls-1, time.Millisecond, false)
	if use := b.Use(); use.Limit != 20 {
		t.Errorf("moved after %d calls: %+v", sampleCalls-1, use)
	}
	period(1, time.Millisecond, false)
	if use := b.Use(); use.Limit != 21 {
		t.Errorf("did not grow after %d calls: %+v", sampleCalls, use)
	}
	now -= int64(samplePeriod)
	period(100, time.Millisecond, false)
	if use := b.Use(); use.Limit != 21 {
		t.Errorf("moved within a period: %+v", use)
	}
	for range 20 {
		period(100, time.Millisecond, true)
	}
	if use := b.Use(); use.Limit != 4 {
		t.Errorf("not at the least: %+v", use)
	}
	settings.MaxConcurrent, settings.MinConcurrent = 9, 9
	b.Configure(settings)
	if use := b.Use(); use.Limit != 9 {
		t.Errorf("%+v", use)
	}
	settings.Adaptive = false
	settings.MaxConcurrent = 7
	b.Configure(settings)
	period(100, time.Millisecond, true)
	if use := b.Use(); use.Limit != 7 {
		t.Errorf("%+v", use)
	}
}

// TestAdaptiveGrowthLetsWaitersIn: a limit that grows is worth a place to those who
// wait.
func TestAdaptiveGrowthLetsWaitersIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(policy.Bulkhead{MaxConcurrent: 100, Adaptive: true, MinConcurrent: 1, MaxQueue: 5, MaxWait: time.Minute})
		for b.TryAcquire(1) {
		}
		next := acquire(t.Context(), b, 1, Normal)
		for range sampleCalls {
			b.Observe(int64(samplePeriod), time.Millisecond, false)
		}
		next.got(t, "a call", nil)
	})
}

// TestStress: places taken never exceed the limit, nobody is forgotten, and all
// places come back, while calls come, wait, give up and settings change.
func TestStress(t *testing.T) {
	const places, workers, each = 4, 16, 400
	b := New(queueing(places, 8, time.Millisecond))
	var taken, most, granted, refused atomic.Int64
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for i := range each {
				weight := 1 + (worker+i)%3
				ctx, cancel := context.WithCancel(t.Context())
				if i%7 == 0 {
					go cancel()
				}
				if err := b.Acquire(ctx, weight, Priority(i%5-2)); err != nil {
					refused.Add(1)
					cancel()
					continue
				}
				granted.Add(1)
				n := taken.Add(int64(weight))
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				if i%3 == 0 {
					runtime.Gosched()
				}
				b.Observe(int64(i), time.Microsecond, false)
				taken.Add(-int64(weight))
				b.Release(weight)
				cancel()
			}
		})
	}
	group.Go(func() {
		for i := range each {
			b.Configure(queueing(places-i%2, i%9, time.Duration(i%2)*time.Millisecond))
			runtime.Gosched()
		}
	})
	group.Wait()
	use := b.Use()
	if use.InUse != 0 || use.Queued != 0 || most.Load() > places {
		t.Errorf("%+v, at most %d places", use, most.Load())
	}
	if n := use.Full + use.TimedOut + use.Gone; n != uint64(refused.Load()) || granted.Load() == 0 || granted.Load()+refused.Load() != workers*each {
		t.Errorf("%+v, but %d were refused and %d granted", use, refused.Load(), granted.Load())
	}
	if b.state.Load() != 0 {
		t.Errorf("state %x", b.state.Load())
	}
}

// TestFreePlacesUnderStress: nothing is lost where nobody ever waits.
func TestFreePlacesUnderStress(t *testing.T) {
	b := New(queueing(3, 0, 0))
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for range 1_000_000 {
				if b.TryAcquire(1) {
					b.Release(1)
				}
			}
		})
	}
	group.Wait()
	if b.state.Load() != 0 {
		t.Errorf("state %x", b.state.Load())
	}
}

func TestBulkheadCostsNothing(t *testing.T) {
	b := New(policy.Bulkhead{MaxConcurrent: 2, Adaptive: true, MinConcurrent: 1})
	ctx, now := t.Context(), int64(0)
	if n := testing.AllocsPerRun(1000, func() {
		now += int64(time.Millisecond)
		if b.Acquire(ctx, 1, Normal) == nil {
			b.Observe(now, time.Millisecond, false)
			b.Release(1)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a call", n)
	}
	for b.TryAcquire(1) {
	}
	if n := testing.AllocsPerRun(100, func() { _ = b.Acquire(ctx, 1, Normal) }); n != 0 {
		t.Errorf("%v allocations for a refusal", n)
	}
}

func BenchmarkBulkhead(b *testing.B) {
	h := New(policy.Default().Bulkhead)
	ctx := b.Context()
	b.Run("free", func(b *testing.B) {
		for b.Loop() {
			if h.TryAcquire(1) {
				h.Release(1)
			}
		}
	})
	b.Run("free, parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if h.Acquire(ctx, 1, Normal) == nil {
					h.Release(1)
				}
			}
		})
	})
	b.Run("full", func(b *testing.B) {
		h := New(queueing(1, 0, 0))
		h.TryAcquire(1)
		for b.Loop() {
			if h.Acquire(ctx, 1, Normal) == nil {
				b.Fatal()
			}
		}
	})
	b.Run("observe, not adaptive", func(b *testing.B) {
		for b.Loop() {
			h.Observe(1, time.Millisecond, false)
		}
	})
	b.Run("observe, adaptive", func(b *testing.B) {
		h := New(policy.Bulkhead{MaxConcurrent: 100, Adaptive: true, MinConcurrent: 4})
		now := int64(0)
		for b.Loop() {
			now += 1000
			h.Observe(now, time.Millisecond, false)
		}
	})
}
