package consensus

import "sync"

// failure is the node's one way down: the first cause wins and is kept.
type failure struct {
	done chan struct{} // closed by the first fail
	wg   sync.WaitGroup

	mu   sync.Mutex // guards the fields below
	err  error
	then func(error)
}

func newFailure() *failure { return &failure{done: make(chan struct{})} }

// fail records the cause and returns at once; only the first call counts.
func (f *failure) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	f.err = err
	close(f.done)
	f.report()
}

// arm sets what follows a failure. While the node is being opened a failure is
// only recorded, and Open returns it; arm returns such a failure.
func (f *failure) arm(then func(error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.then = then
	}
	return f.err
}

// report calls then on a goroutine of its own: whoever failed may hold raft's
// main goroutine, which then needs. The caller holds f.mu.
func (f *failure) report() {
	if f.then == nil {
		return
	}
	then, err := f.then, f.err
	f.wg.Go(func() { then(err) })
}

// cause returns why the node failed; nil while it works.
func (f *failure) cause() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// wait returns when the callback has returned.
func (f *failure) wait() { f.wg.Wait() }
