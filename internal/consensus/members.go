package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Member is one server of the cluster.
type Member struct {
	ID, Addr string
	Voter    bool
	// LastLog is the last index that the member reported to this node; only the
	// leader hears from all, and 0 means never.
	LastLog uint64
}

// Members returns the members as this node knows them, maybe not yet committed.
func (n *Node) Members() []Member {
	servers := n.configuration().Servers
	members := make([]Member, 0, len(servers))
	for _, s := range servers {
		m := Member{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter}
		if m.ID == n.cfg.ID {
			m.LastLog = n.raft.LastIndex()
		} else {
			m.LastLog, _ = n.trans.lastLog(s.ID)
		}
		members = append(members, m)
	}
	return members
}

func (n *Node) configuration() raft.Configuration { return n.raft.GetConfiguration().Configuration() }

// HasState tells whether this node has ever taken part in a cluster.
func (n *Node) HasState() bool { return n.raft.LastIndex() > 0 || n.raft.CurrentTerm() > 0 }

// Bootstrap begins a cluster of these members, of which this node must be one.
// On several nodes it must be given the same members. ErrHasState if this node
// already belongs to a cluster.
func (n *Node) Bootstrap(members []Member) error {
	configuration, err := servers(members)
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	done := make(chan error, 1)
	if err := n.gate.enter(); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	go func() {
		defer n.gate.leave()
		done <- n.raft.BootstrapCluster(configuration).Error()
	}()
	select {
	case err = <-done:
	case <-n.failure.done:
		err = n.failure.cause()
	}
	switch {
	case errors.Is(err, raft.ErrCantBootstrap):
		return fmt.Errorf("bootstrap: %w", ErrHasState)
	case err != nil:
		return fmt.Errorf("bootstrap: %w", err)
	}
	n.removal.seen(configuration)
	return nil
}

func servers(members []Member) (raft.Configuration, error) {
	var c raft.Configuration
	for _, m := range members {
		if m.ID == "" || m.Addr == "" {
			return c, fmt.Errorf("member %q at %q: id and address are required", m.ID, m.Addr)
		}
		s := raft.Server{Suffrage: raft.Nonvoter, ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Addr)}
		if m.Voter {
			s.Suffrage = raft.Voter
		}
		c.Servers = append(c.Servers, s)
	}
	return c, nil
}

// AddNonvoter adds a member that receives the log and has no vote, or changes
// the address of a member. Leader only.
func (n *Node) AddNonvoter(ctx context.Context, id, addr string) error {
	return n.change(ctx, "add member "+id, func(enqueue time.Duration) raft.IndexFuture {
		return n.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(addr), 0, enqueue)
	})
}

// Promote gives a member a vote. Leader only. raft would count an empty new voter
// at once, and a small cluster could commit nothing until it has caught up; so
// ErrNotCaughtUp is returned until the member has nearly all of the log.
func (n *Node) Promote(ctx context.Context, id string) error {
	verb := "promote member " + id
	future := n.raft.GetConfiguration()
	server, ok := findServer(future.Configuration(), id)
	switch {
	case n.raft.State() != raft.Leader:
		return fmt.Errorf("%s: %w", verb, n.classify(raft.ErrNotLeader))
	case !ok:
		return fmt.Errorf("%s: %w", verb, ErrNotMember)
	case server.Suffrage == raft.Voter:
		return nil
	}
	has, _ := n.trans.lastLog(server.ID)
	if last := n.raft.LastIndex(); has+caughtUp < last || has == 0 {
		return fmt.Errorf("%s: %w: it has %d of %d entries", verb, ErrNotCaughtUp, has, last)
	}
	return n.change(ctx, verb, func(enqueue time.Duration) raft.IndexFuture {
		return n.raft.AddVoter(server.ID, server.Address, future.Index(), enqueue)
	})
}

// Remove removes a member; removing one that is not there does nothing. Leader
// only. A leader that removes itself leads until that is committed. The removed
// node ends with ErrRemoved if it learns of it.
func (n *Node) Remove(ctx context.Context, id string) error {
	return n.change(ctx, "remove member "+id, func(enqueue time.Duration) raft.IndexFuture {
		return n.raft.RemoveServer(raft.ServerID(id), 0, enqueue)
	})
}

func (n *Node) change(ctx context.Context, verb string, start func(time.Duration) raft.IndexFuture) error {
	if _, err := await(ctx, n, start); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return nil
}

func findServer(members raft.Configuration, id string) (raft.Server, bool) {
	for _, s := range members.Servers {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// onConfig takes note of committed members, on the state machine's goroutine.
func (n *Node) onConfig(members raft.Configuration) {
	n.trans.retain(members)
	if n.removal.seen(members) {
		n.removal.wg.Go(n.confirmRemoval)
	}
}

// removal notices that the cluster goes on without this node.
type removal struct {
	id raft.ServerID
	wg sync.WaitGroup

	mu         sync.Mutex // guards the fields below
	member     bool       // has been one
	confirming bool
}

// seen takes note of members; true if somebody must find out whether this node
// is gone for good.
func (r *removal) seen(members raft.Configuration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if hasServer(members, r.id) {
		r.member = true
		return false
	}
	if !r.member || r.confirming {
		return false
	}
	r.confirming = true
	return true
}

// confirmRemoval ends the node if it is no member and no leader speaks to it. A
// node that replays an old removal, and has been added again since, is spoken to.
func (n *Node) confirmRemoval() {
	defer func() {
		n.removal.mu.Lock()
		defer n.removal.mu.Unlock()
		n.removal.confirming = false
	}()
	quiet := 2 * n.cfg.Timing.Heartbeat
	for {
		select {
		case <-n.stopped:
			return
		case <-time.After(quiet):
		}
		if hasServer(n.configuration(), n.removal.id) {
			return
		}
		if n.raft.State() != raft.Leader && time.Since(n.raft.LastContact()) >= quiet {
			n.failure.fail(ErrRemoved)
			return
		}
	}
}
