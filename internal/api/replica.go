package api

import (
	"context"
	"time"

	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"

	"github.com/holdfast-dev/holdfast/internal/document"
	"github.com/holdfast-dev/holdfast/internal/schema"
	"github.com/holdfast-dev/holdfast/internal/state"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

// Replica is this server's copy of the replicated state. Its methods are called
// concurrently.
//
// Its errors are those of package consensus, [state.Rejection], and [*Error] for
// what only the replica knows. Any other error counts as an internal one whose
// outcome is unknown.
type Replica interface {
	// View returns the state as it is now. It never blocks.
	View() *state.View
	// StateTime estimates the cluster's clock.
	StateTime() time.Time
	// LearnStateTime tells that the cluster's clock shows t or later, by word of
	// the leader.
	LearnStateTime(t time.Time)

	// Propose stamps the command, commits it and returns its outcome once this
	// server has applied it. Only the leader can. The command belongs to Propose
	// until it returns. A refusal is in the result, not an error.
	Propose(ctx context.Context, cmd *storagev1.Command) (state.Result, error)
	// ReadIndex returns an index that includes every write acknowledged before
	// the call. Only the leader can.
	ReadIndex(ctx context.Context) (uint64, error)
	// ChangeMembership commits one membership change. Only the leader can.
	ChangeMembership(ctx context.Context, req *peerv1.ChangeMembershipRequest) error

	// WaitApplied returns once this server has applied the index.
	WaitApplied(ctx context.Context, index uint64) error
	// WaitRevision returns once this server has applied the revision.
	WaitRevision(ctx context.Context, revision uint64) error
	// Staleness estimates from above how far this server is behind the leader.
	Staleness() time.Duration

	// Leader names the leader and its API address; both are empty when none is
	// known, the address also when it has not been seen yet.
	Leader() (id, apiAddr string)
	// Serving returns nil, or why this server must not answer: it is fenced off,
	// has no lineage yet, or waits for its recovery.
	Serving() error
	// Status describes this server.
	Status() Status
	// Members lists the servers in the order of their ids, this one included.
	Members() []Member
	// Promise answers a founder of a new cluster.
	Promise(ctx context.Context, req *peerv1.PromiseBootstrapRequest) *peerv1.PromiseBootstrapResponse
}

// Status describes a server.
type Status struct {
	// Role is what the server is to Raft.
	Role holdfastv1.Role
	// Term is the Raft term.
	Term uint64
	// LeaderID is empty when no leader is known.
	LeaderID string
	// LeaderContactAge is the time since the leader was last heard; 0 on the
	// leader itself.
	LeaderContactAge time.Duration
	// Version is the program's.
	Version string
	// StartTime is when the process started.
	StartTime time.Time
	// Fenced says why the server is fenced off; empty when it is well.
	Fenced string
}

// Member is one server of the cluster.
type Member struct {
	// ID is drawn at the server's first start.
	ID string
	// RaftAddr is its address in the Raft configuration.
	RaftAddr string
	// APIAddr is empty when the server has not been seen in the server pool.
	APIAddr string
	// Role is what the server is to Raft.
	Role holdfastv1.Role
	// Alive is true when the server pool sees it.
	Alive bool
	// Version is the program's; empty when not seen.
	Version string
	// Revision is the last that the server reported; 0 when not seen.
	Revision uint64
}

// Validator looks for what is wrong with a definition before it is proposed. It
// is called concurrently. [flags.Validator] is one.
type Validator interface {
	// Validate returns everything that is wrong with the canonical definition
	// of a resource; nothing when it is well formed.
	Validate(key document.Key, spec []byte) []schema.Violation
}
