package nemesis

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// strand leaves instances and watchers only a server that is behind: one follower is
// cut off from the other servers, and once it lacks a good deal the others are killed.
// Whoever they served looks for another at once, and finds one that knows less.
func strand() Fault {
	return Fault{
		Name: "strand-behind", Hold: Span{2 * time.Second, 4 * time.Second}, Able: networked,
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			leader, err := Leader(ctx, s)
			if err != nil {
				return nil, err
			}
			others := s.Cluster.Except(leader...)
			behind := others[s.Rand.IntN(len(others))]
			ahead := s.Cluster.Except(behind)
			s.Aim(s.Cluster.IDs()...)
			end := func(context.Context) error { return errors.Join(s.Cuts.set(s.number, nil), startAll(ahead)) }
			apart := both(nodes([]*process.Server{behind}), nodes(ahead))
			if err := s.Cuts.set(s.number, apart); err != nil {
				return end, err
			}
			if err := leave(ctx, leader[0], behind); err != nil {
				return end, err
			}
			if err := killAll(s, ahead, "strand-behind"); err != nil {
				return end, err
			}
			s.Prove("%s is left and lacks what %s had", behind.ID, leader[0].ID)
			return end, nil
		},
	}
}
