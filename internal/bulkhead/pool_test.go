package bulkhead

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// gate is work that goes on until it is let go.
type gate struct {
	open    chan struct{}
	running atomic.Int64
	most    atomic.Int64
	done    atomic.Int64
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) work(context.Context) {
	if n := g.running.Add(1); n > g.most.Load() {
		g.most.Store(n)
	}
	<-g.open
	g.running.Add(-1)
	g.done.Add(1)
}

func submit(t *testing.T, p *Pool, fn func(context.Context), want error) {
	t.Helper()
	if err := p.Submit(t.Context(), fn); !errors.Is(err, want) {
		t.Fatalf("%v, want %v", err, want)
	}
	synctest.Wait()
}

func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, g := NewPool(2, 3, nil), newGate()
		for range 5 {
			submit(t, p, g.work, nil)
		}
		submit(t, p, g.work, ErrFull)
		if use := p.Use(); use != (PoolUse{Workers: 2, Queue: 3, Running: 2, Queued: 3, Refused: 1}) {
			t.Errorf("%+v", use)
		}
		close(g.open)
		synctest.Wait()
		if use := p.Use(); use != (PoolUse{Workers: 2, Queue: 3, Done: 5, Refused: 1}) || g.most.Load() != 2 || g.done.Load() != 5 {
			t.Errorf("%+v, at most %d", use, g.most.Load())
		}
		// Idle it holds no goroutine: the bubble ends only when none is left.
	})
}

func TestPoolOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, g := NewPool(0, 10, nil), newGate() // at least one worker
		submit(t, p, g.work, nil)
		var order []int
		for i := range 10 {
			submit(t, p, func(context.Context) { order = append(order, i) }, nil)
		}
		close(g.open)
		synctest.Wait()
		for i := range 10 {
			if len(order) != 10 || order[i] != i {
				t.Fatal(order)
			}
		}
	})
}

func TestPoolResize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, g := NewPool(1, 4, nil), newGate()
		for range 5 {
			submit(t, p, g.work, nil)
		}
		p.Resize(3, 4)
		synctest.Wait()
		if n := g.running.Load(); n != 3 {
			t.Errorf("%d run with 3 workers", n)
		}
		p.Resize(1, -1)
		submit(t, p, g.work, ErrFull)
		g.open <- struct{}{}
		synctest.Wait()
		if n := g.running.Load(); n != 2 {
			t.Errorf("%d run after one of 3 ended, with 1 worker", n)
		}
		close(g.open)
		synctest.Wait()
		if n := g.done.Load(); n != 5 {
			t.Errorf("%d were done, of 5 that were taken", n)
		}
	})
}

func TestPoolContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, g := NewPool(1, 1, nil), newGate()
		submit(t, p, g.work, nil)
		type key struct{}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, 7))
		called := make(chan error, 1)
		if err := p.Submit(ctx, func(ctx context.Context) {
			if ctx.Value(key{}) != 7 {
				t.Error("the values of the context are lost")
			}
			called <- ctx.Err()
		}); err != nil {
			t.Fatal(err)
		}
		cancel()
		close(g.open)
		if err := <-called; !errors.Is(err, context.Canceled) {
			t.Errorf("the context that has ended is %v", err)
		}
	})
}

func TestPoolContainsPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []any
		p := NewPool(1, 10, func(value any, stack []byte) {
			told = append(told, value)
			if !strings.Contains(string(stack), "pool_test.go") {
				t.Errorf("not the stack of the panic: %s", stack)
			}
			panic("and the callback panics too")
		})
		submit(t, p, func(context.Context) { panic("oh") }, nil)
		submit(t, p, func(context.Context) { runtime.Goexit() }, nil)
		submit(t, p, func(context.Context) { panic("again") }, nil)
		if use := p.Use(); use != (PoolUse{Workers: 1, Queue: 10, Done: 3, Panicked: 2}) {
			t.Errorf("%+v", use)
		}
		if len(told) != 2 || told[0] != "oh" || told[1] != "again" {
			t.Error(told)
		}
		quiet := NewPool(1, 0, nil)
		submit(t, quiet, func(context.Context) { panic("nobody hears") }, nil)
		submit(t, quiet, func(context.Context) {}, nil)
		if err := quiet.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestPoolClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := NewPool(1, 1, nil)
		for range 2 {
			if err := idle.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		submit(t, idle, func(context.Context) {}, ErrClosed)

		p, g := NewPool(1, 1, nil), newGate()
		submit(t, p, g.work, nil)
		submit(t, p, g.work, nil)
		closed := make(chan error, 1)
		go func() { closed <- p.Close(t.Context()) }()
		synctest.Wait()
		submit(t, p, g.work, ErrClosed)
		select {
		case err := <-closed:
			t.Fatalf("it did not wait: %v", err)
		default:
		}
		close(g.open)
		if err := <-closed; err != nil || g.done.Load() != 2 {
			t.Errorf("%v, %d done", err, g.done.Load())
		}
	})
}

func TestPoolCloseOutOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(1, 1, nil)
		ended := 0
		for range 2 {
			submit(t, p, func(ctx context.Context) {
				<-ctx.Done()
				ended++
			}, nil)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := p.Close(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 functions") {
			t.Error(err)
		}
		synctest.Wait()
		if ended != 2 {
			t.Errorf("%d of 2 functions ended", ended)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := p.Close(ctx); err != nil {
			t.Errorf("nothing is left, but %v", err)
		}
	})
}

func TestPoolUnderStress(t *testing.T) {
	p := NewPool(3, 50, nil)
	var calls, taken, running atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range 300 {
				err := p.Submit(t.Context(), func(context.Context) {
					if running.Add(1) > 4 {
						t.Error("more run than there are workers")
					}
					calls.Add(1)
					running.Add(-1)
					if i%50 == 0 {
						runtime.Goexit()
					}
				})
				if err == nil {
					taken.Add(1)
				}
				if i%10 == 0 {
					p.Resize(3+i%2, 50)
				}
			}
		})
	}
	group.Wait()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if use := p.Use(); calls.Load() != taken.Load() || use.Done != uint64(taken.Load()) || use.Running != 0 || use.Queued != 0 {
		t.Errorf("%+v: %d calls of %d taken", use, calls.Load(), taken.Load())
	}
}

func BenchmarkPool(b *testing.B) {
	p := NewPool(4, 1000, nil)
	done := make(chan struct{})
	for b.Loop() {
		if p.Submit(b.Context(), func(context.Context) { done <- struct{}{} }) == nil {
			<-done
		}
	}
}
