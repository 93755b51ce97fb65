package consensus

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/holdfast-dev/holdfast/internal/seam"
)

// Outcomes of an operation, for errors.Is. A proposal that failed with none of
// these and not with a *NotLeaderError was refused before it was sent.
var (
	// ErrUnknownOutcome: the command may or may not be applied, now or later.
	// Retry only with something that makes the retry recognisable.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrUnavailable: nothing was written and nothing will be; retry later.
	ErrUnavailable = errors.New("consensus unavailable")
	// ErrTooLarge: the command exceeds MaxCommand.
	ErrTooLarge = errors.New("command too large")
	// ErrNotCaughtUp: the member is too far behind to get a vote.
	ErrNotCaughtUp = errors.New("member has not caught up")
	// ErrNotMember: the cluster has no such member.
	ErrNotMember = errors.New("not a member of the cluster")
	// ErrHasState: the node already belongs to a cluster.
	ErrHasState = errors.New("node already has state")
)

// Causes of an end, for errors.Is in OnFatal and for the errors of Open.
var (
	// ErrRemoved: the cluster decided to go on without this node.
	ErrRemoved = errors.New("this node was removed from the cluster")
	// ErrCorrupt: what is on disk is not what was written there.
	ErrCorrupt = errors.New("data on disk is damaged")
	// ErrLocked: another process uses the data directory.
	ErrLocked = errors.New("data directory is in use by another process")
	// ErrStalled: one write to disk took longer than Timing.StallFatal.
	ErrStalled = errors.New("disk write hangs")
)

// NotLeaderError tells that only the leader can do this. Nothing was written.
type NotLeaderError struct {
	ID, Addr string // the leader as far as this node knows; empty when unknown
}

// Error names the leader, if one is known.
func (e *NotLeaderError) Error() string {
	if e.ID == "" {
		return "not the leader, and no leader is known"
	}
	return fmt.Sprintf("not the leader; the leader is %s at %s", e.ID, e.Addr)
}

// classify turns an error of raft into one of this package's outcomes.
func (n *Node) classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost) && seam.Bug(seam.LostLeadershipRefuses):
		addr, id := n.raft.LeaderWithID()
		return &NotLeaderError{ID: string(id), Addr: string(addr)}
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		n.transfers.refused()
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.Is(err, errNotTaken):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	default: // leadership lost, or raft has ended
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
}
