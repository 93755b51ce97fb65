package watch

import "sync"

// bell wakes those who wait for something.
//
// Waking all of them is left to one of them: the publisher leaves a token, some
// waiter takes it and wakes the rest. So the publisher, on whose goroutine every
// write waits, does the same work for one as for ten thousand.
type bell struct {
	token chan struct{} // holds one

	mu   sync.Mutex // guards wake
	wake chan struct{}
}

func newBell() *bell {
	return &bell{token: make(chan struct{}, 1), wake: make(chan struct{})}
}

// ring has everybody woken who listens. A token that is still there will do:
// whoever takes it does so after this, and so after what there is to see.
func (b *bell) ring() {
	select {
	case b.token <- struct{}{}:
	default:
	}
}

// listen returns the channel that is closed at the next wake-up. It has to be
// asked for before one looks at what there is to see, or a wake-up may be missed.
func (b *bell) listen() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wake
}

// pass wakes everybody who listens. Whoever has taken the token must call it.
func (b *bell) pass() {
	b.mu.Lock()
	old := b.wake
	b.wake = make(chan struct{})
	b.mu.Unlock()
	close(old)
}
