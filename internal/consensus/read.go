package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-dev/holdfast/internal/seam"
)

// reads shares one barrier among all readers that arrived before it started. A
// barrier is an entry of the log: it proves the leadership strictly, unlike
// raft's VerifyLeader, which accepts answers to questions asked before.
type reads struct {
	barrier func() (uint64, error)
	wg      sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	next    *round     // the barrier that has not started yet
	running bool
	closed  bool
}

// round is one barrier and those who wait for it.
type round struct {
	done  chan struct{}
	index uint64
	err   error
}

// join returns the round that starts next; nil once closed.
func (r *reads) join() *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	if !r.running {
		r.running = true
		r.wg.Go(r.run)
	}
	return r.next
}

// run runs rounds, one after another, while there are readers.
func (r *reads) run() {
	for current := r.take(); current != nil; current = r.take() {
		current.index, current.err = r.barrier()
		close(current.done)
	}
}

// close lets no reader in and returns when the last round has ended.
func (r *reads) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *reads) take() *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.next
	r.next = nil
	r.running = current != nil
	return current
}

// ReadIndex returns an index such that a state that has applied it reflects every
// write that was acknowledged before the call. Only the leader knows:
// *NotLeaderError elsewhere. Failures are ErrUnavailable: a read changes nothing.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	if err := n.admit(ctx); err != nil {
		return 0, fmt.Errorf("read index: %w", err)
	}
	if seam.Bug(seam.ReadsWithoutQuorum) {
		return n.applied.index.Load(), nil
	}
	current := n.reads.join()
	if current == nil {
		return 0, fmt.Errorf("read index: %w: node is closed", ErrUnavailable)
	}
	select {
	case <-current.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("read index: %w: %w", ErrUnavailable, ctx.Err())
	}
	if current.err != nil {
		return 0, fmt.Errorf("read index: %w", current.err)
	}
	return current.index, nil
}

// barrier commits a barrier and returns the index applied by then. The barrier's
// own index would not do: no state machine ever sees it, here or elsewhere.
func (n *Node) barrier(ctx context.Context) (uint64, error) {
	_, err := await(ctx, n, func(enqueue time.Duration) raft.Future { return n.raft.Barrier(enqueue) })
	if errors.Is(err, ErrUnknownOutcome) {
		return 0, fmt.Errorf("%w: barrier: %v", ErrUnavailable, err) //nolint:errorlint // a read has no unknown outcome
	}
	if err != nil {
		return 0, err
	}
	return n.applied.index.Load(), nil
}

// WaitApplied returns when this node's state machine has applied the index, which
// Propose or ReadIndex of any member returned; or when ctx ends; or with
// ErrUnavailable when the node stops.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error {
	return n.applied.wait(ctx, n.stopped, index)
}

// AppliedIndex returns the index of the last entry that the state machine has
// applied. It may lag behind Status.Commit for ever by entries that are raft's
// own and never reach the state machine.
func (n *Node) AppliedIndex() uint64 { return n.applied.index.Load() }
