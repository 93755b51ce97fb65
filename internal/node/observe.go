package node

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/seam"
)

// observeInterval is how often the server looks at itself.
const observeInterval = 500 * time.Millisecond

// observe compares this server's state with the others', keeps what the pool
// knows of it up to date, and settles a recovery.
func (n *Node) observe(ctx context.Context, tellHashes func()) {
	var told []byte
	pacer := newPacer()
	ticker := time.NewTicker(observeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.hashes.wake:
			tellHashes()
			if at, against := n.hashes.compare(n.memberIDs()); against > 0 {
				n.fence(fmt.Sprintf("%d servers have another state than this one at index %d", against, at))
			}
		case <-ticker.C:
			pacer.adjust()
		}
		if meta := n.encodeMeta(); !bytes.Equal(meta, told) {
			told = meta
			n.pool.UpdateMeta()
		}
		if err := n.recovery.settle(n.machine.View()); err != nil {
			n.log.Warn("cannot remove the mark of the recovery", "error", err)
		}
		if s := n.raft.Status(); s.Applied >= s.Commit {
			n.noteCaughtUp()
		}
		if n.fenced.Load() != nil && n.raft.Status().Role == consensus.Leader {
			n.giveUpLeadership(ctx)
		}
	}
}

// synchronize asks the leader for the time, once.
func (n *Node) synchronize(ctx context.Context) {
	for !n.clock.known() {
		err := n.Serving()
		if err == nil {
			err = n.api.Synchronize(ctx)
		}
		if err != nil && !pause(ctx, dutyRetry) {
			return
		}
	}
}

// fence stops this server from answering, until it is started again. Its state
// is not what the others have: it was damaged, or applied by a program that
// differs.
func (n *Node) fence(reason string) {
	if !n.fenced.CompareAndSwap(nil, &reason) {
		return
	}
	n.log.Error("FENCED: this server no longer answers; delete its data directory to let it join as a new one", "reason", reason)
	seam.Event("fenced", "server", n.id, "reason", reason)
}
