package consensus

import (
	"fmt"
	"sync"
)

// gate counts what is under way, bounds it, and can be closed: then nothing new
// enters, and drained is closed once everything has left.
type gate struct {
	limit   int
	drained chan struct{}

	mu     sync.Mutex // guards the fields below
	inside int
	closed bool
}

func newGate(limit int) *gate { return &gate{limit: limit, drained: make(chan struct{})} }

func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return fmt.Errorf("%w: node is closing", ErrUnavailable)
	}
	if g.inside >= g.limit {
		return fmt.Errorf("%w: %d operations are in flight", ErrUnavailable, g.inside)
	}
	g.inside++
	return nil
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
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
