package node

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/holdfast-dev/holdfast/internal/api"
	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/state"
	"github.com/holdfast-dev/holdfast/internal/version"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
	holdfastv1 "github.com/holdfast-dev/holdfast/proto/holdfast/v1"
)

var _ api.Replica = (*Node)(nil)

// View implements api.Replica.
func (n *Node) View() *state.View { return n.machine.View() }

// StateTime implements api.Replica.
func (n *Node) StateTime() time.Time { return n.clock.estimate() }

// LearnStateTime implements api.Replica.
func (n *Node) LearnStateTime(t time.Time) { n.clock.learn(t.UnixMilli()) }

// Propose implements api.Replica.
func (n *Node) Propose(ctx context.Context, cmd *storagev1.Command) (state.Result, error) {
	if err := n.Serving(); err != nil {
		return state.Result{}, fmt.Errorf("%w: %w", consensus.ErrUnavailable, err)
	}
	return n.propose(ctx, cmd)
}

// ReadIndex implements api.Replica.
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	return n.raft.ReadIndex(ctx) //nolint:wrapcheck // api maps the errors of consensus
}

// WaitApplied implements api.Replica.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error {
	return n.raft.WaitApplied(ctx, index) //nolint:wrapcheck // as above
}

// WaitRevision implements api.Replica.
func (n *Node) WaitRevision(ctx context.Context, revision uint64) error {
	for {
		changed := n.changed.wait()
		if n.machine.View().Revision() >= revision {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// Staleness implements api.Replica. A follower is behind by the time since the
// leader was last heard, and by what the commit index may take to follow it.
func (n *Node) Staleness() time.Duration {
	status := n.raft.Status()
	switch {
	case status.Role == consensus.Leader:
		return 0
	case status.LeaderID == "":
		return math.MaxInt64
	}
	behind := max(0, status.LastContact) + 2*timing(&n.config).Commit
	if status.Applied < status.Commit {
		// What it knows to be committed it has not applied yet.
		return max(behind, time.Since(*n.caughtUpAt.Load()))
	}
	n.noteCaughtUp()
	return behind
}

func (n *Node) noteCaughtUp() {
	now := time.Now()
	n.caughtUpAt.Store(&now)
}

// Leader implements api.Replica.
func (n *Node) Leader() (id, apiAddr string) {
	id = n.raft.LeaderID()
	if id == n.id {
		return id, n.apiAddr
	}
	if id == "" {
		return "", ""
	}
	s, _ := serverByID(n.servers(), id)
	return id, s.API
}

// Serving implements api.Replica.
func (n *Node) Serving() error {
	view := n.machine.View()
	if reason := n.fenced.Load(); reason != nil {
		return api.Errorf(api.ReasonFenced, "%s", *reason)
	}
	if !view.Epoch().HasLineage() {
		// A server that has restarted knows nothing before a leader tells it what is committed.
		if raft := n.raft.Status(); raft.LeaderID == "" && len(raft.Members) > 0 {
			return api.Errorf(api.ReasonNoLeader, "this server has started and waits for a leader: no majority of its cluster's %d servers is there", len(raft.Members))
		}
		return api.Errorf(api.ReasonNotServing, "this server does not belong to a cluster yet")
	}
	if _, pending := n.recovery.pending(view); pending {
		return api.Errorf(api.ReasonNotServing, "this server was recovered and waits for a leader to raise the epoch")
	}
	return nil
}

// Status implements api.Replica.
func (n *Node) Status() api.Status {
	raft := n.raft.Status()
	status := api.Status{
		Role: roleOf(raft, n.id), Term: raft.Term, LeaderID: raft.LeaderID,
		LeaderContactAge: raft.LastContact, Version: version.Version, StartTime: n.startTime,
	}
	if reason := n.fenced.Load(); reason != nil {
		status.Fenced = *reason
	}
	return status
}

func roleOf(status consensus.Status, id string) holdfastv1.Role {
	switch status.Role {
	case consensus.Leader:
		return holdfastv1.Role_ROLE_LEADER
	case consensus.Candidate:
		return holdfastv1.Role_ROLE_CANDIDATE
	case consensus.Stopped:
		return holdfastv1.Role_ROLE_UNSPECIFIED
	case consensus.Follower:
	}
	for _, m := range status.Members {
		if m.ID == id && !m.Voter {
			return holdfastv1.Role_ROLE_NON_VOTER
		}
	}
	return holdfastv1.Role_ROLE_FOLLOWER
}

// Members implements api.Replica.
func (n *Node) Members() []api.Member {
	raft, servers := n.raft.Status(), n.servers()
	members := make([]api.Member, 0, len(raft.Members))
	for _, m := range raft.Members {
		s, alive := serverByID(servers, m.ID)
		member := api.Member{
			ID: m.ID, RaftAddr: m.Addr, APIAddr: s.API, Alive: alive, Version: s.Version,
			Revision: n.hashes.revision(m.ID), Role: holdfastv1.Role_ROLE_FOLLOWER,
		}
		switch {
		case m.ID == n.id:
			member.APIAddr, member.Alive, member.Version = n.apiAddr, true, version.Version
			member.Role, member.Revision = roleOf(raft, n.id), n.machine.View().Revision()
		case !m.Voter:
			member.Role = holdfastv1.Role_ROLE_NON_VOTER
		case m.ID == raft.LeaderID:
			member.Role = holdfastv1.Role_ROLE_LEADER
		}
		members = append(members, member)
	}
	slices.SortFunc(members, func(a, b api.Member) int { return cmp.Compare(a.ID, b.ID) })
	return members
}

func (n *Node) memberIDs() []string {
	members := n.raft.Members()
	ids := make([]string, len(members))
	for i, m := range members {
		ids[i] = m.ID
	}
	return ids
}
