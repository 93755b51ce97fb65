package api

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/holdfast-dev/holdfast/internal/state"
	peerv1 "github.com/holdfast-dev/holdfast/proto/holdfast/peer/v1"
	storagev1 "github.com/holdfast-dev/holdfast/proto/holdfast/storage/v1"
)

const (
	// minBackoff and maxBackoff bound the pause before the next look for a leader.
	// An election takes about a second, and the pause adds to that.
	minBackoff = 5 * time.Millisecond
	maxBackoff = 100 * time.Millisecond
	// maxCatchUp is how long a forwarded write waits for this server's own state
	// to include it.
	maxCatchUp = 5 * time.Second
)

// leadership finds the leader and acts there: here when this server leads, else
// through the leader's PeerService.
type leadership struct {
	replica Replica
	self    string
	peers   *peers
	metrics *metrics
	// wait is how long a leader is looked for.
	wait time.Duration
}

// action is something that only the leader can do.
type action struct {
	local  func(ctx context.Context) error
	remote func(ctx context.Context, leader peerv1.PeerServiceClient) error
	// harmless actions are repeated also when their outcome is unknown.
	harmless bool
}

// do performs the action at the leader. While there is none it waits, bounded by
// ctx and the time to look for one. It repeats an action only when that has had
// no effect for want of a leader, so the outcome of the last attempt is that of
// all.
func (l *leadership) do(ctx context.Context, a action) error {
	began, wait := time.Now(), patience(ctx, l.wait)
	for pause := minBackoff; ; pause = min(2*pause, maxBackoff) {
		err := l.attempt(ctx, a)
		if err == nil || !repeatable(err, a.harmless) {
			return err
		}
		left := wait - time.Since(began)
		if left <= 0 {
			return noLeader(err, time.Since(began))
		}
		timer := time.NewTimer(min(left, pause/2+rand.N(pause/2)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return noLeader(err, time.Since(began))
		}
	}
}

// noLeader is what a caller gets who has waited in vain.
func noLeader(last error, waited time.Duration) error {
	return newError(ReasonNoLeader, last, "no leader could be reached within %s: %v", waited.Round(time.Millisecond), last)
}

// repeatable tells whether another attempt may be made.
func repeatable(err error, harmless bool) bool {
	switch reasonOf(err) {
	case ReasonNotLeader, ReasonNoLeader, ReasonUnavailable:
		// Unavailable is a leader that hands over or is full; both pass.
		return outcomeOf(err) == Definite
	case ReasonUnknownOutcome, ReasonNotServing, ReasonFenced:
		return harmless
	default:
		return false
	}
}

// attempt performs the action once, where the leader seems to be.
func (l *leadership) attempt(ctx context.Context, a action) (err error) {
	id, addr := l.replica.Leader()
	place := "remote"
	switch {
	case id == l.self:
		place = "local"
		err = a.local(ctx)
	case id == "":
		place = "none"
		err = Errorf(ReasonNoLeader, "no leader is known")
	case addr == "":
		place = "none"
		err = Errorf(ReasonNoLeader, "the API address of the leader %s is not known yet", id).with(MetaLeader, id)
	default:
		err = l.peers.call(ctx, addr, a.remote)
	}
	result := "ok"
	if err != nil {
		result = string(outcomeOf(err))
	}
	l.metrics.forwards.WithLabelValues(place, result).Inc()
	return err
}

// proposal is what became of a command.
type proposal struct {
	outcome   state.Outcome
	duplicate bool
	// index is the Raft index of the command.
	index uint64
}

// propose commits a command at the leader and waits until this server has it,
// so that the caller can read its own write here. A refusal by the state is in
// the proposal, not an error. Any failure that is not surely without effect is UNKNOWN_OUTCOME.
func (l *leadership) propose(ctx context.Context, cmd *storagev1.Command) (proposal, error) {
	var p proposal
	began, age := time.Now(), cmd.GetAgeMs()
	err := l.do(ctx, action{
		local: func(ctx context.Context) error {
			cmd.AgeMs = age + time.Since(began).Milliseconds()
			var err error
			p, err = proposeHere(ctx, l.replica, cmd)
			return err
		},
		remote: func(ctx context.Context, leader peerv1.PeerServiceClient) error {
			cmd.TimeMs = 0 // an attempt here may have stamped it
			cmd.AgeMs = age + time.Since(began).Milliseconds()
			resp, err := leader.Propose(ctx, &peerv1.ProposeRequest{Command: cmd})
			if err != nil {
				return err
			}
			if p.outcome, err = state.OutcomeFromProto(resp.GetOutcome()); err != nil {
				return newError(ReasonUnknownOutcome, err, "the leader's answer is not understood: %v", err)
			}
			p.duplicate, p.index = resp.GetDuplicate(), resp.GetIndex()
			l.catchUp(ctx, p.index)
			return nil
		},
	})
	return p, err
}

// catchUp waits until this server has applied an index. The write is committed
// whatever happens here, so it leaves the caller time to hear of it.
func (l *leadership) catchUp(ctx context.Context, index uint64) {
	wait := maxCatchUp
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)*3/4)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_ = l.replica.WaitApplied(ctx, index) // the header tells how far this server is
}

// proposeHere commits a command at this server, which has to lead. What the
// replica does not explain may have had an effect.
func proposeHere(ctx context.Context, replica Replica, cmd *storagev1.Command) (proposal, error) {
	result, err := replica.Propose(ctx, cmd)
	if err != nil {
		var failure *Error
		if known := failureOf(err); !errors.As(err, &failure) && (known == nil || isContext(err)) {
			return proposal{}, newError(ReasonUnknownOutcome, err, "the outcome of the write is unknown: %v", err)
		}
		return proposal{}, err
	}
	return proposal{outcome: result.Outcome, duplicate: result.Duplicate, index: result.Index}, nil
}

// isContext tells whether an error is that of a context.
func isContext(err error) bool {
	r := reasonOf(err)
	return r == ReasonCancelled || r == ReasonDeadlineExceeded
}

// readIndex asks the leader for an index that includes every write acknowledged
// before the call.
func (l *leadership) readIndex(ctx context.Context) (uint64, error) {
	var index uint64
	err := l.do(ctx, action{
		harmless: true,
		local: func(ctx context.Context) (err error) {
			index, err = l.replica.ReadIndex(ctx)
			return err
		},
		remote: func(ctx context.Context, leader peerv1.PeerServiceClient) error {
			resp, err := leader.ReadIndex(ctx, &peerv1.ReadIndexRequest{})
			if err != nil {
				return err
			}
			index = resp.GetIndex()
			if ms := resp.GetStateTimeMs(); ms > 0 { // a server of an older version does not tell
				l.replica.LearnStateTime(time.UnixMilli(ms))
			}
			return nil
		},
	})
	if err != nil && outcomeOf(err) == Unknown && ctx.Err() == nil {
		err = newError(ReasonUnavailable, err, "the leader did not answer: %v", err) // a read has no effect
	}
	return index, err
}

// change commits a membership change at the leader.
func (l *leadership) change(ctx context.Context, req *peerv1.ChangeMembershipRequest) error {
	return l.do(ctx, action{
		local: func(ctx context.Context) error { return changeHere(ctx, l.replica, req) },
		remote: func(ctx context.Context, leader peerv1.PeerServiceClient) error {
			_, err := leader.ChangeMembership(ctx, req)
			return err
		},
	})
}

// changeHere commits a membership change at this server, which has to lead.
func changeHere(ctx context.Context, replica Replica, req *peerv1.ChangeMembershipRequest) error {
	err := replica.ChangeMembership(ctx, req)
	if err != nil && isContext(err) {
		return newError(ReasonUnknownOutcome, err, "the outcome of the change is unknown: %v", err)
	}
	return err
}
