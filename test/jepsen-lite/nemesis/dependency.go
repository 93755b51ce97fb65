package nemesis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/fabric"
	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// Dependency is what instances call.
type Dependency interface {
	// Sicken makes it fail by "refuse" or "hang".
	Sicken(how string)
	Cure()
	// Failed is how many calls it has let down since.
	Failed() int
}

// sicken makes the dependency fail for everybody.
func sicken(how string) Fault {
	return Fault{
		Name: "dependency-" + how, Hold: Span{3 * time.Second, 6 * time.Second},
		Able: func(e *Env) error {
			if e.Dependency == nil {
				return errors.New("the run has no dependency")
			}
			return staffed(e)
		},
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			s.Aim(string(s.DependencyNode))
			s.Dependency.Sicken(how)
			end := func(context.Context) error { s.Dependency.Cure(); return nil }
			short, cancel := context.WithTimeout(ctx, biteLimit)
			defer cancel()
			if err := process.Poll(short, func() error {
				if s.Dependency.Failed() == 0 {
					return fmt.Errorf("%w: nobody calls it", errToothless)
				}
				return nil
			}); err != nil {
				return end, err
			}
			s.Prove("%d calls were let down", s.Dependency.Failed())
			return end, nil
		},
	}
}

// dependencyApart cuts some instances off from the dependency; the others reach it.
func dependencyApart(_ context.Context, s *Strike) ([]fabric.Link, []fabric.Node, error) {
	if len(s.Instances) == 0 || s.DependencyNode == "" {
		return nil, nil, errors.New("the run has no instances or no dependency")
	}
	some := someone(s.Rand, s.Instances)
	return both(some, []fabric.Node{s.DependencyNode}), some, nil
}
