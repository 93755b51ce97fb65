package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	if err := n.gate.enter(0); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	go func() {
		defer n.gate.leave(0)
		done <- n.futures.wait(n.raft.BootstrapCluster(configuration))
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
	return n.change(ctx, "add member "+id, func() (startChange, error) {
		if id == "" || addr == "" {
			return nil, errors.New("id and address are required")
		}
		for _, s := range n.configuration().Servers {
			if string(s.Address) == addr && string(s.ID) != id {
				return nil, fmt.Errorf("address %s is that of member %s", addr, s.ID)
			}
		}
		return func(enqueue time.Duration) raft.IndexFuture {
			return n.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(addr), 0, enqueue)
		}, nil
	})
}

// Promote gives a member a vote. Leader only. raft would count an empty new voter
// at once, and a small cluster could commit nothing until it has caught up; so
// ErrNotCaughtUp is returned until the member has nearly all of the log, and
// while it does not answer.
func (n *Node) Promote(ctx context.Context, id string) error {
	return n.change(ctx, "promote member "+id, func() (startChange, error) {
		server, ok := findServer(n.configuration(), id)
		switch {
		case !ok:
			return nil, ErrNotMember
		case server.Suffrage == raft.Voter:
			return nil, nil
		}
		has, heard := n.trans.lastLog(server.ID)
		if last := n.raft.LastIndex(); has+caughtUp < last || has == 0 {
			return nil, fmt.Errorf("%w: it has %d of %d entries", ErrNotCaughtUp, has, last)
		}
		if silent := time.Since(heard); silent > n.cfg.Timing.Heartbeat {
			return nil, fmt.Errorf("%w: it has not answered for %v", ErrNotCaughtUp, silent.Round(time.Millisecond))
		}
		return func(enqueue time.Duration) raft.IndexFuture {
			return n.raft.AddVoter(server.ID, server.Address, 0, enqueue)
		}, nil
	})
}

// Remove removes a member; removing one that is not there does nothing. The last
// voter cannot be removed. Leader only. A leader that removes itself leads until
// that is committed. The removed node ends with ErrRemoved if it learns of it.
func (n *Node) Remove(ctx context.Context, id string) error {
	return n.change(ctx, "remove member "+id, func() (startChange, error) {
		members := n.configuration()
		voters := slices.DeleteFunc(members.Clone().Servers, func(s raft.Server) bool {
			return s.Suffrage != raft.Voter || string(s.ID) == id
		})
		switch _, ok := findServer(members, id); {
		case !ok:
			return nil, nil
		case len(voters) == 0:
			return nil, errors.New("it is the last voter")
		}
		return func(enqueue time.Duration) raft.IndexFuture {
			return n.raft.RemoveServer(raft.ServerID(id), 0, enqueue)
		}, nil
	})
}

// startChange has raft begin a change of the members.
type startChange func(enqueue time.Duration) raft.IndexFuture

// change makes one change of the members at a time: what decide has found must
// still be so when raft begins. raft could compare an index, but does not tell
// which. If decide returns nil there is nothing to change; change then returns
// once what decide has seen is committed.
func (n *Node) change(ctx context.Context, verb string, decide func() (startChange, error)) error {
	if err := n.admit(ctx); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if err := n.gate.enter(0); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	select {
	case n.changing <- struct{}{}:
	case <-ctx.Done():
		n.gate.leave(0)
		return fmt.Errorf("%s: %w: %w", verb, ErrUnavailable, ctx.Err())
	case <-n.stopped:
		n.gate.leave(0)
		return fmt.Errorf("%s: %w", verb, errStopping())
	}
	left := func() {
		<-n.changing
		n.gate.leave(0)
	}
	start, err := decide()
	switch {
	case err != nil:
		left()
	case start == nil:
		left()
		_, err = n.barrier(ctx)
	default:
		_, err = settle(ctx, n, start, left)
	}
	if err != nil {
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
