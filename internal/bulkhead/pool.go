package bulkhead

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// ErrClosed says that a pool takes no more work.
var ErrClosed = errors.New("the worker pool is closed")

// Pool runs functions on a bounded number of goroutines, with a bounded queue. They
// start on demand and end when there is nothing to do. Its methods may be called at
// the same time.
type Pool struct {
	panicked func(value any, stack []byte)

	mu     sync.Mutex
	use    PoolUse
	queue  []*task
	tasks  map[*task]struct{} // that wait or run
	closed bool
	idle   chan struct{} // closed once the pool is closed and tasks is empty
}

// task is a function with its context.
type task struct {
	run    func()
	cancel context.CancelFunc
}

// PoolUse is what a pool has seen: its bounds, what runs and waits now, and since it
// was made, the functions that ended, those among them that panicked, and those that
// were refused because it was full.
type PoolUse struct {
	Workers, Queue          int
	Running, Queued         int
	Done, Panicked, Refused uint64
}

// NewPool returns a pool of at least one worker. panicked, if not nil, is told of
// each panic of a function on the goroutine that ran it, with no lock held.
func NewPool(workers, queue int, panicked func(value any, stack []byte)) *Pool {
	p := &Pool{panicked: panicked, tasks: map[*task]struct{}{}, idle: make(chan struct{})}
	p.Resize(workers, queue)
	return p
}

// Submit runs fn soon: it returns nil, and fn is called once, or ErrFull or
// ErrClosed, and it never is. It does not wait. fn gets ctx, and is called also if
// that has ended by then, so that whoever waits for fn never waits in vain; its
// context ends as well when Close runs out of time.
func (p *Pool) Submit(ctx context.Context, fn func(context.Context)) error {
	ctx, cancel := context.WithCancel(ctx)
	t := &task{run: func() { fn(ctx) }, cancel: cancel}
	if err := p.take(t); err != nil {
		cancel()
		return err
	}
	return nil
}

func (p *Pool) take(t *task) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return ErrClosed
	case p.use.Running >= p.use.Workers && len(p.queue) >= p.use.Queue:
		p.use.Refused++
		return ErrFull
	}
	p.tasks[t] = struct{}{}
	p.queue = append(p.queue, t)
	p.start()
	return nil
}

// start gives what waits to goroutines, as far as there may be more.
func (p *Pool) start() {
	for len(p.queue) > 0 && p.use.Running < p.use.Workers {
		t := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		p.use.Running++
		go p.run(t)
	}
}

// run is a goroutine for one function: a goroutine costs little, and one that ends
// by runtime.Goexit takes nothing with it.
func (p *Pool) run(t *task) {
	defer p.ended(t)
	defer func() {
		if value := recover(); value != nil {
			p.report(value)
		}
	}()
	t.run()
}

// report tells the owner of a panic. The owner's own panics are nobody else's.
func (p *Pool) report(value any) {
	p.mu.Lock()
	p.use.Panicked++
	p.mu.Unlock()
	if p.panicked != nil {
		defer func() { _ = recover() }()
		p.panicked(value, debug.Stack())
	}
}

func (p *Pool) ended(t *task) {
	t.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tasks, t)
	p.use.Running--
	p.use.Done++
	p.start()
	p.checkIdle()
}

func (p *Pool) checkIdle() {
	if p.closed && len(p.tasks) == 0 {
		close(p.idle)
	}
}

// Resize changes the bounds. What runs and waits goes on.
func (p *Pool) Resize(workers, queue int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.use.Workers, p.use.Queue = max(workers, 1), max(queue, 0)
	p.start()
}

// Close refuses more work and waits until all that was taken is done. When ctx ends
// first, it ends the contexts of what is left, without waiting for it any longer,
// and returns an error that says how much that is and wraps that of ctx. It may be
// called again.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		p.checkIdle()
	}
	p.mu.Unlock()
	select {
	case <-p.idle:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tasks) == 0 {
		return nil
	}
	for t := range p.tasks {
		t.cancel()
	}
	return fmt.Errorf("closing the worker pool: %d functions go on, with their contexts cancelled: %w", len(p.tasks), ctx.Err())
}

// Use returns what the pool has seen.
func (p *Pool) Use() PoolUse {
	p.mu.Lock()
	defer p.mu.Unlock()
	use := p.use
	use.Queued = len(p.queue)
	return use
}
