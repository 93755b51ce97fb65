package consensus

import (
	"fmt"
	"sync"
)

// gate counts what is under way, bounds its number and its bytes, and can be
// closed: then nothing new enters, and drained is closed once everything has left.
type gate struct {
	limit, limitBytes int
	drained           chan struct{}

	mu     sync.Mutex // guards the fields below
	inside int
	bytes  int
	closed bool
}

func newGate(limit, limitBytes int) *gate {
	return &gate{limit: limit, limitBytes: limitBytes, drained: make(chan struct{})}
}

// enter lets something of that size in; leave must be called with the same size.
func (g *gate) enter(size int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return fmt.Errorf("%w: node is closing", ErrUnavailable)
	}
	if g.inside >= g.limit || g.bytes+size > g.limitBytes {
		return fmt.Errorf("%w: %d operations with %d bytes are in flight", ErrUnavailable, g.inside, g.bytes)
	}
	g.inside++
	g.bytes += size
	return nil
}

func (g *gate) leave(size int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.bytes -= size
	g.settle()
}

// close may be called more than once.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.closed = true
		g.settle()
	}
}

// settle closes drained when the last one has left. The caller holds g.mu.
func (g *gate) settle() {
	if g.closed && g.inside == 0 {
		close(g.drained)
	}
}
