package nemesis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// late is how late a leader hears what the others say: less than what makes it give up.
const late = 200 * time.Millisecond

func delayed(e *Env) error {
	if err := networked(e); err != nil {
		return err
	}
	if caps := e.Network.Caps(); !caps.Delay {
		return errors.New(caps.Why)
	}
	return nil
}

// belated has the leader hand over while what the others say reaches it late: another
// leads and acknowledges writes, and it has not heard of that yet. It still believes
// that a majority follows it, for those are the answers that arrive.
func belated() Fault {
	return Fault{
		Name: "transfer-belated", Hold: Span{2 * late, 4 * late}, Able: delayed,
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			asking, stop := context.WithTimeout(ctx, leaderLimit)
			var asked sync.WaitGroup
			leader, heal, err := s.lateLeader(asking)
			end := func(ctx context.Context) error {
				stop()
				asked.Wait()
				return heal(ctx)
			}
			if err != nil {
				return end, err
			}
			asked.Go(func() { _ = leader.TransferTo(asking, "") }) // whether it does is seen below
			next, err := s.Cluster.WaitLeader(asking, leader)
			if err != nil {
				return end, fmt.Errorf("%w: %w", errToothless, err)
			}
			s.Prove("%s leads, and what it says reaches %s %v late", next.ID, leader.ID, late)
			return end, nil
		},
	}
}

// deafened lets a leader hear nothing any more that has heard the others late before:
// whatever clients have asked it for is under way then, and the others have it.
func deafened() Fault {
	return Fault{
		Name: "net-deafened-leader", Hold: Span{700 * time.Millisecond, 1500 * time.Millisecond}, Able: delayed,
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			short, cancel := context.WithTimeout(ctx, leaderLimit)
			defer cancel()
			leader, heal, err := s.lateLeader(short)
			end := func(ctx context.Context) error { return errors.Join(s.Cuts.set(s.number, nil), heal(ctx)) }
			if err != nil {
				return end, err
			}
			links := fabric.Between(nodes(s.Cluster.Except(leader)), nodes([]*process.Server{leader}))
			if err := s.Cuts.set(s.number, links); err != nil {
				return end, err
			}
			return end, proveCut(ctx, s, links)
		},
	}
}

// lateLeader has some leader hear the others late, and returns what ends that.
func (s *Strike) lateLeader(ctx context.Context) (leader *process.Server, end func(context.Context) error, err error) {
	s.Aim(s.Cluster.IDs()...)
	end = func(context.Context) error { return s.belate(leader, 0) }
	for {
		some, err := Leader(ctx, s)
		if err != nil {
			return leader, end, err
		}
		leader = some[0]
		if err = s.slowly(ctx, leader); err == nil || ctx.Err() != nil {
			return leader, end, err
		}
		if err := s.belate(leader, 0); err != nil {
			return leader, end, err
		}
	}
}

// slowly makes what a leader hears late, in steps: it gives up when it hears nothing for
// a quarter of a second.
func (s *Strike) slowly(ctx context.Context, leader *process.Server) error {
	const steps = 4
	for n := range time.Duration(steps) {
		if err := s.belate(leader, late*(n+1)/steps); err != nil {
			return err
		}
		wait(ctx, late) // for what was on its way
	}
	if still, err := s.Cluster.Leader(ctx); err != nil || still != leader {
		return errors.Join(err, fmt.Errorf("%w: %s has given up before it was to hand over", errToothless, leader.ID))
	}
	return nil
}

// belate makes late what a server hears of the others.
func (s *Strike) belate(server *process.Server, by time.Duration) error {
	if server == nil {
		return nil
	}
	one := []*process.Server{server}
	var errs []error
	for _, l := range fabric.Between(nodes(s.Cluster.Except(one...)), nodes(one)) {
		errs = append(errs, s.Network.Shape(l, fabric.Shape{Delay: by}))
	}
	return errors.Join(errs...)
}
