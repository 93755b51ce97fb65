package consensus

import (
	"container/heap"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// applied is the index up to which the state machine has applied the log, and
// those who wait for it. raft's own figure counts what was handed over, not what
// was applied, and nobody can wait for it.
type applied struct {
	index atomic.Uint64

	mu      sync.Mutex // guards waiters, and makes check-and-wait atomic with advance
	waiters waiters
}

// advance sets the index and wakes whoever waited for it or less. Only the
// goroutine of the state machine calls it.
func (a *applied) advance(index uint64) {
	a.index.Store(index)
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.waiters) > 0 && a.waiters[0].index <= index {
		close(heap.Pop(&a.waiters).(*waiter).done)
	}
}

// wait returns when index is applied, when ctx ends, or when stop is closed.
func (a *applied) wait(ctx context.Context, stop <-chan struct{}, index uint64) error {
	if a.index.Load() >= index {
		return nil
	}
	w := a.add(index)
	if w == nil {
		return nil
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		a.remove(w)
		return fmt.Errorf("wait for index %d: %w", index, ctx.Err())
	case <-stop:
		a.remove(w)
		return fmt.Errorf("wait for index %d: %w: node has stopped", index, ErrUnavailable)
	}
}

// add returns nil when the index has been reached meanwhile.
func (a *applied) add(index uint64) *waiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.index.Load() >= index {
		return nil
	}
	w := &waiter{index: index, done: make(chan struct{})}
	heap.Push(&a.waiters, w)
	return w
}

func (a *applied) remove(w *waiter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w.position >= 0 {
		heap.Remove(&a.waiters, w.position)
	}
}

// waiter waits for an index.
type waiter struct {
	index    uint64
	done     chan struct{}
	position int // in the heap; -1 once removed
}

// waiters is a heap by index.
type waiters []*waiter

func (w waiters) Len() int           { return len(w) }
func (w waiters) Less(i, j int) bool { return w[i].index < w[j].index }
func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].position, w[j].position = i, j
}

// Push implements heap.Interface.
func (w *waiters) Push(x any) {
	item := x.(*waiter)
	item.position = len(*w)
	*w = append(*w, item)
}

// Pop implements heap.Interface.
func (w *waiters) Pop() any {
	last := len(*w) - 1
	item := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	item.position = -1
	return item
}
