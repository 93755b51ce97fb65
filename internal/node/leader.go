package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-dev/holdfast/internal/api"
	"github.com/holdfast-dev/holdfast/internal/consensus"
	"github.com/holdfast-dev/holdfast/internal/seam"
	"github.com/holdfast-dev/holdfast/internal/state"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

const (
	// tickInterval is how often the leader moves state time on.
	tickInterval = 15 * time.Second
	// dutyRetry is how long the leader waits before it tries a duty again.
	dutyRetry = 200 * time.Millisecond
	// firstVersion is the version of every command that the node itself makes.
	firstVersion = 1
)

// lead is what a leader does beside answering. Consensus runs it while this
// server leads and has applied what was committed before; ctx ends with the
// leadership.
func (n *Node) lead(ctx context.Context, term uint64) {
	select {
	case <-n.started: // the duties need the pool
	case <-ctx.Done():
		return
	}
	if n.fenced.Load() != nil {
		n.giveUpLeadership(ctx)
		return
	}
	n.clock.lead()
	defer n.clock.follow()
	seam.Event("duties", "server", n.id, "term", term, "begin", true)
	defer seam.Event("duties", "server", n.id, "term", term, "begin", false)
	if !n.establish(ctx) {
		return
	}
	var duties sync.WaitGroup
	defer duties.Wait()
	duties.Go(func() { n.tickLoop(ctx) })
	duties.Go(func() { n.expireLoop(ctx) })
	duties.Go(func() { n.reconcileLoop(ctx) })
	duties.Go(func() { n.charterLoop(ctx) })
}

// establish gives the cluster its lineage where it has none, and raises the
// epoch after a recovery. Until then nobody is served. It returns false when the
// leadership ended first.
func (n *Node) establish(ctx context.Context) bool {
	// Drawn once: an attempt whose outcome is unknown is repeated as it was, and a
	// nonce has its effect once.
	fresh := drawNonce()
	var lineage [16]byte
	_, _ = rand.Read(lineage[:]) // crypto/rand never returns an error
	for {
		view := n.machine.View()
		nonce, recovered := n.recovery.pending(view)
		if !recovered && view.Epoch().HasLineage() {
			return true
		}
		if !recovered {
			nonce = fresh
		}
		result, err := n.propose(ctx, &storagev1.Command{
			Body: &storagev1.Command_NewEpoch{NewEpoch: &storagev1.NewEpoch{Lineage: lineage[:], Nonce: nonce}},
		})
		if err == nil && result.Rejection == nil {
			n.log.Info("epoch begun", "epoch", n.machine.View().Epoch().String(), "recovered", recovered)
			continue
		}
		if err == nil {
			err = result.Rejection
		}
		n.log.Warn("cannot begin the epoch yet", "error", err)
		if !pause(ctx, dutyRetry) {
			return false
		}
	}
}

// drawNonce never returns 0, which is no nonce.
func drawNonce() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand never returns an error
	return binary.BigEndian.Uint64(b[:]) | 1
}

// tickLoop moves state time on, so that members know that they are fresh and
// compare their states.
func (n *Node) tickLoop(ctx context.Context) {
	ticker := time.NewTicker(n.tickEvery)
	defer ticker.Stop()
	for {
		_, err := n.propose(ctx, &storagev1.Command{Body: &storagev1.Command_Tick{Tick: &storagev1.Tick{}}})
		if err != nil && ctx.Err() == nil {
			n.log.Warn("tick not committed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// expireLoop removes overrides when they end. It sleeps until the next end, or
// until the state changes.
func (n *Node) expireLoop(ctx context.Context) {
	for {
		changed := n.changed.wait()
		wait := time.Duration(-1)
		if end, ok := n.machine.View().NextEnd(); ok {
			now, leads := n.clock.stamp()
			if !leads {
				return
			}
			wait = time.Duration(end-now) * time.Millisecond
			if wait <= 0 {
				if n.expire(ctx, end) {
					continue
				}
				wait = dutyRetry
			}
		}
		var timer <-chan time.Time
		if wait >= 0 {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-timer:
		}
	}
}

// expire ends what is due; false asks for a pause before the next attempt.
func (n *Node) expire(ctx context.Context, due int64) bool {
	result, err := n.propose(ctx, &storagev1.Command{Body: &storagev1.Command_Expire{Expire: &storagev1.Expire{}}})
	switch {
	case err != nil:
		if ctx.Err() == nil {
			n.log.Warn("overrides not ended yet", "error", err)
		}
		return false
	case result.Rejection != nil:
		n.log.Error("ending overrides was refused", "error", result.Rejection)
		return false
	}
	after, ok := n.machine.View().NextEnd()
	return !ok || after != due // otherwise it had no effect, and is not to be repeated at once
}

// pause waits; it returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// giveUpLeadership hands over to another voter, again and again until it works:
// a fenced server must not decide.
func (n *Node) giveUpLeadership(ctx context.Context) {
	for {
		err := n.raft.Transfer(ctx, "")
		if err == nil || errors.As(err, new(*consensus.NotLeaderError)) || !pause(ctx, time.Second) {
			return
		}
		n.log.Error("a fenced server cannot hand over the leadership", "error", err)
	}
}

// propose stamps a command and commits it.
func (n *Node) propose(ctx context.Context, cmd *storagev1.Command) (state.Result, error) {
	if cmd.GetVersion() == 0 {
		cmd.Version = firstVersion
	}
	if err := n.versionGate(cmd.GetVersion()); err != nil {
		return state.Result{}, err
	}
	stamp, ok := n.clock.stamp()
	if !ok {
		status := n.raft.Status()
		if status.Role != consensus.Leader {
			return state.Result{}, &consensus.NotLeaderError{ID: status.LeaderID, Addr: status.LeaderAddr}
		}
		return state.Result{}, fmt.Errorf("%w: the leader is catching up", consensus.ErrUnavailable)
	}
	cmd.TimeMs = stamp
	data, err := proto.Marshal(cmd)
	if err != nil {
		return state.Result{}, fmt.Errorf("encode command: %w", err)
	}
	_, result, err := n.raft.Propose(ctx, data)
	if errors.Is(err, consensus.ErrUnknownOutcome) && seam.Bug(seam.UnknownIsDone) {
		return state.Result{Outcome: state.Outcome{Revision: n.machine.View().Revision() + 1}}, nil
	}
	if err != nil {
		return state.Result{}, fmt.Errorf("propose command: %w", err)
	}
	typed, ok := result.(state.Result)
	if !ok {
		return state.Result{}, fmt.Errorf("propose command: %w: unexpected result %T", consensus.ErrUnknownOutcome, result)
	}
	return typed, nil
}

// versionGate refuses a command that a member may not understand: the member
// would have to stop.
func (n *Node) versionGate(version uint32) error {
	if version <= firstVersion {
		return nil
	}
	if lowest := minVersion(n.memberIDs(), n.servers()); version > lowest {
		return api.Errorf(api.ReasonUnavailable,
			"a command of version %d has to wait until every server understands it; the oldest understands %d", version, lowest)
	}
	return nil
}
