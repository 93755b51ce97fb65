package nemesis

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
)

func staffed(e *Env) error {
	if len(e.Members) == 0 {
		return errors.New("the run has no instances")
	}
	return nil
}

// someMembers picks one up to half of the instances.
func someMembers(s *Strike) []Instance {
	var some []Instance
	for _, n := range someone(s.Rand, s.Instances) {
		for _, m := range s.Members {
			if m.ID() == string(n) {
				some = append(some, m)
			}
		}
	}
	return some
}

func memberIDs(members []Instance) []string {
	all := make([]string, len(members))
	for i, m := range members {
		all[i] = m.ID()
	}
	return all
}

func killMembers(s *Strike, members []Instance, why string) error {
	for _, m := range members {
		m.Kill(why)
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", m.PID())); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w: process %d of %s is still there", errToothless, m.PID(), m.ID())
		}
		s.Prove("process %d of %s is gone", m.PID(), m.ID())
	}
	return nil
}

func startMembers(members []Instance) error {
	var errs []error
	for _, m := range members {
		errs = append(errs, m.Start())
	}
	return errors.Join(errs...)
}

// killInstances kills some, which come back with their caches.
func killInstances() Fault {
	return Fault{
		Name: "instance-kill", Hold: Span{300 * time.Millisecond, 3 * time.Second}, Able: staffed,
		Do: func(_ context.Context, s *Strike) (func(context.Context) error, error) {
			some := someMembers(s)
			s.Aim(memberIDs(some)...)
			end := func(context.Context) error { return startMembers(some) }
			return end, killMembers(s, some, "instance-kill")
		},
	}
}

// pauseInstances has some stand still.
func pauseInstances(name string, hold Span) Fault {
	return Fault{
		Name: "instance-" + name, Hold: hold, Able: staffed,
		Do: func(_ context.Context, s *Strike) (func(context.Context) error, error) {
			some := someMembers(s)
			s.Aim(memberIDs(some)...)
			return func(context.Context) error { return resumeMembers(some) }, pauseMembers(s, some, "instance-"+name)
		},
	}
}

func pauseMembers(s *Strike, members []Instance, why string) error {
	for _, m := range members {
		proof, err := m.Pause(why)
		if err != nil {
			return fmt.Errorf("pause %s: %w", m.ID(), err)
		}
		s.Prove("%s: %s", m.ID(), proof)
	}
	return nil
}

func resumeMembers(members []Instance) error {
	var errs []error
	for _, m := range members {
		errs = append(errs, m.Resume())
	}
	return errors.Join(errs...)
}

// restartApart kills instances and starts them again while no server can be reached:
// they know what their caches and their peers know.
func restartApart() Fault {
	return Fault{
		Name: "instance-restart-apart", Hold: Span{2 * time.Second, 4 * time.Second},
		Able: func(e *Env) error { return errors.Join(staffed(e), networked(e)) },
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			some := someMembers(s)
			s.Aim(memberIDs(some)...)
			end := func(context.Context) error { return errors.Join(s.Cuts.set(s.number, nil), startMembers(some)) }
			var apart []fabric.Node
			for _, m := range some {
				apart = append(apart, fabric.Node(m.ID()))
			}
			links := both(apart, nodes(s.Cluster.Servers))
			if err := s.Cuts.set(s.number, links); err != nil {
				return end, err
			}
			if err := proveCut(ctx, s, links); err != nil {
				return end, err
			}
			if err := killMembers(s, some, "instance-restart-apart"); err != nil {
				return end, err
			}
			return end, startMembers(some)
		},
	}
}

// apart cuts the instances in two; all of them reach the servers.
func apart(_ context.Context, s *Strike) ([]fabric.Link, []fabric.Node, error) {
	if len(s.Instances) < 2 {
		return nil, nil, errors.New("the run has fewer than two instances")
	}
	left := someone(s.Rand, s.Instances)
	gone := make(map[fabric.Node]bool)
	for _, n := range left {
		gone[n] = true
	}
	var right []fabric.Node
	for _, n := range s.Instances {
		if !gone[n] {
			right = append(right, n)
		}
	}
	return both(left, right), left, nil
}

// lasting is a fault that goes on for longer than usual.
func lasting(f Fault, hold Span) Fault {
	f.Hold = hold
	return f
}
