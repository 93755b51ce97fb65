package consensus

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Transfer hands the leadership to a member, or to the best voter if id is empty.
// Writes are refused with ErrUnavailable meanwhile. Leader only; a node that is
// to lead and does already succeeds.
func (n *Node) Transfer(ctx context.Context, id string) error {
	if err := n.admit(ctx); err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	if err := n.gate.enter(0); err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	return n.transfer(ctx, id, func() { n.gate.leave(0) })
}

// transfer is Transfer for a leader; left is called once raft is done.
func (n *Node) transfer(ctx context.Context, id string, left func()) error {
	if id == n.cfg.ID {
		left()
		return nil
	}
	target, err := n.successor(id)
	if err != nil {
		left()
		return fmt.Errorf("transfer leadership: %w", err)
	}
	n.transfers.begin()
	_, err = settle(ctx, n, func(time.Duration) raft.Future {
		return n.raft.LeadershipTransferToServer(target.ID, target.Address)
	}, func() {
		n.transfers.end()
		left()
	})
	if err != nil {
		return fmt.Errorf("transfer leadership to %s: %w", target.ID, err)
	}
	return nil
}

// successor picks who leads next: the named voter, or among those heard from
// within the lease the one that has most of the log. raft's own choice does not
// ask whether the member is alive.
func (n *Node) successor(id string) (raft.Server, error) {
	members := n.configuration()
	if id != "" {
		server, ok := findServer(members, id)
		if !ok {
			return server, fmt.Errorf("%s: %w", id, ErrNotMember)
		}
		if server.Suffrage != raft.Voter {
			return server, fmt.Errorf("%w: %s has no vote", ErrUnavailable, id)
		}
		return server, nil
	}
	var best raft.Server
	var most uint64
	for _, s := range members.Servers {
		last, at := n.trans.lastLog(s.ID)
		alive := !at.IsZero() && time.Since(at) <= n.cfg.Timing.Lease
		if s.Suffrage == raft.Voter && string(s.ID) != n.cfg.ID && alive && (best.ID == "" || last > most) {
			best, most = s, last
		}
	}
	if best.ID == "" {
		return best, fmt.Errorf("%w: no other voter is in touch", ErrUnavailable)
	}
	return best, nil
}

// transfers notices a transfer of leadership that never ends. raft may forget to
// clear its flag when the leader steps down in the middle; if it leads again, it
// refuses every write for ever. A transfer begins nowhere but in transfer, so the
// flag is stuck if it is still set long after raft has settled the last one.
type transfers struct {
	limit time.Duration
	fail  func(error)

	mu      sync.Mutex // guards the fields below
	pending int
	settled time.Time // when the last one ended
}

func (t *transfers) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending++
}

func (t *transfers) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending--
	t.settled = time.Now()
}

// refused takes note that raft refused something because of a transfer.
func (t *transfers) refused() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending == 0 && time.Since(t.settled) > t.limit {
		t.fail(fmt.Errorf("leadership transfer has not ended after %v, and writes are refused; restart the process", t.limit))
	}
}
