package nemesis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-dev/holdfast/test/jepsen-lite/process"
)

// jump sets the wall clocks of servers wrong, and right again at its end: two jumps.
func jump(name string, by time.Duration, pick Pick) Fault {
	return Fault{
		Name: "clock-" + name, Hold: Span{time.Second, 3 * time.Second},
		Able: func(e *Env) error {
			if len(e.Clocks) == 0 {
				return errors.New("the programs of this run have the machine's clock")
			}
			return nil
		},
		Do: func(ctx context.Context, s *Strike) (func(context.Context) error, error) {
			servers, err := pick(ctx, s)
			if err != nil {
				return nil, err
			}
			s.Aim(ids(servers)...)
			end := func(context.Context) error {
				for _, server := range servers {
					s.Clocks[server.ID].Set(0)
				}
				return nil
			}
			for _, server := range servers {
				s.Clocks[server.ID].Jump(by)
			}
			short, cancel := context.WithTimeout(ctx, biteLimit)
			defer cancel()
			for _, server := range servers {
				c := s.Clocks[server.ID]
				if err := process.Poll(short, func() error {
					if seen, _ := c.Seen(); seen != by {
						return fmt.Errorf("%w: %s still reads a clock that is wrong by %v", errToothless, server.ID, seen)
					}
					return nil
				}); err != nil {
					return end, err
				}
				s.Prove("%s has read a clock that is wrong by %v", server.ID, by)
			}
			return end, nil
		},
	}
}
