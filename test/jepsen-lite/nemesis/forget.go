package nemesis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// forget makes an empty disk the one that would have to remember. One follower is cut
// off, so that what is written is on the leader and the other follower only; that one
// loses its disk, and the leader stands still. The empty server and the one that was
// cut off are a majority in number: if the empty one votes for what it was, they
// agree to lose what was acknowledged.
func forget() Fault {
	return Fault{
		Name: "replace-forgetful", Hold: Span{6 * time.Second, 9 * time.Second}, Able: networked,
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			some, err := Leader(ctx, s)
			if err != nil {
				return nil, err
			}
			leader := some[0]
			others := s.Cluster.Except(leader)
			s.Rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
			behind, empty := others[0], others[1]
			s.Aim(leader.ID, empty.ID, behind.ID)
			end := func(ctx context.Context) error {
				errs := []error{s.Cuts.set(s.number, nil), leader.Resume(), startAll(others)}
				ctx, cancel := context.WithTimeout(ctx, endLimit)
				defer cancel()
				return errors.Join(append(errs, empty.WaitVoters(ctx, len(s.Cluster.Servers)))...)
			}
			apart := nodes([]*process.Server{behind})
			rest := append(nodes(s.Cluster.Except(behind)), s.Clients...)
			if err := s.Cuts.set(s.number, both(apart, rest)); err != nil {
				return end, err
			}
			if err := leave(ctx, leader, behind); err != nil {
				return end, err
			}
			empty.Kill("replace-forgetful")
			if _, err := leader.Pause("replace-forgetful"); err != nil {
				return end, err
			}
			if err := empty.Wipe("replace-forgetful"); err != nil {
				return end, err
			}
			if err := errors.Join(s.Cuts.set(s.number, nil), empty.Start()); err != nil {
				return end, err
			}
			if !s.Network.Reaches(ctx, fabric.Node(behind.ID), fabric.Node(empty.ID), fabric.UDP) {
				return end, fmt.Errorf("%w: %s and %s are to reach each other", errToothless, behind.ID, empty.ID)
			}
			s.Prove("%s is paused and knows more than %s, %s is empty", leader.ID, behind.ID, empty.ID)
			return end, nil
		},
	}
}

// leave waits until one server has applied a good deal that another lacks.
func leave(ctx context.Context, ahead, behind *process.Server) error {
	const enough = 20
	before, err := behind.Status(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, biteLimit)
	defer cancel()
	return process.Poll(ctx, func() error {
		st, err := ahead.Status(ctx)
		if err != nil {
			return err
		}
		if got := st.GetHeader().GetRevision() - before.GetHeader().GetRevision(); got < enough {
			return fmt.Errorf("%w: %s is only %d revisions ahead of %s", errToothless, ahead.ID, got, behind.ID)
		}
		return nil
	})
}
