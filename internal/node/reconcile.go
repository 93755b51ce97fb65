package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-dev/holdfast/internal/api"
	"github.com/holdfast-dev/holdfast/internal/consensus"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
)

const (
	// reconcileInterval is how often the leader compares the members of the
	// cluster with those of the pool.
	reconcileInterval = 2 * time.Second
	// membershipTimeout bounds one change of the membership.
	membershipTimeout = 10 * time.Second
	// catchUpWait is how long a non-voter may take to answer that it has caught
	// up; otherwise it is asked again in the next round.
	catchUpWait = time.Second
	// rejoinAfter is how long a server with the cluster's state must have been seen
	// without being a member before it is joined again. A live server that was
	// removed needs a while to notice that, and then ends.
	rejoinAfter = 15 * time.Second
	// maxMembers bounds the cluster; more servers are not joined.
	maxMembers = 16
)

// reconcileLoop makes the members of the cluster those of the pool.
func (n *Node) reconcileLoop(ctx context.Context) {
	seen := sightings{absent: make(map[string]time.Time), outside: make(map[string]time.Time)}
	ticker := time.NewTicker(reconcileInterval)
	defer ticker.Stop()
	for {
		n.reconcile(ctx, seen)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// change is what a round decided to do about one server.
type change struct {
	what string // join, move, promote or remove
	id   string
	addr string
	why  string
}

// reconcile makes the changes of one round. A change that fails is tried again
// in the next.
func (n *Node) reconcile(ctx context.Context, seen sightings) {
	members, servers := n.raft.Members(), n.servers()
	seen.track(members, servers, time.Now())
	n.warnOfStrangers(members, servers)
	p := planner{
		expect: n.config.founders(), lineage: lineageOf(n.machine.View()),
		dead:      longer(seen.absent, n.config.DeadServerTimeout),
		returning: longer(seen.outside, rejoinAfter),
	}
	for _, c := range p.plan(members, servers) {
		if ctx.Err() != nil {
			return
		}
		err := n.carryOut(ctx, c, servers)
		switch {
		case err == nil:
			n.log.Info("membership changed", "change", c.what, "server", c.id, "addr", c.addr, "why", c.why)
		case ctx.Err() == nil:
			n.log.Debug("membership not changed yet", "change", c.what, "server", c.id, "error", err)
		}
	}
}

// sightings tell since when something has been so, by server id.
type sightings struct {
	absent  map[string]time.Time // members that the pool does not see
	outside map[string]time.Time // servers in the pool that are no members
}

// track brings the sightings up to date.
func (s sightings) track(members []consensus.Member, servers []server, now time.Time) {
	absent, outside := make(map[string]bool), make(map[string]bool)
	for _, m := range members {
		if _, alive := serverByID(servers, m.ID); !alive {
			absent[m.ID] = true
		}
	}
	for _, v := range servers {
		if !isMember(members, v.ID) {
			outside[v.ID] = true
		}
	}
	note(s.absent, absent, now)
	note(s.outside, outside, now)
}

// note keeps the instants of what is still so and adds what is new.
func note(since map[string]time.Time, current map[string]bool, now time.Time) {
	for id := range since {
		if !current[id] {
			delete(since, id)
		}
	}
	for id := range current {
		if _, known := since[id]; !known {
			since[id] = now
		}
	}
}

// longer tells what has been so for a time.
func longer(since map[string]time.Time, d time.Duration) map[string]bool {
	ids := make(map[string]bool)
	for id, at := range since {
		ids[id] = time.Since(at) >= d
	}
	return ids
}

// planner knows what a plan depends on beside members and servers.
type planner struct {
	expect          int             // servers
	lineage         string          // of the cluster
	dead, returning map[string]bool // members gone, and others seen, for long
}

// plan decides what to change.
//
//   - A server of the pool that is no member joins without a vote, unless its
//     state is that of another cluster. One with this cluster's state may just
//     have been removed: it joins when it is still there after a while.
//   - A member whose Raft address is another one now is moved.
//   - A non-voter that is alive is promoted; whether it has caught up is asked
//     when the change is made.
//   - A member whose address has been taken by a server with a new id has lost
//     its disk and is removed at once. One that has been gone for long is removed
//     when more than the expected servers remain: with fewer, a smaller cluster
//     would not bear more failures than the present one.
//   - Nothing is removed unless a majority of the remaining voters is alive.
func (p planner) plan(members []consensus.Member, servers []server) []change {
	var changes []change
	remaining := slices.Clone(members)
	for _, m := range members {
		why := ""
		switch s, alive := serverByID(servers, m.ID); {
		case alive && s.Raft != m.Addr:
			changes = append(changes, change{"move", m.ID, s.Raft, "it has another address"})
		case alive:
		case takenOver(m, servers, p.lineage):
			why = "a new server has its address"
		case p.dead[m.ID] && voters(remaining, m.ID) >= p.expect:
			why = "it has been gone for too long"
		}
		if why != "" && quorate(remaining, servers, m.ID) {
			changes = append(changes, change{"remove", m.ID, m.Addr, why})
			remaining = slices.DeleteFunc(remaining, func(r consensus.Member) bool { return r.ID == m.ID })
		}
	}
	for _, s := range servers {
		i := slices.IndexFunc(members, func(m consensus.Member) bool { return m.ID == s.ID })
		switch {
		case i < 0 && joinable(s, p.lineage) && (s.Lineage == "" || p.returning[s.ID]) && len(remaining) < maxMembers:
			changes = append(changes, change{"join", s.ID, s.Raft, "it is in the pool"})
		case i >= 0 && !members[i].Voter && voters(remaining, "") < maxFounders:
			changes = append(changes, change{"promote", s.ID, s.Raft, "it has caught up"})
		}
	}
	return changes
}

// joinable tells whether a server may become a member: one with the state of
// another cluster would lose it.
func joinable(s server, lineage string) bool {
	return s.Raft != "" && (!s.State || s.Lineage == "" || s.Lineage == lineage)
}

// takenOver tells whether a server of another id is alive at a member's address.
func takenOver(m consensus.Member, servers []server, lineage string) bool {
	return slices.ContainsFunc(servers, func(s server) bool {
		return s.ID != m.ID && s.Raft == m.Addr && joinable(s, lineage)
	})
}

func isMember(members []consensus.Member, id string) bool {
	return slices.ContainsFunc(members, func(m consensus.Member) bool { return m.ID == id })
}

// voters counts the voters but one.
func voters(members []consensus.Member, without string) int {
	count := 0
	for _, m := range members {
		if m.Voter && m.ID != without {
			count++
		}
	}
	return count
}

// quorate tells whether, without one member, a majority of the voters is alive.
func quorate(members []consensus.Member, servers []server, without string) bool {
	alive := 0
	for _, m := range members {
		if _, ok := serverByID(servers, m.ID); ok && m.Voter && m.ID != without {
			alive++
		}
	}
	return alive > voters(members, without)/2
}

// warnOfStrangers tells of servers in the pool that cannot be joined.
func (n *Node) warnOfStrangers(members []consensus.Member, servers []server) {
	lineage := lineageOf(n.machine.View())
	for _, s := range servers {
		if !isMember(members, s.ID) && !joinable(s, lineage) && n.strangers[s.ID] != s.Lineage {
			n.strangers[s.ID] = s.Lineage
			n.log.Error("a server of another cluster is in the pool; separate the pools, or delete its data directory to join it to this cluster",
				"server", s.ID, "raft_addr", s.Raft, "lineage", s.Lineage)
		}
	}
}

func (n *Node) carryOut(ctx context.Context, c change, servers []server) error {
	ctx, cancel := context.WithTimeout(ctx, membershipTimeout)
	defer cancel()
	switch c.what {
	case "join", "move":
		return n.raft.AddNonvoter(ctx, c.id, c.addr) //nolint:wrapcheck // the caller logs what it was about
	case "remove":
		return n.raft.Remove(ctx, c.id) //nolint:wrapcheck // as above
	default:
		s, _ := serverByID(servers, c.id)
		if err := n.caughtUp(ctx, s); err != nil {
			return err
		}
		return n.raft.Promote(ctx, c.id) //nolint:wrapcheck // as above
	}
}

// caughtUp asks a non-voter whether it has applied what this server has.
func (n *Node) caughtUp(ctx context.Context, s server) error {
	view := n.machine.View()
	return n.callPeer(s.API, func(peer peerv1.PeerServiceClient) error {
		ctx, cancel := context.WithTimeout(ctx, 2*catchUpWait)
		defer cancel()
		resp, err := peer.AwaitRevision(ctx, &peerv1.AwaitRevisionRequest{
			Revision: view.Revision(), Wait: durationpb.New(catchUpWait),
		})
		if err != nil {
			return fmt.Errorf("ask %s for its revision: %w", s.ID, err)
		}
		epoch := view.Epoch()
		if string(resp.GetEpoch().GetLineage()) != string(epoch.Lineage[:]) || resp.GetRevision() < view.Revision() {
			return fmt.Errorf("%w: %s is at revision %d of %d", consensus.ErrNotCaughtUp, s.ID, resp.GetRevision(), view.Revision())
		}
		return nil
	})
}

// callPeer makes one call to another server.
func (n *Node) callPeer(addr string, call func(peerv1.PeerServiceClient) error) error {
	conn, err := grpc.NewClient("passthrough:///"+addr, n.dialOptions...)
	if err != nil {
		return fmt.Errorf("dial server %s: %w", addr, err)
	}
	defer func() { _ = conn.Close() }() // nothing can be done about it
	return call(peerv1.NewPeerServiceClient(conn))
}

// ChangeMembership implements api.Replica.
func (n *Node) ChangeMembership(ctx context.Context, req *peerv1.ChangeMembershipRequest) error {
	var err error
	switch {
	case req.GetJoin() != nil:
		err = n.raft.AddNonvoter(ctx, req.GetJoin().GetId(), req.GetJoin().GetRaftAddr())
	case req.GetPromote() != "":
		err = n.raft.Promote(ctx, req.GetPromote())
	case req.GetRemove() != nil:
		members, id := n.raft.Members(), req.GetRemove().GetId()
		if isMember(members, id) && voters(members, id) == 0 {
			return api.Errorf(api.ReasonMembershipRefused, "%s is the last voter; a cluster ends by stopping its servers", id)
		}
		if isMember(members, id) && !req.GetRemove().GetForce() && !quorate(members, n.servers(), id) {
			return api.Errorf(api.ReasonMembershipRefused,
				"without %s fewer than a majority of the voters would be alive; bring servers back first, or force it", id)
		}
		err = n.raft.Remove(ctx, id)
	default:
		if voters(n.raft.Members(), n.id) == 0 {
			return api.Errorf(api.ReasonMembershipRefused, "there is no other voter to transfer the leadership to")
		}
		err = n.raft.Transfer(ctx, req.GetTransfer())
	}
	switch {
	case errors.Is(err, consensus.ErrNotMember):
		return api.Errorf(api.ReasonMemberNotFound, "the cluster has no such server: %v", err)
	case errors.Is(err, consensus.ErrNotCaughtUp):
		return api.Errorf(api.ReasonMembershipRefused, "the server is too far behind to get a vote: %v", err)
	case err != nil:
		return fmt.Errorf("change membership: %w", err)
	}
	return nil
}
