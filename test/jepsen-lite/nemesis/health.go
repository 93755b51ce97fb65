package nemesis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
)

// outageKnown is how long instances may take to find out that what they call fails, and
// to tell each other.
const outageKnown = 2 * time.Second

// sickAndSilent lets what instances call refuse, and when they have told each other,
// some of them stand still: the others have what those said, and hear no more of it.
func sickAndSilent() Fault {
	return Fault{
		Name: "dependency-and-silence", Hold: Span{24 * time.Second, 27 * time.Second},
		Able: func(e *Env) error {
			if e.Dependency == nil {
				return errors.New("the run has no dependency")
			}
			return staffed(e)
		},
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			silent := someMembers(s)
			s.Aim(append(memberIDs(silent), string(s.DependencyNode))...)
			s.Dependency.Sicken("refuse")
			end := func(context.Context) error {
				s.Dependency.Cure()
				return resumeMembers(silent)
			}
			wait(ctx, outageKnown)
			if s.Dependency.Failed() == 0 {
				return end, fmt.Errorf("%w: nobody calls it", errToothless)
			}
			s.Prove("%d calls were let down", s.Dependency.Failed())
			return end, pauseMembers(s, silent, "dependency-and-silence")
		},
	}
}

// healthKnown is how long it takes after an outage until nobody says any more that
// there is one: breakers that have tried in vain wait for seconds, and open by and by.
const healthKnown = 8 * time.Second

// sickThenApart lets what instances call refuse for a while. When that is over and
// forgotten, the instance that calls it least is cut off from it: nobody else finds it
// broken any more.
func sickThenApart() Fault {
	f := cut("dependency-then-last", dependencyFromLast)
	apart := f.Do
	f.Hold = Span{5 * time.Second, 6 * time.Second}
	f.Do = func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
		s.Dependency.Sicken("refuse")
		wait(ctx, outageKnown)
		s.Dependency.Cure()
		wait(ctx, healthKnown)
		return apart(ctx, s)
	}
	return f
}

func dependencyFromLast(_ context.Context, s *Strike) ([]fabric.Link, []fabric.Node, error) {
	if len(s.Instances) == 0 || s.DependencyNode == "" {
		return nil, nil, errors.New("the run has no instances or no dependency")
	}
	last := s.Instances[len(s.Instances)-1:]
	return both(last, []fabric.Node{s.DependencyNode}), last, nil
}
