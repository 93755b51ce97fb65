package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// enqueueTimeout bounds how long raft's main goroutine may be busy with something
// else before an operation is refused.
const enqueueTimeout = 10 * time.Second

// Propose replicates a command and returns its index and the state machine's
// result. It must not be called with data that changes later.
//
// Errors: *NotLeaderError and ErrUnavailable say that nothing was written and
// nothing will be, also when ctx ended before raft took the command;
// ErrUnknownOutcome says that nobody knows, also when ctx ended later; ErrTooLarge.
func (n *Node) Propose(ctx context.Context, data []byte) (index uint64, result any, err error) {
	if len(data) > MaxCommand {
		return 0, nil, fmt.Errorf("propose: %w: %d bytes, at most %d", ErrTooLarge, len(data), MaxCommand)
	}
	start := time.Now()
	p, err := n.enqueue(ctx, data)
	if err != nil {
		return 0, nil, fmt.Errorf("propose: %w", err)
	}
	if err := n.outcome(ctx, p); err != nil {
		return 0, nil, fmt.Errorf("propose: %w", err)
	}
	response := p.future.Response()
	if failed, ok := response.(error); ok && errors.Is(failed, errApplyFailed) {
		return 0, nil, fmt.Errorf("propose: %w: %w", ErrUnknownOutcome, failed)
	}
	n.counters.propose.observe(time.Since(start))
	return p.future.Index(), response, nil
}

// enqueue queues a proposal, unless it cannot succeed.
func (n *Node) enqueue(ctx context.Context, data []byte) (*proposal, error) {
	if err := n.admit(ctx); err != nil {
		return nil, err
	}
	if err := n.gate.enter(len(data)); err != nil {
		return nil, err
	}
	p := newProposal(data)
	if !n.queue.add(p) {
		n.gate.leave(len(data))
		return nil, errStopping()
	}
	return p, nil
}

// outcome waits until a proposal is settled, and gives up when ctx ends or the
// node fails.
func (n *Node) outcome(ctx context.Context, p *proposal) error {
	var cause error
	select {
	case <-p.done:
	case <-ctx.Done():
		cause = ctx.Err()
	case <-n.failure.done:
		cause = n.failure.cause()
	}
	select {
	case <-p.done: // also when both came at once
		if p.withdraw() {
			return errStopping()
		}
		return n.classify(p.err)
	default:
	}
	if p.withdraw() {
		return fmt.Errorf("%w: %w", ErrUnavailable, cause)
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, cause)
}

func errStopping() error { return fmt.Errorf("%w: node is stopping", ErrUnavailable) }

// await runs an operation of raft that only the leader can do, and returns its
// future once it is settled. raft's futures cannot be abandoned, so each has a
// goroutine that waits for it; await itself returns when ctx ends.
func await[F raft.Future](ctx context.Context, n *Node, start func(enqueue time.Duration) F) (F, error) {
	var none F
	if err := n.admit(ctx); err != nil {
		return none, err
	}
	if err := n.gate.enter(0); err != nil {
		return none, err
	}
	return settle(ctx, n, start, func() { n.gate.leave(0) })
}

// settle is await for what has been admitted; left is called once raft is done.
func settle[F raft.Future](ctx context.Context, n *Node, start func(enqueue time.Duration) F, left func()) (F, error) {
	var none F
	enqueue := enqueueTimeout
	if deadline, ok := ctx.Deadline(); ok {
		// raft takes zero for no limit.
		enqueue = max(time.Until(deadline), time.Millisecond)
	}
	type outcome struct {
		future F
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		defer left()
		future := start(enqueue)
		done <- outcome{future, n.futures.wait(future)}
	}()
	select {
	case o := <-done:
		return o.future, n.classify(o.err)
	case <-ctx.Done():
		return none, fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
	case <-n.failure.done:
		return none, fmt.Errorf("%w: %w", ErrUnknownOutcome, n.failure.cause())
	}
}

// admit refuses what cannot succeed.
func (n *Node) admit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := n.failure.cause(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if n.raft.State() != raft.Leader {
		return n.classify(raft.ErrNotLeader)
	}
	if n.trans.silent() {
		return fmt.Errorf("%w: %w", ErrUnavailable, errSilent)
	}
	return nil
}
